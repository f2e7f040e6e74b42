"""Two processes train as one does: each gives its part of the batch, the first alone writes and talks
(but for each one's ledger).

With everything that could depend on which process holds which example: augmentation, mixing of neighbours,
micro-batches, moving averages, flips in evaluation, and in the two processes alone parameters split over devices and
images that each process reads for itself. Tolerances are those of digits.py, for the same reasons.
"""

import concurrent.futures
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# Says on standard output what a process that is not the first opens to write, but for checkpoints: those are Orbax's.
WORKER = """
import os
import sys
from convmixer_jax import main

workdir = sys.argv[1]

def watch(event, values):
    if event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = os.path.abspath(os.fsdecode(values[0])) if isinstance(values[0], str | bytes) else ""
        if path.startswith(workdir + "/") and not path.startswith(workdir + "/checkpoints"):
            print("wrote", os.path.basename(path))

sys.addaudithook(watch)
sys.exit(main.main(["main", f"--workdir={workdir}", *sys.argv[2:]]))
"""
RECIPE = {
    "train_examples": 640,
    "val_fraction": 0.1,
    "epochs": 1,
    "model.dim": 8,
    "model.depth": 1,
    "augment.order": ("random_resized_crop", "horizontal_flip", "affine", "random_erasing"),
    "augment.affine.rotation": 10.0,
    "augment.affine.shift": 0.1,
    "mixing.mixup_alpha": 0.8,
    "mixing.cutmix_alpha": 1.0,
    "mixing.per": "example",
    "accumulate_steps": 2,
    "ema_decay": 0.5,
    "eval_flip": True,
    "optimizer.eps": 2e-2,
    "schedule.name": "constant",
    "schedule.learning_rate": 2e-3,
    "report_every_steps": 2,
    "checkpoint_every_steps": 5,
    "compilation_cache": False,
}  # ten updates
TWO = {"fsdp_devices": 2, "input": "stream"}
UPDATES = 10


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(
    workdir: Path, processes: int, devices: int, settings: dict | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Trains a small model on the digits by `processes` processes with `devices` virtual devices each."""
    flags = [f"--config.{name}={value}" for name, value in (RECIPE | (settings or {})).items()]
    # Without LLVM's optimisations, which take longer than what is tested.
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    cluster = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={processes}"] if processes > 1 else []
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WORKER, str(workdir), "--config=configs/digits.py", *flags),
                *(cluster and [*cluster, f"--process_id={index}"]),
            ],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    done = []
    for process in started:
        out, err = process.communicate(timeout=240)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


Runs = dict[str, tuple[Path, list[subprocess.CompletedProcess[str]]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The workdirs and processes of the same run by two processes, by one with as many devices and by one with one."""
    grids = {"two": (2, 4, TWO), "eight devices": (1, 8, {}), "alone": (1, 1, {})}
    workdirs = {name: tmp_path_factory.mktemp("run") for name in grids}
    with concurrent.futures.ThreadPoolExecutor(len(grids)) as pool:
        started = {name: pool.submit(run, workdirs[name], *grid) for name, grid in grids.items()}
        return {name: (workdirs[name], process.result()) for name, process in started.items()}


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same(found: Path, wanted: Path) -> None:
    """Asserts that two runs report the same losses, gradients, learning and scores."""
    ours, theirs = rows(found), rows(wanted)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine.keys() - {"perf/images_per_sec", "perf/input_wait", "eval/split"}:
            np.testing.assert_allclose(mine[name], other[name], rtol=1e-4, err_msg=name)
    results = [json.loads((path / "result.json").read_text()) for path in (found, wanted)]
    for name in ("n", "step", "top1", "top5", "top1_flip", "top1_ema", "train_top1", "per_class_top1", "val_top1"):
        assert results[0][name] == results[1][name], name
    assert (results[0]["n"], results[0]["step"]) == (360, UPDATES)


def test_all_end_well_and_the_first_alone_talks_and_writes(runs):
    for _, processes in runs.values():
        assert [process.returncode for process in processes] == [0] * len(processes), processes[-1].stderr
        assert "finished: test top1" in processes[0].stderr
    first, second = runs["two"][1]
    assert "wrote metrics.jsonl" in first.stdout, "else nothing is watched"
    assert [line for line in second.stdout.splitlines() if line.startswith("wrote")] == ["wrote ledger-1.jsonl"]
    assert "finished" not in second.stderr
    assert "update" not in second.stderr


@pytest.mark.parametrize("other", ["eight devices", "alone"])
def test_two_processes_equal_one(runs, other):
    # The seven rows that are compared: five reports, and at the end both splits.
    assert [row["step"] for row in rows(runs["two"][0])] == [2, 4, 6, 8, 10, 10, 10]
    assert_same(runs["two"][0], runs[other][0])


def test_one_process_goes_on_where_two_stopped(runs, tmp_path):
    workdir = tmp_path / "resumed"
    shutil.copytree(runs["two"][0], workdir)
    # As it was after a save of update 5: what came later is gone, but for the log.
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / str(UPDATES))
    (resumed,) = run(workdir, processes=1, devices=1)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step 5" in resumed.stderr
    assert_same(workdir, runs["alone"][0])
