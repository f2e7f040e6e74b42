"""Numbers over several runs: mean and spread, curves over seeds, the Pareto front.

mean_and_spread([0.91, 0.93])                    # (0.92, 0.01414...)
pareto_front([(594186, 0.92), (706570, 0.91)])   # {0}
"""

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)


def number(value: Any) -> float | None:
    """Returns a finite number as float; None for anything else that a file may hold, True among it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON knows whole numbers of any size
        return None
    return found if math.isfinite(found) else None


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns the mean and the sample standard deviation, over n - 1: None for no value, and for less than two."""
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


def mean_curve(curves: Iterable[Mapping[float, float]]) -> list[tuple[float, float, float]]:
    """Returns (x, mean, spread) for every x of the curves {x: y}, over those that have it; spread is 0 for one."""
    at: dict[float, list[float]] = {}
    for curve in curves:
        for x, y in curve.items():
            at.setdefault(x, []).append(y)
    points = []
    for x in sorted(at):
        mean, spread = mean_and_spread(at[x])
        assert mean is not None  # a value brought x
        points.append((x, mean, spread or 0.0))
    return points


def pareto_front(pairs: Sequence[tuple[float, float]]) -> set[int]:
    """Returns the places of those (cost, score) that no other is better than: as cheap and better, or cheaper as good.

    Of equal pairs all are on the front.
    """
    return {
        place
        for place, (cost, score) in enumerate(pairs)
        if not any(
            other_cost <= cost and other_score >= score and (other_cost, other_score) != (cost, score)
            for other_cost, other_score in pairs
        )
    }


def different(columns: Sequence[Mapping[Key, Any]]) -> list[Key]:
    """Returns the keys of which the columns do not all hold the same value, in the order of the first that has them."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [key for key in keys if any(column.get(key) != columns[0].get(key) for column in columns)]
