"""The compiled steps: pure functions of state and batch, with explicit shardings and a donated state.

    train_step = jit_train_step(make_train_step(...), mesh)
    state, watch = train_step(state, seed, data, batch)

`data` and `batch` are what the input path gives, and `take` turns them into images inside the program, so nothing
but indices crosses to the device in a step of the resident path.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.metrics import EvalSums
from convmixer_jax.training.schedules import Schedule
from convmixer_jax.training.state import TrainState, stream_key

Batch = dict[str, jax.Array]
Take = Callable[[Batch, Batch], Batch]
Augment = Callable[[jax.Array, jax.Array], jax.Array]
Normalise = Callable[[jax.Array], jax.Array]
Update = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Batch]]
TrainStep = Callable[[TrainState, jax.Array, Batch, Batch], tuple[TrainState, Batch]]
EvalStep = Callable[[Any, Any, Batch, Batch], EvalSums]


def smooth_targets(label: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Returns soft targets, float32 [B, classes]: `smoothing` spread over all classes, the rest on the label."""
    return optax.smooth_labels(jax.nn.one_hot(label, num_classes), smoothing)


def select(condition: jax.Array, new: Any, old: Any) -> Any:
    """Returns the tree `new` where the scalar condition holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def make_update(model: nn.Module, tx: optax.GradientTransformation, schedule: Schedule) -> Update:
    """Returns the update itself: (state, images, targets) to (state, {loss, logits, grad_norm, finite}).

    images: normalised, [B, H, W, C]; targets: [B, classes]. An update whose loss or gradient is not finite leaves
    parameters, statistics and optimiser as they were and is counted; the step number moves on either way, so the
    run goes on with the next batch and the next learning rate.
    """

    def loss_fn(params: Any, batch_stats: Any, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return optax.softmax_cross_entropy(logits, targets).mean(), (logits, updated["batch_stats"])

    def update(state: TrainState, images: jax.Array, targets: jax.Array) -> tuple[TrainState, Batch]:
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (logits, batch_stats)), grads = grad_fn(state.params, state.batch_stats, images, targets)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        rate = schedule(state.step)
        params = jax.tree.map(lambda p, u: p + (rate * u).astype(p.dtype), state.params, updates)
        state = state.replace(
            step=state.step + 1,
            params=select(finite, params, state.params),
            batch_stats=select(finite, batch_stats, state.batch_stats),
            opt_state=select(finite, opt_state, state.opt_state),
            skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
        )
        return state, {"loss": loss, "logits": logits, "grad_norm": grad_norm, "finite": finite}

    return update


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    schedule: Schedule,
    *,
    take: Take,
    augment: Augment,
    normalise: Normalise,
    label_smoothing: float,
) -> TrainStep:
    """Returns (state, seed, data, batch) to (state, watch): take, augment, normalise, update, count.

    Augmentation is keyed by (seed, step); the seed, a uint32 scalar, is an argument so that runs that differ in it
    alone share one compiled program. `watch` holds the few scalars that the loop looks at late: step,
    skipped_in_a_row and learning_rate. Mixing of examples belongs between `normalise` and `update`.
    """
    update = make_update(model, tx, schedule)

    def train_step(state: TrainState, seed: jax.Array, data: Batch, batch: Batch) -> tuple[TrainState, Batch]:
        examples = take(data, batch)
        key = jax.random.fold_in(stream_key(seed, "augment"), state.step)
        images = normalise(augment(key, examples["image"]))
        targets = smooth_targets(examples["label"], model.num_classes, label_smoothing)
        rate = jnp.asarray(schedule(state.step), jnp.float32)
        state, out = update(state, images, targets)
        top1 = jnp.sum(out["logits"].argmax(-1) == examples["label"])
        counted = (out["loss"], top1, len(images), out["grad_norm"], out["finite"])
        state = state.replace(report=state.report.add(*counted), epoch=state.epoch.add(*counted))
        return state, {"step": state.step, "skipped_in_a_row": state.skipped_in_a_row, "learning_rate": rate}

    return train_step


def make_eval_step(model: nn.Module, *, take: Take, normalise: Normalise) -> EvalStep:
    """Returns (params, batch_stats, data, batch) to the sums of one batch; examples with mask False count nothing."""

    def eval_step(params: Any, batch_stats: Any, data: Batch, batch: Batch) -> EvalSums:
        examples = take(data, batch)
        label, mask = examples["label"], examples["mask"]
        variables = {"params": params, "batch_stats": batch_stats}
        logits: jax.Array = model.apply(variables, normalise(examples["image"]), train=False)  # type: ignore[assignment]
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        _, top = jax.lax.top_k(logits, min(5, logits.shape[-1]))
        classes = jax.nn.one_hot(label, logits.shape[-1], dtype=jnp.int32) * mask[:, None]
        return EvalSums(
            loss=jnp.sum(jnp.where(mask, losses, 0)),
            top5=jnp.sum((top == label[:, None]).any(-1) & mask, dtype=jnp.int32),
            correct=jnp.sum(classes * (logits.argmax(-1) == label)[:, None], axis=0),
            examples=jnp.sum(classes, axis=0),
        )

    return eval_step


def jit_train_step(train_step: TrainStep, mesh: Mesh) -> jax.stages.Wrapped:
    """Compiles a train step: the batch is split, everything else replicated; the state's memory is reused."""
    whole = replicated(mesh)
    return jax.jit(
        train_step,
        in_shardings=(whole, whole, whole, over_data(mesh)),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )


def jit_eval_step(eval_step: EvalStep, mesh: Mesh) -> jax.stages.Wrapped:
    """Compiles an evaluation step: the batch is split, everything else replicated."""
    whole = replicated(mesh)
    return jax.jit(eval_step, in_shardings=(whole, whole, whole, over_data(mesh)), out_shardings=whole)
