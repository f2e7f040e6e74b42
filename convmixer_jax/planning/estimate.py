"""Seconds of an update on a TPU slice, put together from what a program does and what is published of the chip.

    times = update_times(work, chip, sides=(16, 16))
    seconds = times.bound / efficiency

Nothing here was measured on a TPU. `bound` is the least that the slowest unit allows, and communication, as if nothing
of it were hidden behind arithmetic. What a program reaches of it, the efficiency, is an assumption of the caller's.
"""

import dataclasses
from collections.abc import Sequence

from convmixer_jax.planning.chips import Chip
from convmixer_jax.planning.compiled import Work

# How often an array crosses: to be added up and to be spread, or once.
PASSES = {"all-reduce": 2}


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one update: of the matrix units at their peak, of the memory at its, of the links.

    schedule: the cycles that the compiler estimates for all operations, one after the other, the vector unit's with
    them, which makes the products of depthwise convolutions; Pallas calls are our own count (see Chip.vector_cycles).
    """

    matrix: float
    memory: float
    schedule: float
    links: float

    @property
    def bound(self) -> float:
        """The slowest of the three, and what is sent."""
        return max(self.matrix, self.memory, self.schedule) + self.links


def update_times(work: Work, chip: Chip, sides: Sequence[int]) -> Times:
    """Returns the seconds of an update on a slice with these sides."""
    cycles = work.cycles + chip.vector_cycles(work.pallas_flops)
    links = sum(times * chip.link_seconds(each.payload, PASSES.get(each.kind, 1), sides) for each, times in work.sent)
    return Times(
        matrix=work.flops / chip.flops_per_sec,
        memory=work.traffic / chip.bytes_per_sec,
        schedule=cycles / chip.cycles_per_sec,
        links=links,
    )


def between(low: Work, high: Work, share: float) -> Work:
    """Returns the work at `share` of the way from low to high, 0 to 1: what grows with examples does so evenly.

    What is sent does not depend on the examples: sums of gradients and of BatchNorm.
    """

    def at(name: str) -> float:
        before: float = getattr(low, name)
        return before + share * (getattr(high, name) - before)

    return Work(at("flops"), at("traffic"), at("cycles"), at("pallas_flops"), low.sent)
