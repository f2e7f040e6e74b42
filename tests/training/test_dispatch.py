"""The compiled dispatch: so many updates as asked for, each on its own batch, and what is told of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.config import get_base
from convmixer_jax.data.inputs import INPUTS
from convmixer_jax.data.resident import ResidentInput
from convmixer_jax.training import assembly
from convmixer_jax.training.dispatch import DispatchPlan, abstract_batches, next_batches, once, plan_dispatches, repeat
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.metrics import TrainSums
from convmixer_jax.training.program import loop_warning
from convmixer_jax.training.runner import describe_run
from convmixer_jax.training.state import TrainState
from tests.data.images import numbered

LIMIT = 3  # updates in a row that are left out before a run stops


def number_after(number, value):
    """A number that tells which values came before, and in which order."""
    return number * 7 + value


def toy_step(state, seed, data, batch):
    """Takes a batch into a number; a negative one is left out."""
    number = number_after(state.params, batch["value"].sum() + data["offset"] + seed.astype(jnp.int32))
    left_out = batch["value"].min() < 0
    skipped = jnp.where(left_out, state.skipped_in_a_row + 1, 0)
    state = state.replace(
        step=state.step + 1, params=jnp.where(left_out, state.params, number), skipped_in_a_row=skipped
    )
    return state, {"step": state.step, "skipped_in_a_row": skipped, "learning_rate": state.step / jnp.float32(8)}


def toy_state(step: int = 0, skipped: int = 0) -> TrainState:
    sums = TrainSums.zeros()
    return TrainState(jnp.int32(step), jnp.int32(0), {}, {}, (), jnp.int32(skipped), sums, sums)


PROGRAM = jax.jit(repeat(toy_step, stacked=True, max_skipped_steps=LIMIT))
DATA = {"offset": jnp.int32(100)}


def dispatch(state, values, count):
    """Makes `count` updates with one-number batches of the values."""
    batches = {"value": jnp.asarray(values, jnp.int32)[:, None]}
    return PROGRAM(state, np.uint32(5), DATA, batches, np.int32(count))


# All of these are one program: nothing is compiled for another number.
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_first_batches_are_taken_in_order(count):
    state, watch = dispatch(toy_state(), [1, 2, 3, 4, 5], count)
    number = 0
    for value in range(1, count + 1):
        number = number_after(number, value + 105)
    assert (int(state.params), int(state.step)) == (number, count)
    assert jax.tree.map(float, watch) == {"step": count, "skipped_in_a_row": 0, "learning_rate": count / 8}


# Values of a dispatch, negative ones left out; then the step and the number in a row that the run looks at.
ALARMS = {
    "none": ([1, -1, -1, 1], 0, (4, 0)),
    "at the end": ([1, -1, -1, -1], 0, (4, 3)),
    "and more after it": ([-1, -1, -1, -1], 0, (3, 3)),
    "over before the end": ([-1, -1, -1, 1], 0, (3, 3)),
    "begun in the dispatch before": ([-1, -1, 1, 1], 1, (2, 3)),
    "a resumed run that goes well": ([1, 1, 1, 1], 3, (4, 0)),
    "a resumed run that does not": ([-1, 1, 1, 1], 3, (1, 4)),
}


@pytest.mark.parametrize("values, before, seen", ALARMS.values(), ids=ALARMS)
def test_the_first_alarm_of_a_dispatch_is_kept(values, before, seen):
    state, watch = dispatch(toy_state(skipped=before), values, 4)
    assert (int(watch["step"]), int(watch["skipped_in_a_row"])) == seen
    # All that is not the alarm is of the last update.
    assert (int(state.step), float(watch["learning_rate"])) == (4, 0.5)


def test_one_batch_that_is_not_stacked():
    batch = {"value": jnp.asarray([4], jnp.int32)}
    wanted, watch = toy_step(toy_state(), jnp.uint32(5), DATA, batch)
    for program in (once(toy_step), repeat(toy_step, stacked=False, max_skipped_steps=LIMIT)):
        state, seen = jax.jit(program)(toy_state(), np.uint32(5), DATA, batch, np.int32(1))
        assert jax.tree.map(float, (state, seen)) == jax.tree.map(float, (wanted, watch))


# Field, updates in an epoch, whether the input gives several, whether loops are quick; looped, stacked, capacity.
PLANS = [
    ((0, 97, True, True), (True, True, 64)),
    ((0, 9, True, True), (True, True, 9)),
    ((1, 97, True, True), (True, True, 1)),
    ((200, 97, True, True), (True, True, 97)),
    ((8, 97, True, True), (True, True, 8)),
    ((8, 97, False, True), (True, False, 1)),
    ((0, 97, False, True), (True, False, 1)),
    ((0, 97, True, False), (False, False, 1)),
    ((1, 97, True, False), (False, False, 1)),
    ((8, 97, True, False), (True, True, 8)),
    ((8, 97, False, False), (False, False, 1)),
]


@pytest.mark.parametrize("asked, plan", PLANS)
def test_plans(asked, plan):
    steps, epoch, stacks, loops_well = asked
    assert plan_dispatches(steps, epoch, stacks=stacks, loops_well=loops_well) == DispatchPlan(*plan)


@pytest.mark.parametrize("devices", [1, 8])
def test_batches_are_as_the_program_expects_them(mesh, devices):
    grid, path = mesh(devices), INPUTS["resident"]
    layout = replicated(grid), over_data(grid)
    source = ResidentInput(numbered(50), *layout, seed=3, batch_size=16)
    _, abstract = path.abstract(50, (4, 4, 3), 16, *layout)
    for plan in (DispatchPlan(True, True, 4), DispatchPlan(True, False, 1), DispatchPlan(False, False, 1)):
        given = next_batches(path, source, 2, 1, plan)
        expected = abstract_batches(abstract, plan)
        for name, leaf in expected.items():
            assert (given[name].shape, given[name].dtype) == (leaf.shape, leaf.dtype)
            assert given[name].sharding.is_equivalent_to(leaf.sharding, len(leaf.shape))
        assert given.keys() == expected.keys()


# Operations, input path and field; whether the program loops, and how many updates it can make.
CPU_PLANS = [
    (("reference", "resident", 0), (False, 1)),
    (("reference", "resident", 5), (True, 5)),
    (("reference", "stream", 5), (False, 1)),
    (("auto", "resident", 0), (True, 64)),
    (("auto", "resident", 5), (True, 5)),
    (("auto", "stream", 5), (True, 1)),
]


@pytest.mark.parametrize("asked, planned", CPU_PLANS)
def test_a_cpu_loops_with_quick_operations_or_when_asked(asked, planned):
    config = get_base()
    config.model.ops, config.input, config.steps_per_dispatch = asked
    config.dataset, config.devices, config.batch_size = "digits", 1, 16
    config.model.dim, config.model.depth, config.model.patch_size, config.model.kernel_size = 4, 1, 1, 3
    config.augment.order = ()
    experiment = assembly.assemble(config)
    assert (experiment.plan.looped, experiment.plan.capacity) == planned
    _, *warnings, _ = describe_run(experiment, 0).splitlines()
    if asked != ("reference", "resident", 5):
        assert warnings == []
        return
    assert warnings == [
        "warning: config.steps_per_dispatch is 5: on a cpu the operations 'reference' are many times slower inside of "
        "a loop of updates; set config.steps_per_dispatch=0, or take config.model.ops=auto"
    ]
    config.model.norm = "layer"  # which the quick operations do not know
    assert loop_warning(experiment).endswith("; set config.steps_per_dispatch=0")
