"""How many updates a dispatch may make: as many as stay short beside what a person waits for.

    pace = Pace(capacity=64, measured=True)
    count = min(pace.wanted, updates_until_due(step, total_steps, 50, 500, 97))
    pace.completed(count, seconds)       # late, when the devices have made them

Between two dispatches the loop reports, saves and looks for signals, so none should take a second.
"""

import collections

# Seconds of a dispatch: half of the second that it may take, since updates may become slower than they were.
GOAL = 0.5
# Dispatches whose slowest decides: where the host was late to look, one ends just after another and seems quick.
LOOKED_AT = 3
# How many times more updates may be wanted after a dispatch than before it.
GROWTH = 2


def updates_until_due(step: int, total_steps: int, *intervals: int) -> int:
    """Returns how many updates after `step` something is due: at the multiples of the intervals and at the end."""
    return min(total_steps - step, *(interval - step % interval for interval in intervals))


class Pace:
    """Chooses the number of updates in a dispatch: `wanted`, from 1 to capacity.

    It is 1 until the first update, which warms up, has ended. measured: it then follows the seconds that updates take;
    otherwise it is the capacity.
    """

    def __init__(self, capacity: int, measured: bool):
        self.capacity, self.measured = capacity, measured
        self.wanted = 1
        self._end: float | None = None
        self._recent: collections.deque[float] = collections.deque(maxlen=LOOKED_AT)

    def completed(self, updates: int, end: float) -> None:
        """Takes a dispatch of so many updates that ended at `end`, in seconds of training without pauses.

        The devices have the next dispatch waiting, so that the time from one end to the next is that of the updates.
        """
        began, self._end = self._end, end
        if not self.measured:
            self.wanted = self.capacity
        elif began is not None:
            self._recent.append((end - began) / updates)
            self.wanted = max(1, min(self.capacity, GROWTH * self.wanted, self._fitting(max(self._recent))))

    def _fitting(self, seconds: float) -> int:
        """Returns how many updates of so many seconds make a dispatch of GOAL at most, up to the capacity."""
        return self.capacity if seconds * self.capacity <= GOAL else int(GOAL / seconds)
