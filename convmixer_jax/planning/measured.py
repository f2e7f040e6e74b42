"""Seconds of an update on the devices of this machine: a run's own program, with noise for images.

    seconds = update_seconds(outcome)

The host's part, reading and decoding images, is not in it: the batches lie on the devices already.
"""

import time
from typing import Any

import jax
import numpy as np

from convmixer_jax.data.placing import put
from convmixer_jax.planning.compiled import Outcome
from convmixer_jax.training.assembly import abstract_arguments

# Seconds that the timed updates should take together, at least three of them.
GOAL = 2.0
LEAST = 3


def example(shape: jax.ShapeDtypeStruct, draw: np.random.Generator) -> jax.Array:
    """Returns pixels of noise for uint8, zeros for labels and indices, laid out as the shape says."""
    pixels = shape.dtype == np.uint8
    values = draw.integers(0, 256, shape.shape, np.uint8) if pixels else np.zeros(shape.shape, shape.dtype)
    return put(values, shape.sharding)


def update_seconds(outcome: Outcome) -> float:
    """Returns the mean seconds of an update, after a first one that does not count. The outcome has a program."""
    assert outcome.program is not None
    experiment, draw = outcome.experiment, np.random.default_rng(0)
    _, _, *shapes, _ = abstract_arguments(experiment)
    data, batches = jax.tree.map(lambda shape: example(shape, draw), shapes)
    seed = np.uint32(experiment.config.seed)
    state: Any = experiment.init_state(seed)

    def seconds_of(count: int) -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(-(-count // experiment.plan.capacity)):
            made = min(count, experiment.plan.capacity)
            state, watch = outcome.program(state, seed, data, batches, np.int32(made))  # type: ignore[misc]
            count -= made
        jax.block_until_ready((state, watch))
        return time.perf_counter() - began

    seconds_of(1)
    one = seconds_of(1)
    count = max(LEAST, int(GOAL / one))
    return seconds_of(count) / count
