"""Seconds of a run, by what they were spent on, carried over restarts.

    with clock.pause("evaluation"): ...
    seconds, waited = clock.lap()
    clock.spent()                        # {"evaluation": 12.1, "input": 0.3, "step": 60.2}

Only differences of the monotonic clock count, so a changed wall clock does no harm.
"""

import contextlib
import time
from collections.abc import Iterator


class RunClock:
    """Wall seconds of all starts (`seconds`) and of their training updates alone (`step_seconds`).

    Start-up, compilation, evaluation and saving count in the former only; time between two starts in neither.
    """

    def __init__(self) -> None:
        self._earlier = self._earlier_steps = 0.0
        self._start = time.monotonic()
        self._paused = 0.0
        self._pauses: dict[str, float] = {}
        self._input = 0.0
        self._first_update = self._lap_start = self._start
        self._lap_paused = self._lap_input = 0.0

    def add_earlier(self, seconds: float, step_seconds: float) -> None:
        """Adds what the starts before this one took, as a checkpoint carries it."""
        self._earlier, self._earlier_steps = seconds, step_seconds

    def start_updates(self) -> None:
        """Everything before this call was start-up and counts as a pause."""
        self._first_update = self._lap_start = time.monotonic()
        self._paused = self._lap_paused = 0.0
        self._pauses.clear()

    @contextlib.contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """Takes what happens inside out of step_seconds and of the lap. kind: what it is, for `spent`."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self._paused += seconds
            self._pauses[kind] = self._pauses.get(kind, 0.0) + seconds

    @contextlib.contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Counts what happens inside as input wait; it stays part of the step."""
        began = time.monotonic()
        yield
        self._input += time.monotonic() - began

    @property
    def seconds(self) -> float:
        """Wall seconds of all starts so far."""
        return self._earlier + time.monotonic() - self._start

    @property
    def step_seconds(self) -> float:
        """Wall seconds of updates of all starts so far, without pauses."""
        return self._earlier_steps + time.monotonic() - self._first_update - self._paused

    def spent(self) -> dict[str, float]:
        """Returns the seconds since `start_updates`: each kind of pause, "input" for its wait, "step" for the rest."""
        updates = time.monotonic() - self._first_update - self._paused
        return {**self._pauses, "input": self._input, "step": updates - self._input}

    def lap(self) -> tuple[float, float]:
        """Returns (seconds of updates, seconds of input wait) since the last lap, and begins a new one."""
        now = time.monotonic()
        seconds = now - self._lap_start - (self._paused - self._lap_paused)
        waited = self._input - self._lap_input
        self._lap_start, self._lap_paused, self._lap_input = now, self._paused, self._input
        return seconds, waited


class Timeline:
    """The parts of a start-up, in the order in which they ended."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self.parts: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._start

    def mark(self, name: str) -> None:
        """Ends the part `name`, which began at the mark before."""
        now = time.monotonic()
        self.parts[name] = now - self._last
        self._last = now

    def __str__(self) -> str:
        """All parts and their sum: "import 2.1 s, data 0.4 s ... = 9.0 s"."""
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.parts.items())
        return f"{parts} = {sum(self.parts.values()):.1f} s"
