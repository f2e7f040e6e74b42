"""Processes that were not started alike end, all of them, with the same line, and none waits for ever."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.training.agreement import check_devices
from tests.commands import DIGITS, ONE_EPOCH, ROOT, SMALL

HOST = socket.gethostname()


def test_as_many_devices_everywhere():
    check_devices([0, 0, 1, 1])
    with pytest.raises(UserError, match="^the number of devices is 2 on process 0, but 1 on process 2: the batch"):
        check_devices([0, 0, 1, 1, 2])


def start(cwd: Path, processes: dict[int, tuple[list[str], dict[str, str]]], count: int) -> list[subprocess.Popen]:
    """Starts these of `count` processes with their own arguments and variables."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    shared |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "CONVMIXER_COORDINATOR": f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", "convmixer_jax.main", *DIGITS, *SMALL, *ONE_EPOCH, "--config.devices=0"]
    return [
        subprocess.Popen(
            [*command, f"--num_processes={count}", f"--process_id={index}", *arguments],
            cwd=cwd,
            env=os.environ | shared | variables,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, (arguments, variables) in processes.items()
    ]


def ends(processes: list[subprocess.Popen], timeout: float = 120) -> list[tuple[int, str]]:
    """Returns exit code and last line of each."""
    told = [process.communicate(timeout=timeout)[1] for process in processes]
    return [(process.returncode, err.splitlines()[-1]) for process, err in zip(processes, told, strict=True)]


def both(line: str) -> list[tuple[int, str]]:
    return [(2, line)] * 2


@pytest.mark.slow
def test_another_value_on_one(tmp_path):
    processes = {0: (["--workdir=run"], {}), 1: (["--workdir=run", "--config.report_every_steps=7"], {})}
    (first, second) = ends(start(tmp_path, processes, 2))
    assert first == second
    fact = rf"config.report_every_steps is \d+ on process 0 \({HOST}\), but 7 on process 1 \({HOST}\)"
    assert re.fullmatch(f"error: {fact}: start all processes of a run alike", first[1])
    assert first[0] == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_workdir_on_one(tmp_path):
    first, other = (f"{tmp_path / name} ({HOST})" for name in "01")
    line = f"error: --workdir of process 0, {first}, is not that of process 1, {other}: name a folder that all"
    assert ends(start(tmp_path, {index: ([f"--workdir={index}"], {}) for index in range(2)}, 2)) == both(
        f"{line} of them share"
    )
    assert [list((tmp_path / name).iterdir()) for name in "01"] == [[], []]


@pytest.mark.slow
def test_other_devices_on_one(tmp_path):
    processes = {0: (["--workdir=run"], {}), 1: (["--workdir=run"], {"JAX_NUM_CPU_DEVICES": "3"})}
    line = "error: the number of devices is 1 on process 0, but 3 on process 1: the batch is split evenly, so give all"
    assert ends(start(tmp_path, processes, 2)) == both(f"{line} as many")


@pytest.mark.slow
def test_a_mistake_that_all_make_is_told_by_all(tmp_path):
    processes = {index: (["--workdir=run", "--config.train_examples=99999"], {}) for index in range(2)}
    first, second = ends(start(tmp_path, processes, 2))
    assert first == second
    assert first[0] == 2
    assert first[1].startswith("error: config.train_examples is 99999")


@pytest.mark.slow
def test_one_who_never_comes(tmp_path):
    processes = {index: (["--workdir=run", "--initialization_timeout=8"], {}) for index in (0, 2)}
    first, second = ends(start(tmp_path, processes, 3))
    assert first == second
    assert first[0] == 76
    assert first[1].startswith("error: 2 of 3 processes came to --coordinator 127.0.0.1:")
    assert first[1].endswith(f" within 8 s (0 ({HOST}), 2 ({HOST})), but not 1: run again")


@pytest.mark.slow
def test_a_signal_while_waiting_for_the_others(tmp_path):
    (process,) = start(tmp_path, {1: (["--workdir=run"], {})}, 2)
    time.sleep(6)  # it waits by then, or is still importing: told alike
    process.send_signal(signal.SIGTERM)
    assert ends([process]) == [(75, "SIGTERM received: stopped, there was nothing to save")]
