"""All that changes from update to update, and all that a checkpoint must hold for an exact resume."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct

from convmixer_jax.training.metrics import TrainSums


class TrainState(struct.PyTreeNode):
    """The state after `step` completed updates. A pytree: no functions, no configuration.

    The running sums belong to it, so that a run that resumes between two reports writes the rows it would have
    written. The position in the data does not: batch n is a function of seed and n.
    """

    step: jax.Array  # int32: completed updates, skipped ones included
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    skipped_in_a_row: jax.Array  # int32: updates just before this state that were left out as non-finite
    report: TrainSums  # since the last row of metrics
    epoch: TrainSums  # since the last end of an epoch


# What randomness is for; each purpose has a stream of its own, so that a new one leaves the others as they were.
STREAMS = {"init": 0, "augment": 1}


def stream_key(seed: jax.Array | int, purpose: str) -> jax.Array:
    """Returns the key of one purpose, a row of STREAMS, for a run's seed."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[purpose])


def create_state(
    seed: jax.Array | int, model: nn.Module, tx: optax.GradientTransformation, image_shape: tuple[int, ...]
) -> TrainState:
    """Returns the state before the first update; may be traced, e.g. by jax.eval_shape.

    image_shape: (H, W, C).
    """
    images = np.zeros((1, *image_shape), np.float32)
    variables = model.init(stream_key(seed, "init"), images, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(variables["params"]),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        report=TrainSums.zeros(),
        epoch=TrainSums.zeros(),
    )
