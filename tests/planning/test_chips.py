"""The table of chips, and times from it that can be checked by hand."""

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.planning.chips import CHIPS, GIB, Chip, chip_of, even_sides
from convmixer_jax.planning.compiled import Work
from convmixer_jax.planning.estimate import between, update_times
from convmixer_jax.planning.program_text import Collective

CHIP = Chip(
    flops_per_sec=100,
    bytes_per_sec=10,
    cycles_per_sec=50,
    vector_slots=16,
    hbm_bytes=1000,
    usable_bytes=900,
    link_bytes_per_sec=4,
    axes=2,
)


def test_a_roofline_is_the_slower_of_two():
    assert CHIP.roofline(flops=300, bytes_accessed=20) == 3
    assert CHIP.roofline(flops=300, bytes_accessed=40) == 4
    assert CHIP.vector_cycles(flops=120) == 10  # 12 of 16 slots are filled


def test_the_chips_clock_follows_from_its_peak():
    # Four matrix units of 128 x 128 with a product and a sum each in a cycle; Google's text rounds to 1.5 GHz.
    assert CHIPS["v5e"].cycles_per_sec == pytest.approx(1.5e9, rel=0.01)


def test_every_chip_is_sound():
    for name, chip in CHIPS.items():
        # Google's clocks lie between 0.7 (v2) and 1.75 GHz; what is left to a program is all but what is reserved.
        assert 0.69e9 < chip.cycles_per_sec < 1.76e9, name
        assert 0.93 * chip.hbm_bytes < chip.usable_bytes < chip.hbm_bytes + GIB, name
    assert chip_of("v6e:4x4") is CHIPS["v6e"]
    with pytest.raises(UserError, match="--topology is 'v9'"):
        chip_of("v9:2x2")


@pytest.mark.parametrize("chips, axes, sides", [
    (1, 2, (1, 1)), (8, 2, (2, 4)), (16, 2, (4, 4)), (128, 2, (8, 16)), (256, 2, (16, 16)),
    (8, 3, (2, 2, 2)), (32, 3, (2, 4, 4)), (256, 3, (4, 8, 8)),
])  # fmt: skip
def test_slices_are_those_on_offer(chips, axes, sides):
    assert even_sides(chips, axes) == sides


def test_a_sum_crosses_twice():
    # Of 16 bytes, 7 / 8 leave each chip, twice; and there are 1 + 2 hops each time.
    assert CHIP.link_seconds(16, passes=2, sides=(2, 4)) == pytest.approx(2 * 16 * 7 / 8 / 4 + 6e-6)
    assert CHIP.link_seconds(16, passes=2, sides=(1, 1)) == 0


def work(flops: float, cycles: float) -> Work:
    sent = ((Collective("all-reduce", 16, 8, 1), 2), (Collective("all-gather", 8, 8, 1), 1))
    return Work(flops, traffic=20, cycles=cycles, pallas_flops=120, sent=sent)


def test_an_update_takes_what_its_slowest_unit_does_and_what_is_sent():
    times = update_times(work(flops=300, cycles=240), CHIP, sides=(2, 4))
    assert (times.matrix, times.memory, times.schedule) == (3, 2, 250 / 50)  # 10 cycles are the Pallas call's
    assert times.links == pytest.approx(2 * 7 + 7 / 4 + 2 * 6e-6 + 3e-6)
    assert times.bound == 5 + times.links


def test_work_between_two_batches_grows_evenly():
    half = between(work(100, 10), work(300, 50), 0.5)
    assert (half.flops, half.cycles, half.traffic) == (200, 30, 20)
