"""What a run meets outside of itself: devices that are not there, closed streams, a full disk."""

import contextlib
import errno
import os
import shlex
import subprocess
import sys

import pytest

from convmixer_jax.commands import run_command
from convmixer_jax.errors import ExitCode
from convmixer_jax.main import main
from convmixer_jax.runs import metrics_log
from tests.commands import DIGITS, ONE_EPOCH, ROOT, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("elsewhere", "quick_compilation")]

# Of the processes: LLVM's optimisations take longer than what is tested.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
RUN = [*DIGITS, *SMALL, *ONE_EPOCH, "--config.augment.order=()", "--workdir=run"]


ENVIRONMENTS = {
    "no such platform": {"JAX_PLATFORMS": "foo"},
    "no number": {"JAX_NUM_CPU_DEVICES": "abc"},
    "no plugin": {"JAX_PLATFORMS": "cuda"},
}


@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_an_environment_without_devices(tmp_path, variables):
    command = [sys.executable, "-m", "convmixer_jax.main", *DIGITS, *SMALL]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: JAX cannot start (")
    assert next(iter(variables.values())) in last
    assert "Traceback" not in done.stderr


def test_output_that_nobody_reads_is_no_bug(tmp_path):
    shell = f"{sys.executable} -m convmixer_jax.main --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # 1 where the reader had gone before the help was written


def test_a_run_without_standard_error_goes_on(tmp_path):
    command = [sys.executable, "-m", "convmixer_jax.main", *RUN]
    shell = f"{shlex.join(command)} 2>&-"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "run/result.json").exists()


def test_a_run_whose_watcher_went_away_goes_on(tmp_path):
    command = [sys.executable, "-m", "convmixer_jax.main", *RUN]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "run/result.json").exists()


def test_a_result_that_nobody_reads_is_no_bug(untrained, tmp_path):
    command = [sys.executable, "-m", "convmixer_jax.main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run", "--mode=eval"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait(timeout=120) == 1
    assert "Traceback" not in told


def test_a_full_disk(capsys, monkeypatch):
    def full(self, row):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(metrics_log.MetricsLog, "write", full)
    assert main(["main", *RUN]) == 2
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == "error: No space left on device (metrics.jsonl): free some, run again"
    assert "Traceback" not in told


@pytest.mark.parametrize("unbuffered", [True, False])
def test_output_that_finds_no_room(capsys, monkeypatch, unbuffered):
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # closing it writes once more
        full.reconfigure(write_through=unbuffered)
        monkeypatch.setattr(sys, "stdout", full)
        assert run_command(lambda stop: print("a row") or ExitCode.DONE) == 2
        told = "error: No space left on device (where the output or the run's files go): free some, run again\n"
        assert capsys.readouterr().err == told
