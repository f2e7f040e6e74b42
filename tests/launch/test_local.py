"""Several processes here: what they are called with, how they are stopped, what they end with; and a real training."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from tests.commands import DIGITS, SMALL
from tests.launch.standins import LAUNCH, run_script

# Stands in for the interpreter: says how it was called, and ends by a code or goes on until it gets a signal, as the
# word for its process says, or by the signal that it names.
PYTHON = """#!/bin/bash
[[ $1 == -c ]] && { echo 4321; exit; }
index=${@: -1}
words=($PLAN)
word=${words[${index#--process_id=}]}
echo "devices $JAX_NUM_CPU_DEVICES on $JAX_PLATFORMS: ${*:3}"
echo "to stderr" >&2
trap 'echo got TERM; exit 75' TERM
trap 'echo got INT; exit 75' INT
[[ $word =~ ^(ABRT|KILL)$ ]] && kill "-$word" $$
[[ $word =~ ^[0-9]+$ ]] && exit "$word"
while true; do sleep 0.05; done
"""


@pytest.fixture
def python(tmp_path) -> str:
    path = tmp_path / "python"
    path.write_text(PYTHON)
    path.chmod(0o755)
    return str(path)


def local(python: str, plan: str, *arguments: str, grace: str = "60") -> subprocess.CompletedProcess[str]:
    count = str(len(plan.split()))
    words = [count, *arguments, "--", "--config", "a b"]
    return run_script("local.sh", *words, PYTHON=python, PLAN=plan, GRACE=grace)


def test_what_each_process_is_called_with(python):
    done = local(python, "0 0", "--devices", "3")
    assert done.returncode == 0
    flags = "--config a b --coordinator=127.0.0.1:4321 --num_processes=2"
    assert sorted(done.stdout.splitlines()) == [
        f"[{index}] devices 3 on cpu: {flags} --process_id={index}" for index in range(2)
    ]
    assert sorted(done.stderr.splitlines()) == ["[0] to stderr", "[1] to stderr"]


def test_a_dry_run(python):
    done = local(python, "0 0", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert lines == [
        [
            *("env", "JAX_PLATFORMS=cpu", "JAX_NUM_CPU_DEVICES=1", python, "-m", "convmixer_jax.main"),
            *("--config", "a b", "--coordinator=127.0.0.1:12345", "--num_processes=2", f"--process_id={index}"),
        ]
        for index in range(2)
    ]


@pytest.mark.parametrize("plan, code", [("0 0 0", 0), ("0 2 0", 2), ("0 ABRT", 76), ("KILL 76", 137), ("75 75", 75)])
def test_the_code_is_the_first_that_is_not_0(python, plan, code):
    done = local(python, plan)
    assert done.returncode == code
    told = [line for line in done.stderr.splitlines() if not line.endswith("] to stderr")]
    assert told == [f"[{plan.split().index(word)}] was ended by SIG{word}" for word in ("ABRT", "KILL") if word in plan]


def test_those_that_wait_for_one_that_failed_are_stopped(python):
    done = local(python, "on 1 on", grace="1")
    assert done.returncode == 1
    assert sorted(line for line in done.stdout.splitlines() if "got" in line) == ["[0] got TERM", "[2] got TERM"]


# What a closed terminal sends becomes a SIGTERM.
SIGNALS = {"TERM": "TERM", "INT": "INT", "HUP": "TERM"}


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_goes_on_to_all(python, name):
    process = subprocess.Popen(
        # As from a terminal: what is started in the background by a script, or by nohup, ignores these for good.
        ["env", "--default-signal=INT,HUP", LAUNCH / "local.sh", "2", "--", "--config", "c"],
        env=os.environ | {"PYTHON": python, "PLAN": "on on"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert sorted(process.stderr.readline() for _ in range(2)) == ["[0] to stderr\n", "[1] to stderr\n"]
    time.sleep(0.5)  # until they wait for the signal
    process.send_signal(getattr(signal, f"SIG{name}"))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert sorted(line for line in out.splitlines() if "got" in line) == [
        f"[{index}] got {SIGNALS[name]}" for index in range(2)
    ]


VARIABLES = {"PYTHON": sys.executable, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
# 198 updates, told of one by one, so that a signal after the first comes before the last.
TRAINING = [*DIGITS, *SMALL, *(f"--config.{field}" for field in (
    "devices=0", "epochs=9", "eval_every_epochs=9", "report_every_steps=1", "augment.order=()"
))]  # fmt: skip


@pytest.mark.slow
def test_a_real_training_is_stopped_and_goes_on_to_its_end(tmp_path):
    training = ["2", "--", *TRAINING, f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [LAUNCH / "local.sh", *training],
        env=os.environ | VARIABLES,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(re.match(r"\[0\] step \d", line) for line in process.stderr), "it ended before an update was reported"
    process.terminate()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert list((tmp_path / "run/checkpoints").iterdir())
    done = run_script("local.sh", *training, **VARIABLES)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/result.json").read_text())["n"] == 360
    assert json.loads((tmp_path / "run/config.json").read_text())["processes"] == 2
    finished = [line for line in done.stderr.splitlines() if "finished: test top1" in line]
    assert [line[:4] for line in finished] == ["[0] "]
    assert not (tmp_path / "run/.same_workdir").exists()
