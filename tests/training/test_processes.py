"""Two processes train as one does: each gives its part of the batch, the first alone writes and talks
(but for each one's ledger).

With everything that could depend on which process holds which example: augmentation, mixing of neighbours,
micro-batches, moving averages, flips in evaluation, and in the two processes alone parameters split over devices and
images that each process reads for itself. Tolerances are those of digits.py, for the same reasons. What one process
does, this one does.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.crashing.starts import free_port
from convmixer_jax.main import main
from tests.training.disturbed import DEADLINE, ENVIRONMENT, ROOT
from tests.training.starts import lines

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]
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


def flags_of(settings: dict) -> list[str]:
    return ["--config=configs/digits.py", *(f"--config.{name}={value}" for name, value in settings.items())]


def by_two(workdir: Path) -> list[subprocess.CompletedProcess[str]]:
    """Trains a small model on the digits by two processes with two virtual devices each."""
    cluster = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
    command = [sys.executable, "-c", WORKER, str(workdir), *flags_of(RECIPE | TWO), *cluster]
    started = [
        subprocess.Popen(
            [*command, f"--process_id={index}"],
            env=ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": "2"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    told = [process.communicate(timeout=DEADLINE) for process in started]
    return [
        subprocess.CompletedProcess(each.args, each.returncode, *words)
        for each, words in zip(started, told, strict=True)
    ]


def by_one(workdir: Path, devices: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.delitem(sys.modules, "config_config", raising=False)
        assert main(["main", f"--workdir={workdir}", *flags_of(RECIPE), f"--config.devices={devices}"]) == 0


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """The workdir and the processes of a run by two."""
    workdir = tmp_path_factory.mktemp("two")
    return workdir, by_two(workdir)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The workdirs of the same run by one process with as many devices as the two have, and with one."""
    workdirs = {devices: tmp_path_factory.mktemp("alone") for devices in (4, 1)}
    for devices, workdir in workdirs.items():
        by_one(workdir, devices)
    return workdirs


def assert_same(found: Path, wanted: Path) -> None:
    """Asserts that two runs report the same losses, gradients, learning and scores."""
    ours, theirs = lines(found), lines(wanted)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine.keys() - {"perf/images_per_sec", "perf/input_wait", "eval/split"}:
            np.testing.assert_allclose(mine[name], other[name], rtol=1e-4, err_msg=name)
    results = [json.loads((path / "result.json").read_text()) for path in (found, wanted)]
    for name in ("n", "step", "top1", "top5", "top1_flip", "top1_ema", "train_top1", "per_class_top1", "val_top1"):
        assert results[0][name] == results[1][name], name
    assert (results[0]["n"], results[0]["step"]) == (360, UPDATES)


def test_all_end_well_and_the_first_alone_talks_and_writes(two):
    first, second = two[1]
    assert [process.returncode for process in (first, second)] == [0, 0], second.stderr
    assert "finished: test top1" in first.stderr
    assert "wrote metrics.jsonl" in first.stdout, "else nothing is watched"
    assert [line for line in second.stdout.splitlines() if line.startswith("wrote")] == ["wrote ledger-1.jsonl"]
    assert "finished" not in second.stderr
    assert "update" not in second.stderr


@pytest.mark.parametrize("devices", [4, 1])
def test_two_processes_equal_one(two, alone, devices):
    # The seven rows that are compared: five reports, and at the end both splits.
    assert [row["step"] for row in lines(two[0])] == [2, 4, 6, 8, 10, 10, 10]
    assert_same(two[0], alone[devices])


def test_one_process_goes_on_where_two_stopped(two, alone, tmp_path):
    workdir = tmp_path / "resumed"
    shutil.copytree(two[0], workdir)
    # As it was after a save of update 5: what came later is gone, but for the log.
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / str(UPDATES))
    by_one(workdir, devices=1)
    assert [row["step"] for row in lines(workdir)] == [row["step"] for row in lines(two[0])]
    assert (workdir / "metrics.discarded.jsonl").exists(), "it made updates 6 to 10 anew"
    assert_same(workdir, alone[1])
