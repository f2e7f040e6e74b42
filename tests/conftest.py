"""What every test shares: eight virtual CPU devices, set before JAX starts."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from jax.sharding import Mesh

from convmixer_jax.main import main
from convmixer_jax.training.mesh import make_mesh
from tests.commands import DIGITS, ONE_EPOCH, SMALL

# Only the CPU backend can pretend to be several devices, and tolerances are those of its arithmetic.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


# Files that start processes take minutes each: begun first, they do not end long after all others.
LONGEST = ("test_resume.py", "test_processes.py", "test_tfds_directory.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first; the order within a file stays."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """For modules where LLVM's optimisations would take longer than what is tested, and change nothing of it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def mesh() -> Callable[[int], Mesh]:
    """Returns a function of n to a mesh over the first n devices."""
    return make_mesh


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Runs write below a fresh folder, and nothing is left of the recipe that ml_collections read last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONVMIXER_DATA_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)


@pytest.fixture
def refused(capsys):
    """Returns a function of the arguments to the one line that they are refused with."""

    def run(*arguments: str) -> str:
        code = main(["main", *arguments])
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: "), err
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert code == 2
        return err

    return run


@pytest.fixture
def trained(tmp_path, elsewhere) -> Path:
    """A workdir of one epoch, two checkpoints, whose evaluation batch is far larger than its split."""
    assert main(["main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run", "--config.eval_batch_size=1000000"]) == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["n"] == 360
    return tmp_path / "run"
