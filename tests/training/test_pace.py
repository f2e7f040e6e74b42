"""How many updates a dispatch has follows the clock, whose hands the tests turn; it ends where something is due."""

import itertools

import pytest

from convmixer_jax.training.pace import Pace, updates_until_due


class Devices:
    """Devices that take so many seconds for an update and for a call, two calls at a time under way."""

    def __init__(self, pace: Pace, per_update: float, per_call: float = 0.0):
        self.pace, self.per_update, self.per_call = pace, per_update, per_call
        self.now = 100.0
        self.under_way: list[int] = []

    def dispatch(self) -> tuple[int, float]:
        """Sends as many updates as are wanted and looks at those before the last two; returns their number, seconds."""
        count = self.pace.wanted
        self.under_way.append(count)
        if len(self.under_way) > 2:
            done = self.under_way.pop(0)
            self.now += done * self.per_update + self.per_call
            self.pace.completed(done, self.now)
        return count, count * self.per_update + self.per_call

    def settled(self, dispatches: int) -> tuple[int, float]:
        """The last of so many dispatches."""
        return [self.dispatch() for _ in range(dispatches)][-1]


# Seconds of an update, of a call, and the updates that make half a second of them, or the 64 that there are.
SPEEDS = {"slow": (3.0, 0.0, 1), "half": (0.5, 0.0, 1), "tenth": (0.099, 0.0, 5), "quick": (1e-3, 0.0, 64)}
SPEEDS |= {"no time at all": (0.0, 0.0, 64), "calls cost more than updates": (1e-3, 0.02, 64)}


@pytest.mark.parametrize("per_update, per_call, updates", SPEEDS.values(), ids=SPEEDS)
def test_dispatches_grow_to_half_a_second(per_update, per_call, updates):
    devices = Devices(Pace(64, measured=True), per_update, per_call)
    sent = [devices.dispatch()[0] for _ in range(30)]
    assert sent[:4] == [1] * 4, "the first warms up, and the second is seen when the fourth is under way"
    assert sent[-1] == updates
    assert sent == sorted(sent)
    assert all(later <= 2 * sooner for sooner, later in itertools.pairwise(sent))


def test_the_first_update_is_not_measured():
    pace = Pace(64, measured=True)
    pace.completed(1, 60.0)  # a minute of warming up
    assert pace.wanted == 1
    pace.completed(1, 60.1)
    assert pace.wanted == 2


def test_what_becomes_slower_is_shortened_at_once_and_grows_back():
    devices = Devices(Pace(64, measured=True), 0.0099)
    assert devices.settled(30) == (50, pytest.approx(0.495))
    devices.per_update = 0.099
    assert devices.settled(4) == (5, pytest.approx(0.495))
    devices.per_update = 0.0099
    assert devices.settled(30) == (50, pytest.approx(0.495))


def test_a_late_look_does_not_make_updates_quick():
    devices = Devices(Pace(64, measured=True), 0.099)
    assert devices.settled(30)[0] == 5
    # Whoever was held up for a second finds two dispatches ended: one seems slow and the next took no time.
    pace = devices.pace
    pace.completed(5, devices.now + 1.5)
    pace.completed(5, devices.now + 1.5)
    assert pace.wanted <= 5
    devices.now += 1.5
    assert max(devices.dispatch()[0] for _ in range(10)) == 5


def test_a_dispatch_that_was_cut_short_does_not_shorten_those_after_it():
    pace = Pace(64, measured=True)
    for end in range(10):
        pace.completed(10, end * 0.099)
    assert pace.wanted == 50
    pace.completed(2, 9 * 0.099 + 2 * 0.0099)
    assert pace.wanted == 50


def test_a_fixed_number_begins_after_the_first_update():
    pace = Pace(8, measured=False)
    assert pace.wanted == 1
    pace.completed(1, 100.0)
    assert pace.wanted == 8
    pace.completed(8, 1000.0)
    assert pace.wanted == 8


def test_updates_until_something_is_due():
    assert [updates_until_due(step, 20, 6, 9) for step in range(20)] == [
        *(6, 5, 4, 3, 2, 1),  # report 6
        *(3, 2, 1),  # checkpoint 9
        *(3, 2, 1),  # report 12
        *(6, 5, 4, 3, 2, 1),  # both, at 18
        *(2, 1),  # the end
    ]
    assert updates_until_due(3, 4, 1000) == 1
    assert updates_until_due(3, 4, 1) == 1
