"""The update itself: gradients of a batch, in one piece or several, the optimiser, the moving averages.

update = make_update(model, tx, schedule, UpdateSettings(accumulate_steps=1, ema_decay=0.0, l2=0.0), gather)
state, out = update(state, images, targets, dropout_key)
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from convmixer_jax.training.schedules import Schedule
from convmixer_jax.training.state import TrainState

Gather = Callable[[Any], Any]
Update = Callable[[TrainState, jax.Array, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


# Beyond it a program becomes too long to compile.
MOST_UNROLLED = 8


@dataclasses.dataclass(frozen=True)
class UpdateSettings:
    """What the config gives to every update.

    accumulate_steps: micro-batches. ema_decay: 0 = no moving averages. l2: of the kernels' squares. unroll: write
    micro-batches out one after the other, up to MOST_UNROLLED at a time, instead of in a loop. decay: what becomes of
    parameters before the optimiser's update is added, whatever the learning rate; None: nothing.
    """

    accumulate_steps: int
    ema_decay: float
    l2: float
    unroll: bool = False
    decay: Callable[[Any], Any] | None = None


def select(condition: jax.Array, new: Any, old: Any) -> Any:
    """Returns the tree `new` where the scalar condition holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def kernel_penalty(params: Any) -> jax.Array:
    """Returns the sum of squares of all that has more than one axis, as Keras's kernel_regularizer on every layer."""
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params) if leaf.ndim > 1), jnp.zeros(()))


def split(array: jax.Array, parts: int) -> jax.Array:
    """Returns [B, ...] as [parts, B / parts, ...]; part m holds the examples m, m + parts, m + 2 parts, ...

    Strided, so that each device keeps its own examples: in contiguous parts they would have to travel.
    """
    return jnp.moveaxis(array.reshape(len(array) // parts, parts, *array.shape[1:]), 1, 0)


def join(parts: jax.Array) -> jax.Array:
    """Undoes `split`."""
    return jnp.moveaxis(parts, 0, 1).reshape(-1, *parts.shape[2:])


def moving_average(decay: float, step: jax.Array, average: Any, new: Any) -> Any:
    """Returns decay * average + (1 - decay) * new, leaf by leaf; step: completed updates, skipped ones included.

    The decay begins small, (1 + step) / (10 + step), as in TensorFlow's ExponentialMovingAverage with num_updates:
    a short run is then not weighed down by its initial weights.
    """
    share = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, b: a + (share * (b - a)).astype(a.dtype), average, new)


def make_gradients(model: nn.Module, settings: UpdateSettings, gather: Gather) -> Callable[..., tuple[Any, ...]]:
    """Returns (params, batch_stats, images, targets, key) to (loss, logits, batch_stats, gradients).

    With several micro-batches, loss and gradients are their means. BatchNorm sees one micro-batch at a time: it
    normalises with that one's statistics and updates the running ones once for each, as PyTorch does where gradients
    are accumulated. The loss is the cross-entropy alone; the gradients are of it and the penalty.
    """

    def loss_fn(params: Any, batch_stats: Any, images: jax.Array, targets: jax.Array, key: jax.Array) -> Any:
        variables = {"params": gather(params), "batch_stats": batch_stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        total = loss + settings.l2 * kernel_penalty(params) if settings.l2 else loss
        return total, (loss, logits, updated.get("batch_stats", {}))

    grad_fn = jax.grad(loss_fn, has_aux=True)
    parts = settings.accumulate_steps

    def gradients(params: Any, batch_stats: Any, images: jax.Array, targets: jax.Array, key: jax.Array) -> Any:
        if parts == 1:
            grads, (loss, logits, batch_stats) = grad_fn(params, batch_stats, images, targets, key)
            return loss, logits, batch_stats, grads

        def add_micro_batch(sums: Any, micro: Any) -> Any:
            batch_stats, losses, total = sums
            grads, (loss, logits, batch_stats) = grad_fn(params, batch_stats, *micro)
            return (batch_stats, losses + loss, jax.tree.map(jnp.add, total, grads)), logits

        start = (batch_stats, jnp.zeros((), targets.dtype), jax.tree.map(jnp.zeros_like, params))
        micros = (split(images, parts), split(targets, parts), jax.random.split(key, parts))
        unroll = min(parts, MOST_UNROLLED) if settings.unroll else 1
        (batch_stats, losses, total), logits = jax.lax.scan(add_micro_batch, start, micros, unroll=unroll)
        return losses / parts, join(logits), batch_stats, jax.tree.map(lambda leaf: leaf / parts, total)

    return gradients


def make_update(
    model: nn.Module, tx: optax.GradientTransformation, schedule: Schedule, settings: UpdateSettings, gather: Gather
) -> Update:
    """Returns the update: (state, images, targets, key) to (state, {loss, logits, grad_norm, finite}).

    images: normalised, [B, H, W, C]; targets: [B, classes]; key: of dropout and stochastic depth. gather: makes
    parameters whole for their use, see `make_gather`. An update whose loss or gradient is not finite leaves
    parameters, statistics, averages and optimiser as they were and is counted; the step number moves on either way,
    so the run goes on with the next batch and the next learning rate.
    """
    gradients = make_gradients(model, settings, gather)

    def update(
        state: TrainState, images: jax.Array, targets: jax.Array, key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, logits, batch_stats, grads = gradients(state.params, state.batch_stats, images, targets, key)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        rate = schedule(state.step)
        decayed = settings.decay(state.params) if settings.decay else state.params
        params = jax.tree.map(lambda p, u: p + (rate * u).astype(p.dtype), decayed, updates)
        new = {"params": params, "batch_stats": batch_stats}
        ema = moving_average(settings.ema_decay, state.step, state.ema, new) if settings.ema_decay else state.ema
        state = state.replace(
            step=state.step + 1,
            params=select(finite, params, state.params),
            batch_stats=select(finite, batch_stats, state.batch_stats),
            ema=select(finite, ema, state.ema),
            opt_state=select(finite, opt_state, state.opt_state),
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )
        return state, {"loss": loss, "logits": logits, "grad_norm": grad_norm, "finite": finite}

    return update
