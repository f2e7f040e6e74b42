"""The slope is that of the memory which a batch leaves behind."""

import mmap

import numpy as np
import pytest

from convmixer_jax.benchmarks import memory_slope
from convmixer_jax.benchmarks.memory_slope import resident_bytes, slope, stream_batches


class Leaking:
    """Keeps so many bytes of every batch, after a start that takes more."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.asked: list[int] = []

    def batch(self, step):
        self.asked.append(step)
        return np.zeros(3)

    def size(self) -> int:
        return 10**6 * min(len(self.asked), 100) + self.kept * len(self.asked)


def test_a_line_has_its_slope():
    assert slope(np.array([0.0, 1.0, 2.0]), np.array([5.0, 8.0, 11.0])) == pytest.approx(3)
    # Of the points (0, 0), (1, 4), (2, 2): the line 1 + x.
    assert slope(np.array([0.0, 1.0, 2.0]), np.array([0.0, 4.0, 2.0])) == pytest.approx(1)


@pytest.mark.parametrize("kept", [0, 70])
def test_what_is_kept_is_seen_after_the_start(monkeypatch, kept):
    source = Leaking(kept)
    monkeypatch.setattr(memory_slope, "resident_bytes", source.size)
    found = stream_batches(source, 1000)
    assert found["batches"] == 1000
    assert found["bytes_per_batch"] == pytest.approx(kept)
    assert found["resident_bytes"] == 10**8 + 1000 * kept
    assert source.asked == list(range(1000))


def test_the_memory_of_this_process_grows_with_what_it_holds():
    before = resident_bytes()
    with mmap.mmap(-1, 50_000_000) as held:  # from the system: what was used and freed before would not show
        held.write(bytes([1]) * len(held))
        with_it = resident_bytes()
    assert 40e6 < with_it - before < 120e6  # what is written is there, too, for a moment
