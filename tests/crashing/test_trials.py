"""The verdicts on one trial, with stand-ins for its runs: what must not pass does not."""

import signal
import sys
from types import SimpleNamespace

import pytest

from convmixer_jax.crashing.faults import FULL, SUSPENDED_A_WHILE, Happened
from convmixer_jax.crashing.moments import Moment
from convmixer_jax.crashing.setups import GRACE_SECONDS, SETUPS
from convmixer_jax.crashing.starts import OverError, Starts
from convmixer_jax.crashing.trials import ALL_LOST, Disturbed, Event, Order
from convmixer_jax.errors import UserError
from convmixer_jax.runs.steps import QUARANTINE
from convmixer_jax.training.resume import check_not_lost
from tests.runs.test_ledger import line, written


@pytest.fixture
def disturbed(tmp_path) -> Disturbed:
    return Disturbed(Order(0, 0, (), "alone"), tmp_path, Starts(3, tmp_path))


def event(kind: str, codes: list[int], **fields) -> Event:
    return Event(1, kind, "now", True, codes, **{"seconds": 1.0, "noticed": True, **fields})


def test_all_checkpoints_lost_is_gone_on_with_as_the_message_says(disturbed, monkeypatch):
    """A stand-in for the run: it refuses while something is in quarantine."""
    program = (
        "import pathlib, sys; here = pathlib.Path(sys.argv[1]) / 'quarantine'\n"
        "if here.exists(): print('error: no checkpoint in x is good'); sys.exit(2)\n"
    )
    (disturbed.checkpoints / QUARANTINE / "8-damaged").mkdir(parents=True)
    disturbed.damaged[8] = "checkpoint 8: a bit"
    monkeypatch.setattr(
        "convmixer_jax.crashing.starts.command",
        lambda *_: [sys.executable, "-c", program, str(disturbed.checkpoints)],
    )
    assert disturbed.go_on()
    assert (disturbed.trial.starts, disturbed.trial.problems) == (2, [])
    assert not (disturbed.checkpoints / QUARANTINE).exists()


def test_what_refuses_without_a_reason_is_a_problem(disturbed, monkeypatch):
    program = "import sys; print('error: no checkpoint in x is good'); sys.exit(2)"
    monkeypatch.setattr("convmixer_jax.crashing.starts.command", lambda *_: [sys.executable, "-c", program])
    assert not disturbed.go_on()
    assert disturbed.trial.problems == ["start 1: exit codes [2] of a start that nothing happened to"]


def test_the_refusal_is_known_by_what_training_says(tmp_path):
    lost = SimpleNamespace(saved=None, directory=tmp_path, lost=lambda: [tmp_path / QUARANTINE / "8-damaged"])
    with pytest.raises(UserError, match=f"^{ALL_LOST}"):
        check_not_lost(lost)


def test_what_was_damaged_must_be_set_aside(disturbed):
    (disturbed.checkpoints / QUARANTINE / "8-damaged").mkdir(parents=True)
    disturbed.damaged = {8: "checkpoint 8: a bit", 80: "checkpoint 80: a file"}
    disturbed.check_set_aside()
    assert disturbed.trial.problems == ["start 0: not set aside: checkpoint 80: a file"]


# A start came to update 100; the next one went on from another. A checkpoint comes every 40.
LOST = {
    "to the newest checkpoint but one": ([-9], 20, 80, []),
    "further": ([-9], 19, 81, ["start 0: 81 updates were lost by SIGKILL, at most 80 may be"]),
    "nothing by a stop": ([75], 100, 0, []),
    "one by a stop": ([75], 99, 1, ["start 0: 1 updates were lost by SIGKILL, at most 0 may be"]),
}


@pytest.mark.parametrize("codes, resumed, lost, problems", LOST.values(), ids=LOST)
def test_no_more_updates_are_lost_than_may_be(disturbed, codes, resumed, lost, problems):
    assert disturbed.setup.checkpoint_every_steps == 40
    disturbed.workdir.mkdir()
    first = [line("start", 1001), line("ready", 1002, 0), line("report", 1003, 100)]
    written(disturbed.workdir, [*first, line("start", 2001), line("ready", 2002, resumed)])
    disturbed.began = [1000.0, 2000.0]
    disturbed.trial.events = [event("SIGKILL", codes)]
    disturbed.check_lost()
    assert disturbed.trial.events[0].lost == lost
    assert disturbed.trial.problems == problems


def test_what_a_damaged_checkpoint_costs_is_not_counted(disturbed):
    disturbed.workdir.mkdir()
    first = [line("start", 1001), line("ready", 1002, 0), line("report", 1003, 100)]
    written(disturbed.workdir, [*first, line("start", 2001), line("ready", 2002, 0)])
    disturbed.began = [1000.0, 2000.0]
    disturbed.trial.events = [event("bit flip", [-9], damage="checkpoint 80: a bit")]
    disturbed.check_lost()
    assert (disturbed.trial.events[0].lost, disturbed.trial.problems) == (None, [])


LATE = f"start 0: {GRACE_SECONDS + 0.1:.1f} s from SIGTERM to the end, config.stop_grace_seconds: {GRACE_SECONDS}"
TRACED = "start 0: a traceback after SIGTERM in the start-up"
LOOKS = {
    "in time": (event("SIGTERM", [75], seconds=GRACE_SECONDS), "", True, []),
    "too late": (event("SIGTERM", [75], seconds=GRACE_SECONDS + 0.1), "", True, [LATE]),
    "too late for a stop, but stuck": (event("stuck", [76], seconds=GRACE_SECONDS + 0.1), "", True, []),
    "a traceback": (
        event("SIGTERM", [75]),
        "Traceback (",
        True,
        ["start 0: a traceback after SIGTERM in the start-up"],
    ),
    "a traceback of one that lost another": (event("SIGKILL", [-9, 76]), "Traceback (", True, []),
    "an abort's": (event("SIGKILL", [-9, -6]), "Traceback (", True, []),
    "a full disk's": (event(FULL, [0], noticed=False), "Traceback ( ... could not be saved", True, []),
    "a full disk that nothing was written to": (event(FULL, [0], noticed=False), "", False, []),
    "a suspension that leaves no trace": (event(SUSPENDED_A_WHILE, [0], noticed=False), "", True, []),
}


@pytest.mark.parametrize("happened, said, noticed, problems", LOOKS.values(), ids=LOOKS)
def test_a_start_must_tell_of_its_fault_in_time(disturbed, happened, said, noticed, problems):
    moment = Moment(None, False, 0.0)
    disturbed._look(happened, Happened(moment, (0,), 1.0), SimpleNamespace(said=lambda: said))
    assert (happened.noticed, happened.happened) == (noticed, noticed)
    assert [problem.split(", 0.00")[0] for problem in disturbed.trial.problems] == problems


def test_nothing_begins_once_the_crash_test_is_being_ended(tmp_path, monkeypatch):
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr("convmixer_jax.crashing.starts.command", lambda *_: program)
    starts = Starts(3, tmp_path)
    start = starts.begin(SETUPS["alone"], tmp_path / "run", tmp_path / "start-1")
    starts.end_all()
    assert start.wait(0) == [-signal.SIGKILL]
    with pytest.raises(OverError):
        starts.begin(SETUPS["alone"], tmp_path / "run", tmp_path / "start-2")
    assert not (tmp_path / "start-2").exists()
