"""Seconds of a call, repeated: the median with its quartiles, since single times on shared machines mean little.

timing = measure_together({"ours": lambda: jax.block_until_ready(step(state))})["ours"]
print(timing.rate(512), timing.rate_quartiles(512))
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

REPETITIONS = 7


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median and the lower and upper quartile."""

    median: float
    low: float
    high: float

    def rate(self, items: int) -> float:
        """Returns items per second of a call that handles `items`, by the median."""
        return items / self.median

    def rate_quartiles(self, items: int) -> tuple[float, float]:
        """Returns the lower and upper quartile of items per second."""
        return items / self.high, items / self.low


def measure_together(calls: Mapping[str, Callable[[], Any]], repetitions: int = REPETITIONS) -> dict[str, Timing]:
    """Times each call `repetitions` times, the calls in turn, after one call of each that does not count.

    In turn, so that a machine that is busy for a while slows all of them. A call must wait for its own results.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    quartiles = {name: np.quantile(values, [0.5, 0.25, 0.75]) for name, values in seconds.items()}
    return {name: Timing(*map(float, values)) for name, values in quartiles.items()}
