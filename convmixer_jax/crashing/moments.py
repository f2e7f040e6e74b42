"""When something happens to a start of a run: at random, in its start-up, between updates or in a save.

moment = draw_moment(random, start, saved=120)
if moment.wait(start):           # False where a process ended before
    ...
"""

import dataclasses
import random
import time

from convmixer_jax.crashing.starts import Start

# From the first handler to the first update, with what was compiled before in the cache; a guess will do.
START_UP_S = 5.0
AFTER_S = 0.1  # seconds at most that pass after the update or the save's beginning that is waited for
NEAR = 0.6  # the share of the updates left within which it happens: later faults are to find some, too


@dataclasses.dataclass(frozen=True)
class Moment:
    """step: an update that has been made, None for no matter which. saving: whether a save is to have begun.

    after: seconds that pass then, or since the processes handle signals. saved: whether a checkpoint must be there.
    """

    step: int | None
    saving: bool
    after: float
    saved: bool = False

    def wait(self, start: Start) -> bool:
        """Waits for it; returns False where a process of the start ends before."""
        if not start.wait_until(start.listens):
            return False
        if self.step is not None and not start.wait_until(lambda: (start.step() or 0) >= (self.step or 0)):
            return False
        if self.saving and not start.wait_until(start.is_saving):
            return False
        if self.saved and not start.wait_until(start.has_saved):
            return False
        then = time.monotonic() + self.after
        return start.wait_until(lambda: time.monotonic() >= then)

    def __str__(self) -> str:
        when = "in the start-up" if self.step is None else f"from update {self.step} on"
        return f"{when}, {'in a save, ' if self.saving else ''}{self.after:.2f} s later"


def draw_moment(draws: random.Random, start: Start, saved: int, where: str = "any") -> Moment:
    """Returns a moment of a start that goes on from update `saved`. where: "any", "save", "saved", "update"."""
    place = draws.choices(["start-up", "update", "save"], [1, 2, 1])[0] if where == "any" else where
    after = draws.uniform(0, START_UP_S if place == "start-up" else AFTER_S)
    step = saved + int(draws.random() * NEAR * (start.setup.steps - saved))
    return Moment(None if place == "start-up" else step, place == "save", after, place == "saved")
