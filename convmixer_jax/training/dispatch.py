"""Several updates in one call of the devices.

    plan = plan_dispatches(config.steps_per_dispatch, steps_per_epoch, stacks=True, loops_well=True)
    program = jit_dispatch(train_step, plan, mesh, layout, max_skipped_steps, compiler_options)
    state, watch = program(state, seed, source.data, next_batches(inputs, source, step, count, plan), np.int32(count))

The number of updates is an argument of the program, so that one compilation serves a dispatch that is cut short as
well as a full one, and both run the same instructions: how many updates share a dispatch changes no bit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from convmixer_jax.data.inputs import InputPath, TrainInput
from convmixer_jax.data.placing import Batch, Shapes, stacked
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.state import TrainState
from convmixer_jax.training.step import TrainStep

Dispatch = Callable[[TrainState, jax.Array, Batch, Batch, jax.Array], tuple[TrainState, Batch]]

# What an automatic choice may reach: shared by so many updates, the cost of a call no longer counts.
MOST_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class DispatchPlan:
    """What the program of a run does in one call.

    looped: it repeats the update; otherwise it is the update itself, for platforms where loops are slow. stacked: its
    batches are as many as `capacity`, on a first axis of every leaf; otherwise there is one. capacity: updates at most.
    """

    looped: bool
    stacked: bool
    capacity: int


def plan_dispatches(steps_per_dispatch: int, steps_per_epoch: int, *, stacks: bool, loops_well: bool) -> DispatchPlan:
    """Returns the plan for at most `steps_per_dispatch` updates, 0 for as many as are good.

    stacks: whether the input path gives several batches at once. loops_well: whether the update is as fast inside of a
    loop; who asks for several updates gets the loop all the same. The plan does not know when reports and checkpoints
    are due, so that these can change without a new compilation.
    """
    looped = loops_well or (stacks and steps_per_dispatch > 1)
    together = looped and stacks
    return DispatchPlan(looped, together, min(steps_per_dispatch or MOST_AT_ONCE, steps_per_epoch) if together else 1)


def keep_first_alarm(watch: Batch, newest: Batch, max_skipped_steps: int) -> Batch:
    """Returns `newest`, but step and skipped_in_a_row of `watch` where too many had been skipped by then.

    The run is stopped by these two, and they should say where it first was due, however many updates came after.
    """
    alarmed = watch["skipped_in_a_row"] >= max_skipped_steps
    kept = {name: jnp.where(alarmed, watch[name], newest[name]) for name in ("step", "skipped_in_a_row")}
    return newest | kept


def repeat(train_step: TrainStep, stacked: bool, max_skipped_steps: int) -> Dispatch:
    """Returns (state, seed, data, batches, count) to (state, watch): `count` updates, int32, at least 1.

    batches: every leaf with a first axis [capacity, ...] of which the first `count` are taken; without `stacked`, the
    batch of the only update. watch: of the last update, see `make_train_step` and `keep_first_alarm`.
    """

    def dispatch(
        state: TrainState, seed: jax.Array, data: Batch, batches: Batch, count: jax.Array
    ) -> tuple[TrainState, Batch]:
        def update(n: jax.Array, carried: tuple[TrainState, Batch]) -> tuple[TrainState, Batch]:
            state, watch = carried
            batch = {name: leaf[n] for name, leaf in batches.items()} if stacked else batches
            state, newest = train_step(state, seed, data, batch)
            return state, keep_first_alarm(watch, newest, max_skipped_steps)

        # Of a state that is resumed in the middle of skipped updates the next one decides, as it does without a loop.
        nothing = jnp.zeros((), jnp.int32)
        watch = {"step": nothing, "skipped_in_a_row": nothing, "learning_rate": jnp.zeros((), jnp.float32)}
        after: tuple[TrainState, Batch] = jax.lax.fori_loop(0, count, update, (state, watch))
        return after

    return dispatch


def once(train_step: TrainStep) -> Dispatch:
    """Returns (state, seed, data, batch, count) to (state, watch): one update, without a loop; count is 1."""

    def dispatch(
        state: TrainState, seed: jax.Array, data: Batch, batch: Batch, count: jax.Array
    ) -> tuple[TrainState, Batch]:
        return train_step(state, seed, data, batch)

    return dispatch


def jit_dispatch(
    train_step: TrainStep,
    plan: DispatchPlan,
    mesh: Mesh,
    layout: TrainState | NamedSharding,
    max_skipped_steps: int,
    compiler_options: dict[str, Any],
) -> jax.stages.Wrapped:
    """Compiles a dispatch: each batch is split, the state lies as `layout` says; its memory is reused.

    layout: a sharding for each leaf of the state, or one for all.
    """
    whole = replicated(mesh)
    return jax.jit(
        repeat(train_step, plan.stacked, max_skipped_steps) if plan.looped else once(train_step),
        in_shardings=(layout, whole, whole, stacked(over_data(mesh)) if plan.stacked else over_data(mesh), whole),
        out_shardings=(layout, whole),
        donate_argnums=0,
        compiler_options=compiler_options,
    )


def abstract_batches(batch: Shapes, plan: DispatchPlan) -> Shapes:
    """Returns the shapes of a dispatch's batches, with their layouts, from those of one batch."""
    if not plan.stacked:
        return batch
    return {
        name: jax.ShapeDtypeStruct((plan.capacity, *leaf.shape), leaf.dtype, sharding=stacked(leaf.sharding))
        for name, leaf in batch.items()
    }


def next_batches(inputs: InputPath, source: TrainInput, step: int, count: int, plan: DispatchPlan) -> Batch:
    """Returns the batches of `count` updates from `step` on, at most `plan.capacity`, as the program takes them."""
    if plan.stacked and inputs.stack:
        return inputs.stack(source, step, count, plan.capacity)
    return source.batch(step)
