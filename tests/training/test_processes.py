"""Two processes train as one does: each gives its part of the batch, the first alone writes and talks."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = """
import sys
import jax

port, count, index = (int(value) for value in sys.argv[1:4])
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
from convmixer_jax import main

sys.exit(main.main(["main", *sys.argv[4:]]))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(workdir: Path, processes: int, devices: int) -> list[subprocess.CompletedProcess[str]]:
    """Trains a small model on the digits by `processes` processes with `devices` virtual devices each."""
    recipe = [
        *("--config", "configs/digits.py", "--workdir", str(workdir), "--config.epochs=1", "--config.val_fraction=0.1"),
        *("--config.model.dim=8", "--config.model.depth=1", "--config.report_every_steps=4"),
        # Adam divides by the root of the second moment: with a tiny eps the first updates are signs of gradients, and
        # a gradient of rounding noise alone would move a parameter by the whole learning rate.
        *("--config.optimizer.eps=0.001", "--config.checkpoint_every_steps=8"),
    ]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(port), str(processes), str(index), *recipe],
            env=environment,
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


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    workdir = tmp_path_factory.mktemp("two")
    return workdir, run(workdir, processes=2, devices=2)


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_both_end_well_and_the_first_alone_talks(two):
    _, (first, second) = two
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "finished: test top1" in first.stderr
    assert "finished" not in second.stderr


def test_two_processes_equal_one(two, tmp_path):
    workdir, _ = two
    (alone,) = run(tmp_path, processes=1, devices=1)
    assert alone.returncode == 0, alone.stderr
    ours, theirs = rows(workdir), rows(tmp_path)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("train/loss", "norm/grad", "eval/loss"):
            if name in mine:
                # float32, 20 updates: the orders of summation differ; see test_devices.py for the bound.
                np.testing.assert_allclose(mine[name], other[name], rtol=1e-4)
    results = [json.loads((path / "result.json").read_text()) for path in (workdir, tmp_path)]
    assert [result["n"] for result in results] == [360, 360]
    assert results[0]["top1"] == results[1]["top1"]
