"""All that changes from update to update, and all that a checkpoint must hold for an exact resume."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import serialization, struct
from jax.sharding import Mesh

from convmixer_jax.training.mesh import over_fsdp, replicated
from convmixer_jax.training.metrics import TrainSums


class TrainState(struct.PyTreeNode):
    """The state after `step` completed updates. A pytree: no functions, no configuration.

    The running sums belong to it, so that a run that resumes between two reports writes the rows it would have
    written. The position in the data does not: batch n is a function of seed and n.
    """

    step: jax.Array  # int32: completed updates, skipped ones included
    params: Any
    batch_stats: Any
    ema: dict[str, Any]  # moving averages of params and batch_stats under these names; empty where there are none
    opt_state: optax.OptState
    skipped_in_a_row: jax.Array  # int32: updates just before this state that were left out as non-finite
    report: TrainSums  # since the last row of metrics
    epoch: TrainSums  # since the last end of an epoch

    def variables(self, which: str) -> dict[str, Any]:
        """Returns {params, batch_stats} of "raw" or "ema"; raises ValueError for an average that is not kept."""
        if which == "raw":
            return {"params": self.params, "batch_stats": self.batch_stats}
        if which != "ema" or not self.ema:
            raise ValueError(f"this state has no variables {which!r}")
        return self.ema


# What randomness is for; each purpose has a stream of its own, so that a new one leaves the others as they were.
STREAMS = {"init": 0, "augment": 1, "mix": 2, "dropout": 3}


def stream_key(seed: jax.Array | int, purpose: str) -> jax.Array:
    """Returns the key of one purpose, a row of STREAMS, for a run's seed."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[purpose])


def step_key(seed: jax.Array | int, purpose: str, step: jax.Array | int) -> jax.Array:
    """Returns the key of one purpose in the update that turns state `step` into `step + 1`."""
    return jax.random.fold_in(stream_key(seed, purpose), step)


def create_state(
    seed: jax.Array | int,
    model: nn.Module,
    tx: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    with_ema: bool = False,
) -> TrainState:
    """Returns the state before the first update; may be traced, e.g. by jax.eval_shape.

    image_shape: (H, W, C). with_ema: whether moving averages are kept; they begin with the initial values.
    """
    images = np.zeros((1, *image_shape), np.float32)
    variables = model.init(stream_key(seed, "init"), images, train=False)
    # A model without BatchNorm has no statistics.
    kept = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **kept,
        # Copies: a donated state must not name one buffer twice.
        ema=jax.tree.map(jnp.copy, kept) if with_ema else {},
        opt_state=tx.init(variables["params"]),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        report=TrainSums.zeros(),
        epoch=TrainSums.zeros(),
    )


def state_layout(mesh: Mesh, state: TrainState) -> TrainState:
    """Returns the layout of every leaf of a state: what grows with the parameters is split, the rest replicated.

    state: arrays or their shapes.
    """
    ema = {name: over_fsdp(mesh, tree) for name, tree in state.ema.items() if name == "params"}
    split = {"params": over_fsdp(mesh, state.params), "opt_state": over_fsdp(mesh, state.opt_state)}
    whole = jax.tree.map(lambda leaf: replicated(mesh), state)
    return whole.replace(**split, ema=whole.ema | ema)


def to_tree(state: TrainState) -> dict[str, Any]:
    """Returns the state as nested dicts, which is how it is saved; without moving averages where none are kept."""
    tree = serialization.to_state_dict(state)
    return tree if state.ema else {name: value for name, value in tree.items() if name != "ema"}


def from_tree(like: TrainState, tree: dict[str, Any]) -> TrainState:
    """Returns what `to_tree` made nested dicts of; `like` has the same structure."""
    return serialization.from_state_dict(like, {"ema": {}} | tree)
