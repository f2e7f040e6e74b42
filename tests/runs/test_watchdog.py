"""What is too long is counted in time that the thread saw pass, and who is lost in words that did not come."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from convmixer_jax.errors import ExitCode, RunAgainError, UserError
from convmixer_jax.runs.peers import LINGER, PAUSE, SILENT, Peers, Trouble
from convmixer_jax.runs.signals import Interrupted
from convmixer_jax.runs.watchdog import Allowances, Watchdog

ROOT = Path(__file__).parents[2]
FOREVER = Allowances(ordinary=0.0, compiling=0.0)


class Board:
    """In the place of the coordination service: what each process said last."""

    def __init__(self):
        self.said: dict[int, str] = {}

    def peers(self, index: int) -> Peers:
        return Peers(index, 2, lambda topic: dict(self.said), lambda topic, words: self.said.update({index: words}))


def look(watch: Watchdog, start: float, looks: int, every: float = PAUSE) -> tuple[str | None, float]:
    """Looks so often; returns the first trouble, and when that was."""
    now = start
    for _ in range(looks):
        now += every
        trouble = watch.idle_too_long(now)
        if trouble:
            return trouble, now - start
    return None, now - start


@pytest.fixture
def watch(tmp_path, monkeypatch) -> Watchdog:
    monkeypatch.setattr("convmixer_jax.runs.watchdog.time.monotonic", lambda: 0.0)
    return Watchdog(tmp_path, Allowances(ordinary=60.0, compiling=600.0), None)


def test_a_process_without_progress_is_found(watch):
    watch.doing("update 1200 (dispatch of 8)")
    assert look(watch, 0.0, 100) == (
        "no progress in 61 s (config.watchdog_seconds), waiting for: update 1200 (dispatch of 8)",
        62.0,  # the first look finds that it is there
    )


def test_compilation_has_its_own_allowance(watch):
    watch.doing("the program", compiling=True)
    trouble, seconds = look(watch, 0.0, 1000)
    assert seconds == 602.0
    assert trouble is not None
    assert "config.watchdog_compile_seconds" in trouble


def test_progress_begins_anew_even_of_the_same_name(watch):
    for _ in range(10):
        watch.doing("evaluation of test")
        assert look(watch, watch._looked, 29)[0] is None


def test_zero_is_no_limit(tmp_path):
    watch = Watchdog(tmp_path, Allowances(ordinary=0.0, compiling=600.0), None)
    watch.doing("update 1")
    assert look(watch, watch._looked, 10_000)[0] is None


def test_a_suspended_machine_makes_nothing_stuck(watch):
    watch.doing("update 1")
    assert look(watch, 0.0, 5)[0] is None
    assert look(watch, 10_000.0, 5)[0] is None


def test_a_silent_process_is_lost_and_a_slow_one_is_not():
    board = Board()
    first, second = board.peers(0), board.peers(1)
    for _ in range(3 * SILENT):
        assert first.look("update 8", False) is None
        assert second.look("update 9", False) is None
    found = [first.look("update 16", False) for _ in range(SILENT + 2)]
    told = f"process 1 was lost: not a word in {SILENT * PAUSE:g} s, its last was 'update 9'"
    assert found[: SILENT - 1] == [None] * (SILENT - 1)
    assert Trouble(told) in found
    assert first.describe() == ["process 1: update 9"]


def test_imports_may_hold_python_up():
    board = Board()
    first, second = board.peers(0), board.peers(1)
    second.look("the data", True)
    assert {first.look("update 16", False) for _ in range(5 * SILENT)} == {None}


def test_who_is_silent():
    board = Board()
    first, second = board.peers(0), board.peers(1)
    assert first.silent() == [1]  # nobody has heard of it
    second.look("the data", True)
    for _ in range(SILENT):
        first.look("update 16", False)
        assert first.silent() == []
    first.look("update 16", False)
    assert first.silent() == [1]
    second.leave("", ExitCode.DONE)
    assert (first.look("update 16", False), first.silent()) == (None, [])


@pytest.mark.parametrize("reason, code, trouble", [
    ("", ExitCode.DONE, None),
    ("no progress", ExitCode.STUCK, Trouble("process 1 ended: no progress", ExitCode.STUCK)),
    ("no such file", ExitCode.USER_MISTAKE, Trouble("process 1 ended: no such file", ExitCode.USER_MISTAKE)),
])  # fmt: skip
def test_who_leaves_well_is_not_missed_and_who_fails_takes_the_others_along(reason, code, trouble):
    board = Board()
    first, second = board.peers(0), board.peers(1)
    second.look("update 9", False)
    first.look("update 8", False)
    second.leave(reason, code)
    found = [first.look("update 16", False) for _ in range(2 * SILENT)]
    assert found == [None] * LINGER + [trouble] * (2 * SILENT - LINGER)


@pytest.mark.parametrize("error, code", [
    (None, 0), (Interrupted("SIGTERM received"), 75), (UserError("no such file"), 2), (RunAgainError("later"), 76)
])  # fmt: skip
def test_the_others_hear_how_a_process_ended(error, code, tmp_path):
    board = Board()
    with contextlib.suppress(Interrupted, UserError, RunAgainError), Watchdog(tmp_path, FOREVER, board.peers(1), 1):
        if error:
            raise error
    left = json.loads(board.said[1])
    assert (str(error or "") in left["left"], left["code"]) == (True, code)


FAILS = """
import json, sys
from convmixer_jax.runs import watchdog
from convmixer_jax.runs.peers import Peers
watchdog.PAUSE = 0.05
beats = []
def heard(topic):
    beats.append(0)
    return {1: json.dumps({"beat": len(beats), "doing": "imports", "may_be_silent": True})} if sys.argv[1] else {}
with watchdog.Watchdog(None, watchdog.Allowances(60.0, 60.0), Peers(0, 2, heard, lambda topic, words: None)) as watch:
    watch._write = print
    watch.doing("the data", starting=True)
    raise ArithmeticError("connection closed by peer")
"""


@pytest.mark.parametrize("speaks, code, said", [
    ("", 76, "error: process 0: process 1 was lost: not a word in 0.45 s, and this one failed; was at: the data"),
    ("speaks", 1, "ArithmeticError: connection closed by peer"),
])  # fmt: skip
def test_an_error_in_the_start_up_beside_a_lost_process_is_the_lost_process(speaks, code, said):
    """Who starts may be silent, so that alone makes nobody lost; an error of a device besides does."""
    command = [sys.executable, "-c", FAILS, speaks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "error: connection closed by peer; looking whether another process was lost\n" in done.stderr


STUCK = """
import sys, time
from pathlib import Path
from convmixer_jax.runs import watchdog
watchdog.PAUSE = 0.05
def wait_for_ever():
    time.sleep(60)
with watchdog.Watchdog(Path(sys.argv[1]), watchdog.Allowances(0.2, 60.0), None, index=3) as watch:
    watch.doing("the next batch")
    wait_for_ever()
"""


def test_a_stuck_process_ends_with_76_and_its_stacks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STUCK, tmp_path / "stuck"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 76, done.stderr
    for text in (done.stderr, (tmp_path / "stuck" / "process-3.txt").read_text()):
        assert "error: process 3: no progress in 0 s (config.watchdog_seconds), waiting for: the next batch" in text
        assert "in wait_for_ever" in text
