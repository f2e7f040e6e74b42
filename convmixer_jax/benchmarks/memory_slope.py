"""Whether a run's input keeps memory: bytes that the process grows by with every batch.

found = stream_batches(source, 20_000)         # {"bytes_per_batch": ..., "resident_bytes": ..., "batches": 20_000}
"""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convmixer_jax.data.inputs import TrainInput

SAMPLES = 400  # over all batches
SETTLED = 0.2  # share of the batches after which buffers, threads and the allocator's pools are as they stay


def resident_bytes() -> int:
    """Returns the memory of this process that is in RAM now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def slope(batches: np.ndarray, sizes: np.ndarray) -> float:
    """Returns by how many bytes `sizes`, seen after so many `batches`, grow per batch: the line of least squares."""
    offset = batches - batches.mean()
    return float((offset @ sizes) / (offset @ offset))


def stream_batches(source: TrainInput, count: int) -> dict[str, Any]:
    """Takes `count` batches; returns {bytes_per_batch, resident_bytes: in the end, batches}.

    The first SETTLED of them do not count for the slope.
    """
    every = max(1, count // SAMPLES)
    seen = []
    for number in range(count):
        jax.block_until_ready(source.batch(number))
        if number % every == 0 and number >= SETTLED * count:
            seen.append((number, resident_bytes()))
    numbers, sizes = np.array(seen, float).T
    return {"bytes_per_batch": slope(numbers, sizes), "resident_bytes": resident_bytes(), "batches": count}
