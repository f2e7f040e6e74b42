"""What every test shares: eight virtual CPU devices, set before JAX starts."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from jax.sharding import Mesh

from convmixer_jax.main import main
from convmixer_jax.runs.programs import keep_programs
from convmixer_jax.training.mesh import make_mesh
from tests.commands import DIGITS, ONE_EPOCH, SMALL
from tests.workdirs import make_workdir

# Only the CPU backend can pretend to be several devices, and tolerances are those of its arithmetic.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
# What one test has compiled, others find, and so does the next run of the suite: compiling is most of its time.
keep_programs(Path(__file__).parents[1] / ".pytest_cache" / "programs")


# What takes longest, longest first: begun early, it does not go on alone after all the rest.
LONGEST = (
    "test_crashtest.py",
    "test_interruptions.py",
    "test_resume.py",
    "test_processes.py",
    "test_agreement.py",
    "test_devices.py",
    "test_local.py",
    "test_features.py",
    "test_features_on_devices.py",
    "test_depthwise.py",
    "test_fsdp.py",
    "test_randaugment.py",
    "test_tfds_directory.py",
    "test_surroundings.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Lets xdist keep that order: by itself it begins with the files that have the most tests, which are quick."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first; all else stays in its order."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


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


@pytest.fixture(scope="session")
def initial_run(tmp_path_factory) -> Path:
    """A workdir with random weights as step 22, for all tests that only read one; see `untrained`."""
    workdir = tmp_path_factory.mktemp("initial") / "run"
    make_workdir(workdir, [*DIGITS, *SMALL, *ONE_EPOCH], step=22)
    sys.modules.pop("config_config", None)  # as `elsewhere` does
    return workdir


@pytest.fixture
def untrained(tmp_path, elsewhere, initial_run) -> Path:
    """A copy of it: what a run of one epoch leaves, quicker."""
    return Path(shutil.copytree(initial_run, tmp_path / "run"))
