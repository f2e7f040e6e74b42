"""One run's process, with a stand-in for main: begun, watched, stopped, begun again."""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.runs.lock import WorkdirLock
from convmixer_jax.studying import trial
from convmixer_jax.studying.folder import FAILED
from convmixer_jax.studying.trial import COMPLETE, IN_USE, STOPPED, End, Trial

ARGUMENTS = ["--config=configs/digits.py", "--config.seed=0"]


def until(holds: Callable[[], object], seconds: float = 20.0) -> object:
    """Returns the first true value of a function that is asked again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.01)
    raise TimeoutError


@pytest.fixture
def make(tmp_path, stand_in, monkeypatch):
    """Returns a function of what the run does, see stand_in.py, to a trial in the folder `run`."""

    def make_one(**does) -> Trial:
        monkeypatch.setenv("SEEDS", json.dumps({"0": does}))
        return Trial(tmp_path / "run", ARGUMENTS)

    return make_one


def starts(folder) -> list[str]:
    return [line.split(" ", 1)[1] for line in (folder / "run/starts.txt").read_text().splitlines()]


def test_a_run_is_begun_and_ends_with_its_result(make, tmp_path):
    run = make(top1=0.75)
    assert run.look() is None
    assert run.running
    assert until(run.look) == End(COMPLETE, result={"top1": 0.75, "val_top1": 0.5, "step": 5})
    assert run.curve() == [(step, float(step), pytest.approx(0.1 * step)) for step in range(1, 6)]
    log = (tmp_path / "run/trial.log").read_text()
    assert log.splitlines()[0].endswith(f"--config=configs/digits.py --config.seed=0 --workdir={tmp_path / 'run'}")
    # A result is not made twice, and a report of an earlier failure goes.
    (tmp_path / "run/trial.json").write_text("{}")
    assert make(code=1).look().state == COMPLETE
    assert starts(tmp_path) == ["from 0"]
    assert not (tmp_path / "run/trial.json").exists()


def test_a_run_that_asks_for_it_is_begun_again(make, tmp_path):
    assert until(make(codes=[75, 76, 0]).look).state == COMPLETE
    assert len(starts(tmp_path)) == 3


def test_but_not_for_ever(make, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "MOST_STARTS", 3)
    assert until(make(code=76).look) == End(FAILED, "ended with code 76: error: it went wrong")
    assert len(starts(tmp_path)) == 3


@pytest.mark.parametrize("code", [1, 2])
def test_a_mistake_and_a_crash_are_failures_with_their_last_line(make, code, tmp_path):
    assert until(make(code=code).look) == End(FAILED, f"ended with code {code}: error: it went wrong")
    assert len(starts(tmp_path)) == 1


def test_a_run_that_is_killed_failed(make, tmp_path):
    run = make(seconds=60)
    run.look()
    pid = int(str(until(lambda: (tmp_path / "run/pid").exists() and (tmp_path / "run/pid").read_text())))
    os.kill(pid, signal.SIGKILL)
    end = until(run.look)
    assert end.state == FAILED
    assert end.why.startswith("ended by SIGKILL: $ ")


def test_a_stopped_run_saves_and_goes_on_from_there(make, tmp_path):
    run = make(seconds=0.05)
    run.look()
    until(lambda: (tmp_path / "run/saved").exists())
    run.stop()
    assert until(run.look) == End(STOPPED)
    saved = int((tmp_path / "run/saved").read_text())
    assert saved < 5
    assert until(make().look).state == COMPLETE
    assert starts(tmp_path) == ["from 0", f"from {saved}"]
    # A stop before the start begins nothing.
    later = Trial(tmp_path / "other", ARGUMENTS)
    later.stop()
    assert later.look() == End(STOPPED)
    assert not (tmp_path / "other").exists()


def test_a_run_waits_for_another_process_in_its_workdir(make, tmp_path):
    run = make()
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (run.look(), run.look(), run.waits) == (None, None, True)
        assert not (tmp_path / "run/trial.log").exists()
    assert until(run.look).state == COMPLETE


def test_a_run_that_was_a_moment_late_waits_too(make, tmp_path, monkeypatch):
    """Main says that the workdir is in use where the lock was taken after the look at it."""
    run = make()
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as late, (tmp_path / "run/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        late.setattr(trial, "is_held", lambda file: False)
        run.look()
        late.setattr(trial, "is_held", lambda file: True)
        until(lambda: run.look() is None and run.waits)
    assert "is in use by" in (tmp_path / "run/trial.log").read_text()
    assert until(run.look).state == COMPLETE


def test_a_workdir_in_use_is_known_by_what_its_lock_says(tmp_path):
    with WorkdirLock(tmp_path), pytest.raises(UserError) as told, WorkdirLock(tmp_path):
        pass
    assert IN_USE in str(told.value)


def test_a_damaged_result_is_told(make, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/result.json").write_text("{")
    end = make().look()
    assert end.state == FAILED
    assert "result.json cannot be read" in end.why


def test_a_torn_row_and_those_of_the_test_split_are_no_part_of_the_curve(make, tmp_path):
    run = make()
    assert run.curve() == []
    (tmp_path / "run").mkdir()
    rows = [{"step": 3, "epoch": 1.0, "eval/split": split, "eval/top1": 0.5} for split in ("val", "test")]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "run/metrics.jsonl").write_text(f'{text}{{"step": 4, "train/loss": 1}}\n{{"step": 6, "epo')
    assert run.curve() == [(3, 1.0, 0.5)]


def test_the_command_is_main():
    assert trial.MAIN == (sys.executable, "-m", "convmixer_jax.main")
