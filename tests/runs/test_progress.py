"""A line for each report where standard error is a file, a bar on a terminal, nothing on other processes."""

import fcntl
import os
import struct
import sys
import termios
import types

import pytest

from convmixer_jax.runs import progress
from convmixer_jax.runs.progress import Progress, duration

DURATIONS = {0: "0:00:00", 59.4: "0:00:59", 59.6: "0:01:00", 3599.9: "1:00:00", 90_061: "25:01:01", -3: "0:00:00"}


@pytest.mark.parametrize("seconds", DURATIONS)
def test_durations(seconds):
    assert duration(seconds) == DURATIONS[seconds]


ROW = {
    "step": 20,
    "epoch": 0.5,
    "train/loss": 1.23456,
    "train/top1": 0.5,
    "schedule/learning_rate": 0.025,
    "perf/images_per_sec": 1234.5,
    "perf/input_wait": 0.0123,
}
FACTS = "loss 1.2346  top1 0.5000  lr 0.025  input wait 1.2%"


@pytest.fixture
def hands(monkeypatch):
    """The clock of the progress alone, which the test sets by `hands.now`; tqdm keeps the real one."""
    hands = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: hands.now))
    return hands


def test_lines_where_there_is_no_terminal(capsys, hands):
    with Progress(total_steps=100, start_step=10, batch_size=64) as shown:
        for _ in range(10):
            shown.advance(1)
        hands.now += 5  # 10 updates of this start in 5 s, so 80 more take 40 s
        shown.report(ROW)
        shown.say("saved")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"step 20/100  epoch 0.50  {FACTS}  1234 images/s  0:00:40 left\nsaved\n"


def test_the_time_left_counts_the_updates_of_this_start(hands):
    shown = Progress(total_steps=1000, start_step=900, batch_size=1)
    hands.now += 10
    assert shown.time_left() == "0:16:40"  # nothing made yet: as if it were one update
    for _ in range(50):
        shown.advance(1)
    assert shown.time_left() == "0:00:10"
    for _ in range(50):
        shown.advance(1)
    assert shown.time_left() == "0:00:00"


def test_other_processes_are_silent(capsys):
    with Progress(total_steps=4, start_step=0, batch_size=8, enabled=False) as shown:
        shown.advance(1)
        shown.report(ROW)
        shown.say("saved")
    assert capsys.readouterr() == ("", "")


class Terminal:
    """A pseudo-terminal of 24 x 160 characters."""

    def __init__(self):
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
        os.set_blocking(master, False)
        self.file, self.screen = os.fdopen(slave, "w"), os.fdopen(master, "rb", buffering=0)

    def shown(self) -> str:
        """What has come since the last call."""
        self.file.flush()
        return (self.screen.read() or b"").decode()


@pytest.fixture
def terminal():
    terminal = Terminal()
    with terminal.file, terminal.screen:
        yield terminal


def test_a_bar_on_a_terminal(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal.file)  # not in the fixture: pytest sets it anew before each test
    with Progress(total_steps=40, start_step=10, batch_size=100) as shown:
        for _ in range(10):
            shown.advance(1)
        shown.report(ROW | {"step": 20})
        shown.say("saved step 20")
    lines = terminal.shown().splitlines()
    # Of a bar only what was drawn last stays on the screen.
    bar = [line.split("\r")[-1] for line in lines if "%" in line][-1]
    assert "50%" in bar
    assert "2.00k/4.00k" in bar
    assert " images/s" in bar
    assert FACTS in bar
    assert "saved step 20" in [line.split("\r")[-1].strip() for line in lines]  # above it, on a line of its own
    assert not any("left" in line for line in lines)  # the line of a report is for files


def test_a_bar_begins_where_the_run_goes_on(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal.file)
    with Progress(total_steps=40, start_step=30, batch_size=100):
        assert " 75%" in terminal.shown()
