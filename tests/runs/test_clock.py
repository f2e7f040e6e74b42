"""Seconds are told apart by what they were spent on; the tests turn the hands of the clock themselves."""

import types

import pytest

from convmixer_jax.runs import clock
from convmixer_jax.runs.clock import RunClock, Timeline


class Hands:
    """A clock that stands still unless it is told."""

    def __init__(self):
        self.now = 1000.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hands(monkeypatch):
    hands = Hands()
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(monotonic=lambda: hands.now))
    return hands


def test_start_up_and_pauses_are_not_of_the_updates(hands):
    run = RunClock()
    hands.pass_(10)  # start-up
    run.start_updates()
    hands.pass_(3)
    with run.pause("save"):
        hands.pass_(20)
    hands.pass_(4)
    assert (run.seconds, run.step_seconds) == (37, 7)


def test_a_pause_of_the_start_up_is_forgotten(hands):
    run = RunClock()
    with run.pause("save"):
        hands.pass_(5)
    run.start_updates()
    hands.pass_(2)
    assert (run.seconds, run.step_seconds) == (7, 2)
    assert run.lap() == (2, 0)


def test_seconds_of_earlier_starts_are_added(hands):
    run = RunClock()
    hands.pass_(10)
    run.add_earlier(seconds=100, step_seconds=60)
    run.start_updates()
    hands.pass_(5)
    assert (run.seconds, run.step_seconds) == (115, 65)


def test_laps_hold_the_updates_between_them(hands):
    run = RunClock()
    hands.pass_(50)
    run.start_updates()
    hands.pass_(2)
    with run.waiting_for_input():
        hands.pass_(1)
    with run.pause("save"):
        hands.pass_(30)
    assert run.lap() == (3, 1)
    hands.pass_(4)
    assert run.lap() == (4, 0)
    with run.pause("save"):
        hands.pass_(8)
    assert run.lap() == (0, 0)
    with run.waiting_for_input():
        hands.pass_(0.5)
    assert run.lap() == (0.5, 0.5)
    assert (run.seconds, run.step_seconds) == (50 + 3 + 30 + 4 + 8 + 0.5, 3 + 4 + 0.5)


def test_the_timeline_of_a_start_up(hands):
    timeline = Timeline()
    for name, seconds in (("import", 2.06), ("data", 0.4), ("first update", 6.5)):
        hands.pass_(seconds)
        timeline.mark(name)
    assert {name: round(seconds, 6) for name, seconds in timeline.parts.items()} == {
        "import": 2.06,
        "data": 0.4,
        "first update": 6.5,
    }
    assert str(timeline) == "import 2.1 s, data 0.4 s, first update 6.5 s = 9.0 s"


def test_the_real_clock_goes_forward():
    run = RunClock()
    run.start_updates()
    assert 0 <= run.step_seconds <= run.seconds < 60
