"""The steps: pure functions of state and batch.

    train_step = make_train_step(update, schedule, take=take, prepare=prepare)
    state, watch = train_step(state, seed, data, batch)        # dispatch.py compiles several of them into one call
    eval_step = jit_eval_step(make_eval_step(...), mesh, layout, compiler_options)

`data` and `batch` are what the input path gives, and `take` turns them into examples inside the program, so nothing
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
from convmixer_jax.training.prepare import Batch, Prepare
from convmixer_jax.training.schedules import Schedule
from convmixer_jax.training.state import TrainState, step_key
from convmixer_jax.training.update import Gather, Update

Take = Callable[[Batch, Batch], Batch]
Normalise = Callable[[jax.Array], jax.Array]
TrainStep = Callable[[TrainState, jax.Array, Batch, Batch], tuple[TrainState, Batch]]
EvalStep = Callable[[Any, Any, Batch, Batch], EvalSums]


def make_train_step(update: Update, schedule: Schedule, *, take: Take, prepare: Prepare) -> TrainStep:
    """Returns (state, seed, data, batch) to (state, watch): take, prepare, update, count.

    All randomness is keyed by (seed, step); the seed, a uint32 scalar, is an argument so that runs that differ in it
    alone share one compiled program. `watch` holds the few scalars that the loop looks at late: step,
    skipped_in_a_row and learning_rate. Of mixed examples, top-1 counts the class with the larger share.
    """

    def train_step(state: TrainState, seed: jax.Array, data: Batch, batch: Batch) -> tuple[TrainState, Batch]:
        images, targets = prepare(seed, state.step, take(data, batch))
        rate = jnp.asarray(schedule(state.step), jnp.float32)
        state, out = update(state, images, targets, step_key(seed, "dropout", state.step))
        top1 = jnp.sum(out["logits"].argmax(-1) == targets.argmax(-1))
        counted = (out["loss"], top1, len(images), out["grad_norm"], out["finite"])
        state = state.replace(report=state.report.add(*counted), epoch=state.epoch.add(*counted))
        return state, {"step": state.step, "skipped_in_a_row": state.skipped_in_a_row, "learning_rate": rate}

    return train_step


def make_eval_step(model: nn.Module, *, take: Take, normalise: Normalise, flip: bool, gather: Gather) -> EvalStep:
    """Returns (params, batch_stats, data, batch) to the sums of one batch; examples with mask False count nothing.

    gather: makes parameters whole, see `make_gather`. flip: whether to count also what the mean of an
    image's and its mirror image's logits gets right.
    """

    def eval_step(params: Any, batch_stats: Any, data: Batch, batch: Batch) -> EvalSums:
        examples = take(data, batch)
        label, mask = examples["label"], examples["mask"]
        images, variables = normalise(examples["image"]), {"params": gather(params), "batch_stats": batch_stats}

        def classify(images: jax.Array) -> jax.Array:
            logits: jax.Array = model.apply(variables, images, train=False)  # type: ignore[assignment]
            return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

        def right(logits: jax.Array) -> jax.Array:
            return logits.argmax(-1) == label

        logits = classify(images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        _, top = jax.lax.top_k(logits, min(5, logits.shape[-1]))
        classes = jax.nn.one_hot(label, logits.shape[-1], dtype=jnp.int32) * mask[:, None]
        flipped = right(logits + classify(images[:, :, ::-1])) & mask if flip else None
        return EvalSums(
            loss=jnp.sum(jnp.where(mask, losses, 0)),
            top5=jnp.sum((top == label[:, None]).any(-1) & mask, dtype=jnp.int32),
            correct=jnp.sum(classes * right(logits)[:, None], axis=0),
            examples=jnp.sum(classes, axis=0),
            correct_flip=None if flipped is None else jnp.sum(flipped, dtype=jnp.int32),
        )

    return eval_step


def jit_eval_step(eval_step: EvalStep, mesh: Mesh, layout: Any, compiler_options: dict[str, Any]) -> jax.stages.Wrapped:
    """Compiles an evaluation step: the batch is split.

    layout: a sharding for each of the parameters, or one for all. compiler_options: of XLA, for this program alone.
    """
    whole = replicated(mesh)
    return jax.jit(
        eval_step,
        in_shardings=(layout, whole, whole, over_data(mesh)),
        out_shardings=whole,
        compiler_options=compiler_options,
    )
