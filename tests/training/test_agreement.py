"""Processes that were not started alike end, all of them, with the same line, and none waits for ever."""

import concurrent.futures
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convmixer_jax.command_line import parse
from convmixer_jax.crashing.starts import free_port
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.main import main
from convmixer_jax.runs import rendezvous
from convmixer_jax.runs.rendezvous import Place, meet
from convmixer_jax.training.agreement import check_devices, facts
from tests.commands import DIGITS, ONE_EPOCH, ROOT, SMALL

HOST = socket.gethostname()


def test_as_many_devices_everywhere():
    check_devices([0, 0, 1, 1])
    with pytest.raises(UserError, match="^the number of devices is 2 on process 0, but 1 on process 2: the batch"):
        check_devices([0, 0, 1, 1, 2])


def start(cwd: Path, processes: dict[int, tuple[list[str], dict[str, str]]], count: int) -> list[subprocess.Popen]:
    """Starts these of `count` processes with their own arguments and variables."""
    shared = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    shared |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "CONVMIXER_COORDINATOR": f"127.0.0.1:{free_port()}"}
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


CLUSTER = ["--num_processes=3", "--process_id=0", "--initialization_timeout=1"]


def as_one_of_three(port: int) -> ExitCode:
    """What a process ends with that meets others, in this process: JAX is not joined before all have come."""
    return main(["main", *DIGITS, *SMALL, "--workdir=run", f"--coordinator=127.0.0.1:{port}", *CLUSTER])


def test_one_who_never_comes(elsewhere, capsys):
    assert as_one_of_three(free_port()) == 76
    told = capsys.readouterr().err
    assert told.startswith("error: 1 of 3 processes came to --coordinator 127.0.0.1:")
    assert told.endswith(f" within 1 s (0 ({HOST})), but not 1, 2: run again\n")


def test_another_value_on_one(elsewhere, capsys):
    """All facts of a config are compared; who differs is told the same as process 0."""
    port = free_port()
    config = parse(["main", *DIGITS, *SMALL]).config
    config.report_every_steps = 7
    asked = {"--mode": "train", "--step": None}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        others = [
            pool.submit(meet, Place("127.0.0.1", port, 3, index), asked | facts(config), 30.0) for index in (1, 2)
        ]
        assert as_one_of_three(port) == 2
        mistakes = [str(other.exception()) for other in others]
    told = capsys.readouterr().err
    fact = rf"config.report_every_steps is \d+ on process 0 \({HOST}\), but 7 on process [12] \({HOST}\)"
    assert re.fullmatch(f"error: {fact}: start all processes of a run alike\n", told)
    assert mistakes == [told.removeprefix("error: ").strip()] * 2
    assert not Path("run").exists()


def test_a_signal_while_waiting_for_the_others(elsewhere, capsys, monkeypatch):
    def wait(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(rendezvous, "greetings", wait)
    assert as_one_of_three(free_port()) == 75
    assert capsys.readouterr().err == "SIGTERM received: stopped, there was nothing to save\n"
