"""Faults done to small programs that stand for runs, and the verdict on how these end."""

import dataclasses
import random
import signal
import sys
import threading
import time

import pytest

from convmixer_jax.crashing import faults, starts
from convmixer_jax.crashing.damage import DAMAGES
from convmixer_jax.crashing.faults import FAULTS, Happened, wrong_codes
from convmixer_jax.crashing.moments import Moment, draw_moment
from convmixer_jax.crashing.setups import SETUPS
from convmixer_jax.crashing.starts import Start
from convmixer_jax.runs.manifest import MANIFEST_FILE

# What a run's processes do with signals, and no more. It writes a file over and over, and tells where that fails.
PROGRAM = """
import errno, os, signal, sys, threading, time

def stop(number, frame):
    print("stopping", flush=True)
    os._exit(75)

signal.signal(signal.SIGUSR1, lambda *_: threading.Event().wait())
signal.signal(signal.SIGTERM, stop)
while True:
    time.sleep(0.002)
    try:
        with open(sys.argv[1], "wb", buffering=0) as file:
            file.write(bytes(30_000))
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
        sys.exit(74)
"""
NOW = Moment(None, False, 0.0)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Returns what starts as many of the programs as a setup has processes."""
    begun: list[Start] = []

    def make(setup: str) -> Start:
        logs = tmp_path / f"logs-{len(begun)}"
        begun.append(Start(SETUPS[setup], tmp_path / "run", 3, logs, tmp_path))
        return begun[-1]

    def command(setup, workdir, nan_step, address, index):
        return [sys.executable, "-c", PROGRAM, str(tmp_path / f"file-{index}")]

    monkeypatch.setattr(starts, "command", command)
    monkeypatch.setattr(faults, "draw_moment", lambda *_: NOW)
    yield make
    for start in begun:
        start.end()


def runs(start: Start) -> bool:
    return all(process.poll() is None for process in start.processes)


@pytest.mark.parametrize(
    "kind, setup, codes",
    [
        ("SIGTERM", "alone", [75]),
        ("two signals", "alone", [75]),
        ("SIGKILL", "alone", [-signal.SIGKILL]),
        ("bit flip", "alone", [-signal.SIGKILL]),
        ("full disk", "alone", [74]),
    ],
)
def test_a_fault_happens(begin, kind, setup, codes):
    start = begin(setup)
    happened = FAULTS[kind].happen(start, 0, random.Random(1))
    assert start.wait(20) == codes
    assert happened.to == (0,)
    assert happened.at is not None
    assert 0 <= start.ended[0] - happened.at < 20
    assert wrong_codes(SETUPS[setup], FAULTS[kind], happened, codes) is None


def test_a_full_disk_is_one_to_the_program_and_leaves_what_it_says_alone(begin):
    start = begin("alone")
    FAULTS["full disk"].happen(start, 0, random.Random(1))
    start.wait(20)
    # What measures coverage may find the disk full, too, and say so afterwards.
    assert start.said().splitlines()[0] == "EFBIG"


def test_a_hang_is_one(begin, tmp_path):
    start = begin("alone")
    assert start.wait_until((tmp_path / "file-0").exists)
    FAULTS["stuck"].happen(start, 0, random.Random(1))
    time.sleep(0.3)  # what was under way ends
    before = (tmp_path / "file-0").stat().st_mtime_ns
    time.sleep(0.3)
    assert (tmp_path / "file-0").stat().st_mtime_ns == before
    assert runs(start)
    with pytest.raises(TimeoutError):
        start.wait(0.1)


def test_a_suspended_process_goes_on(begin):
    start = begin("alone")
    happened = FAULTS["suspended a while"].happen(start, 0, random.Random(1))
    assert happened.at is not None
    assert runs(start)
    start.send(0, signal.SIGTERM)
    assert start.wait(20) == [75]


def test_the_suspended_one_of_two_is_killed_when_the_other_has_ended(begin, monkeypatch):
    start = begin("pair")
    send = start.send

    def send_and_have_the_other_end(index: int, number: signal.Signals) -> float:
        if number == signal.SIGSTOP:
            send(1 - index, signal.SIGTERM)
        return send(index, number)

    monkeypatch.setattr(start, "send", send_and_have_the_other_end)
    happened = FAULTS["suspended"].happen(start, 0, random.Random(1))
    (index,) = happened.to
    codes = start.wait(20)
    assert (codes[index], codes[1 - index], happened.problem) == (-signal.SIGKILL, 75, None)


def test_who_waits_for_the_suspended_one_is_told_of(begin, monkeypatch):
    monkeypatch.setattr(faults, "MISSED_WITHIN_S", 0.1)
    start = begin("pair")
    happened = FAULTS["suspended"].happen(start, 0, random.Random(1))
    (index,) = happened.to
    assert start.processes[1 - index].poll() is None
    # What it does once the suspended one is killed, and its connections closed, comes too late.
    codes = [-signal.SIGKILL if number == index else STUCK for number in range(2)]
    told = wrong_codes(PAIR, FAULTS["suspended"], happened, codes)
    assert told == "the others still waited after 0.1 s"


def test_nothing_happens_to_what_has_ended(begin):
    start = begin("alone")
    assert start.wait_until(start.listens)
    start.send(0, signal.SIGTERM)
    assert start.wait(20) == [75]
    for kind in ("SIGTERM", "SIGKILL", "stuck", "full disk"):
        assert FAULTS[kind].happen(start, 0, random.Random(1)).at is None


def test_before_a_program_handles_signals_it_gets_none(begin, monkeypatch):
    start = begin("alone")
    monkeypatch.setattr(starts, "catches", lambda pid, number: False)
    monkeypatch.setattr(start, "wait_until", lambda holds: holds())
    assert not NOW.wait(start)


STOPPED, STUCK = 75, 76
ALONE, PAIR = SETUPS["alone"], SETUPS["pair"]
IN_UPDATES = Moment(4, False, 0.0)
VERDICTS = {
    "stopped": (ALONE, "SIGTERM", IN_UPDATES, (0,), [STOPPED], None),
    "deaf": (ALONE, "SIGTERM", IN_UPDATES, (0,), [0], "exit code 0 of process 0, not 75"),
    "crashed": (ALONE, "SIGTERM", IN_UPDATES, (0,), [1], "exit code 1 of process 0, not 75"),
    "both agree": (PAIR, "SIGINT", IN_UPDATES, (1,), [STOPPED, STOPPED], None),
    "one does not": (PAIR, "SIGINT", IN_UPDATES, (1,), [STUCK, STOPPED], "exit code 76 of process 0, not 75"),
    "one cannot yet": (PAIR, "SIGINT", NOW, (1,), [STUCK, STOPPED], None),
    "killed": (PAIR, "SIGKILL", IN_UPDATES, (0,), [-9, -6], None),
    "survived": (PAIR, "SIGKILL", IN_UPDATES, (0,), [-9, 0], "exit code 0 of process 1, not"),
    "not stuck": (ALONE, "stuck", IN_UPDATES, (0,), [-15], "exit code -15 of process 0, not 76"),
}


@pytest.mark.parametrize("setup, kind, moment, to, codes, told", VERDICTS.values(), ids=VERDICTS)
def test_the_verdict_on_exit_codes(setup, kind, moment, to, codes, told):
    problem = wrong_codes(setup, FAULTS[kind], Happened(moment, to, 1.0, step=4), codes)
    assert problem is None if told is None else (problem or "").startswith(told)


def test_a_signal_to_the_last_updates_may_find_them_made():
    assert wrong_codes(ALONE, FAULTS["SIGTERM"], Happened(IN_UPDATES, (0,), 1.0, step=ALONE.steps - 10), [0]) is None


def test_what_ends_badly_before_anything_happened():
    assert wrong_codes(ALONE, FAULTS["SIGTERM"], Happened(IN_UPDATES, (0,), None), [0]) is None
    told = wrong_codes(ALONE, FAULTS["SIGTERM"], Happened(IN_UPDATES, (0,), None), [2])
    assert told == "exit codes [2] before anything happened"


def test_moments_are_drawn_everywhere(begin):
    start = begin("alone")
    moments = [draw_moment(random.Random(seed), start, saved=100) for seed in range(200)]
    steps = [moment.step for moment in moments if moment.step is not None]
    assert all(100 <= step < ALONE.steps for step in steps)
    assert any(moment.step is None for moment in moments)
    assert any(moment.saving for moment in moments)
    assert len({moment.after for moment in moments}) == 200


def test_what_damages_a_checkpoint_waits_for_one(begin, tmp_path):
    start = begin("alone")
    moment = dataclasses.replace(draw_moment(random.Random(1), start, 0, "saved"), step=None)
    assert moment.saved
    step = start.workdir / "checkpoints/40"
    step.mkdir(parents=True)
    assert (start.is_saving(), start.has_saved()) == (True, False)
    write = threading.Timer(0.3, (step / MANIFEST_FILE).touch)
    began = time.monotonic()
    write.start()
    assert moment.wait(start)
    assert time.monotonic() - began >= 0.3
    assert (start.is_saving(), start.has_saved()) == (False, True)


def test_damage_changes_one_file(tmp_path):
    for number, (name, do) in enumerate(DAMAGES.items()):
        step = tmp_path / name
        (step / "state").mkdir(parents=True)
        before = {"state/a": b"\x00" * 100, "b": b"\xff" * 50}
        for path, content in before.items():
            (step / path).write_bytes(content)
        (step / "empty").touch()
        told = do(step, random.Random(number))
        after = {path.relative_to(step).as_posix(): path.read_bytes() for path in step.rglob("*") if path.is_file()}
        (changed,) = (path for path in before if after.get(path) != before[path])
        assert changed in told
        assert after.pop("empty") == b""
        if name == "bit flip":
            bits = [int.from_bytes(content) for content in (before[changed], after[changed])]
            assert (bits[0] ^ bits[1]).bit_count() == 1
        elif name == "truncation":
            assert before[changed].startswith(after[changed])
            assert len(after[changed]) < len(before[changed])
        else:
            assert changed not in after
