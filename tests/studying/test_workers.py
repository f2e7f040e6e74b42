"""Several workers, each a process of its own, on one storage."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from convmixer_jax.runs.ledger import ledger_path, read_starts
from convmixer_jax.studying.storage import is_held
from tests.commands import ROOT

pytestmark = pytest.mark.slow
STORAGES = ["sqlite", "journal"]
PATIENCE_S = 120


@pytest.fixture
def begin(study_file, tmp_path, request):
    """Returns a function that begins a worker on the storage of the test."""
    begun: list[subprocess.Popen[str]] = []
    url = {"sqlite": "sqlite:///shared.db", "journal": "journal:shared.log"}[request.param]

    def begin_one(arguments: str, *flags: str, seeds=None) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "SEEDS": json.dumps(seeds or {}), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "tests.studying.stand_in_sweep", "--study", str(study_file(arguments))]
        begun.append(
            subprocess.Popen(
                [*command, "--dir=study", f"--storage={url}", *flags],
                cwd=tmp_path,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield begin_one
    for process in begun:
        process.kill()
        process.communicate()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def starts(tmp_path: Path) -> dict[str, list[str]]:
    """From which step each run was begun, by its name."""
    return {
        f"{path.parts[-3]} {path.parts[-2]}": [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
        for path in sorted((tmp_path / "study").glob("*/*/starts.txt"))
    }


@pytest.mark.parametrize("begin", STORAGES, indirect=True)
def test_two_workers_make_every_run_once(begin, tmp_path):
    arguments = "axes={'model.kernel_size': (3, 5, 7, 9)}, seeds=(0, 1, 2)"
    seeds = {str(seed): {"seconds": 0.1} for seed in range(3)}
    # As soon as possible after one another: both find no study, and both make it.
    workers = [begin(arguments, seeds=seeds) for _ in range(2)]
    told = [worker.communicate(timeout=PATIENCE_S)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    assert starts(tmp_path) == {f"kernel_size={k} seed-{seed}": ["from 0"] for k in (3, 5, 7, 9) for seed in range(3)}
    lines = [[line for line in err.splitlines() if "test top1" in line] for err in told]
    assert len(lines[0]) + len(lines[1]) == 12
    assert all(lines), told


ONE = "axes={'model.kernel_size': (3,)}, seeds=(0,)"


@pytest.mark.parametrize("begin", STORAGES, indirect=True)
def test_the_run_of_a_killed_worker_is_taken_up_from_its_checkpoint(begin, tmp_path):
    """The machine is gone: the worker and its run at once."""
    lost = begin(ONE, seeds={"0": {"until": "never"}})
    run = tmp_path / "study/kernel_size=3/seed-0"
    until(lambda: (run / "saved").exists() and (run / "saved").read_text() == "1")
    lost.kill()
    os.kill(int((run / "pid").read_text()), signal.SIGKILL)
    other = begin(ONE)
    told = other.communicate(timeout=PATIENCE_S)[1]
    assert other.returncode == 0, told
    assert starts(tmp_path) == {"kernel_size=3 seed-0": ["from 0", "from 1"]}
    assert "1/1: kernel_size=3 seed 0: test top1 0.5000" in told


@pytest.mark.parametrize("begin", STORAGES, indirect=True)
def test_a_run_that_outlives_its_worker_is_waited_for(begin, tmp_path):
    lost = begin(ONE, seeds={"0": {"until": "go"}})
    run = tmp_path / "study/kernel_size=3/seed-0"
    until(lambda: (run / "saved").exists())
    lost.kill()
    assert is_held(run / ".lock")
    other = begin(ONE)
    waits = "kernel_size=3 seed 0: a process of another worker still trains there; waiting for it"
    assert other.stderr is not None
    lines = [other.stderr.readline()]
    while lines[-1] and waits not in lines[-1]:
        lines.append(other.stderr.readline())
    (tmp_path / "go").touch()
    told = "".join(lines) + other.communicate(timeout=PATIENCE_S)[1]
    assert (other.returncode, waits in told) == (0, True), told
    assert starts(tmp_path) == {"kernel_size=3 seed-0": ["from 0"]}


REAL = (
    "axes={'model.kernel_size': (3,)}, seeds=(0,), settings={'model.dim': 4, 'model.depth': 1, 'epochs': 30, "
    "'checkpoint_every_steps': 22, 'report_every_steps': 22, 'eval_every_epochs': 30, 'steps_per_dispatch': 2}"
)


@pytest.mark.parametrize("begin", ["sqlite"], indirect=True)
def test_a_real_run_goes_on_where_its_worker_was_killed(begin, tmp_path):
    lost = begin(REAL, "--real")
    run = tmp_path / "study/kernel_size=3/seed-0"
    until(lambda: len(list(run.glob("checkpoints/*/MANIFEST.json"))) >= 2)
    lost.kill()
    os.kill(int((run / ".lock").read_text().split()[1]), signal.SIGKILL)
    other = begin(REAL, "--real")
    told = other.communicate(timeout=PATIENCE_S)[1]
    assert other.returncode == 0, told
    first, second = read_starts(ledger_path(run, 0))
    assert (first.step, (second.step or 0) >= 22) == (0, True)
    assert json.loads((run / "result.json").read_text())["step"] == 30 * 22
