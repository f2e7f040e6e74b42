"""What is published of TPU chips, and the times that it puts below an update.

chip = chip_of("v5e:2x4")
chip.roofline(flops, bytes_accessed), chip.link_seconds(payload, passes=2, sides=(2, 4))
"""

import dataclasses
import math
from collections.abc import Sequence

from convmixer_jax.errors import lookup

GIB = 2**30

# Of one hop between neighbours, about: jax-ml.github.io/scaling-book, "How to think about TPUs". Not measured here.
HOP_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True)
class Chip:
    """Of one device as JAX counts them: a chip, but of v2 and v3 one of its two cores.

    flops_per_sec: of bfloat16 products. bytes_per_sec: of its memory. vector_slots: arithmetic instructions on float32
    values that the vector unit can make in a cycle. hbm_bytes: published; usable_bytes: what the compiler leaves to a
    program. link_bytes_per_sec: to all neighbours together, one way. axes: of the mesh or torus of chips.
    """

    flops_per_sec: float
    bytes_per_sec: float
    cycles_per_sec: float
    vector_slots: int
    hbm_bytes: int
    usable_bytes: int
    link_bytes_per_sec: float
    axes: int

    def roofline(self, flops: float, bytes_accessed: float) -> float:
        """Returns the seconds that neither the matrix units nor the memory let it fall below."""
        return max(flops / self.flops_per_sec, bytes_accessed / self.bytes_per_sec)

    def vector_cycles(self, flops: float) -> float:
        """Returns the cycles of a Pallas call: three of four slots are filled.

        So the compiler schedules the kernels of pallas_tpu.py for v5e, copies into their scratch included: 5.1 million
        cycles forward and 5.6 for the kernel's gradient of 16.3 GFLOP (k 9, 1536 channels, 32x32, batch 64).
        """
        return flops / (0.75 * self.vector_slots)

    def link_seconds(self, payload: float, passes: int, sides: Sequence[int]) -> float:
        """Returns the seconds of a collective over a slice with these sides.

        payload: bytes of the whole array. passes: 2 of an all-reduce, in which each chip sends its array once to be
        added up and once to be spread, all links busy; 1 of an all-gather or a reduce-scatter.
        """
        chips = math.prod(sides)
        if chips == 1:
            return 0.0
        hops = passes * sum(side // 2 for side in sides)  # both ways round each axis
        return passes * payload * (chips - 1) / chips / self.link_bytes_per_sec + hops * HOP_SECONDS


# cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e}: peak in bfloat16, capacity and bandwidth of the memory; one way, the
# links together make half of the "bidirectional ICI bandwidth" (v5e 400, v5p 1200, v6e 800 GB/s), which is a pod's
# "all-reduce bandwidth" divided by its chips, and that is taken of v3 (340 TB/s, 1024 chips) and v4 (1.1 PB/s, 4096);
# of v2 four links of 62 GB/s (Jouppi et al., doi 10.1145/3360307). Clocks follow from the peaks and the numbers of
# matrix units of 128 x 128, two operations a cycle each: 1 of a v2 core, 2 of a v3 core, 8 of v4 and v5p, 4 of v5e; of
# v6e four of 256 x 256, for its compiler counts on more than the two that are published. The vector unit of a core has
# 8 x 128 lanes: of four slots since v5 (scaling-book), of two before (doi 10.1145/3360307).
# usable_bytes are from the refusals of libtpu 0.0.42.1 for a program that is too large for each.
CHIPS = {
    "v2": Chip(46e12 / 2, 700e9 / 2, 46e12 / (2 * 128 * 128 * 2), 8 * 128 * 2, 8 * GIB, int(7.48 * GIB), 248e9 / 2, 2),
    "v3": Chip(
        123e12 / 2, 900e9 / 2, 123e12 / (4 * 128 * 128 * 2), 8 * 128 * 2, 16 * GIB, int(15.48 * GIB), 332e9 / 2, 2
    ),
    "v4": Chip(275e12, 1200e9, 275e12 / (8 * 128 * 128 * 2), 2 * 8 * 128 * 2, 32 * GIB, int(30.75 * GIB), 268e9, 3),
    "v5e": Chip(197e12, 819e9, 197e12 / (4 * 128 * 128 * 2), 8 * 128 * 4, 16 * GIB, int(15.75 * GIB), 200e9, 2),
    "v5p": Chip(459e12, 2765e9, 459e12 / (8 * 128 * 128 * 2), 2 * 8 * 128 * 4, 95 * GIB, int(95.74 * GIB), 600e9, 3),
    "v6e": Chip(918e12, 1638e9, 918e12 / (4 * 256 * 256 * 2), 8 * 128 * 4, 32 * GIB, int(31.25 * GIB), 400e9, 2),
}


def chip_of(topology: str) -> Chip:
    """Returns the row for a topology like "v5e:2x4"; raises UserError where there is none."""
    return lookup(CHIPS, topology.partition(":")[0], "--topology")


def even_sides(chips: int, axes: int) -> tuple[int, ...]:
    """Returns the sides of the slice with so many chips, a power of two, that is offered: as even as can be."""
    sides = [1] * axes
    while math.prod(sides) < chips:
        sides[sides.index(min(sides))] *= 2
    return tuple(sorted(sides))
