"""Twenty updates of a small model on the digits, by a run's own program, on any number of devices; how far they differ.

What may differ is the order of sums: over positions and examples within a device, then over devices. A gradient is a
sum of 64 * 64 terms, and below a BatchNorm they nearly cancel (by a factor of ten to a hundred): its rounding error, a
few machine epsilons times the root of the number of terms, is some 1e-6 to 5e-5 of what is left in float32 and 1e-15
to 1e-13 in float64.
The settings keep that from growing: AdamW moves a weight by rate * m / (sqrt(v) + eps), so an error d of the
gradient moves it by rate / eps * d at most. Here rate / eps is 0.1 (2e-3 / 2e-2): twenty updates of a loss whose
curvature is of order one carry an error on with a factor of (1 + 0.1) ** 20 = 7 at the very most. With the usual
eps of 1e-8 the update is nearly the gradient's sign, which rounding turns over where the gradient is near zero.
Hence TOLERANCES of each leaf's largest value; a gradient that is wrong, a draw that depends on the devices or
statistics of a part of the batch are off by 1e-2 and more.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from convmixer_jax.augment.pipeline import make_augment, normalise
from convmixer_jax.config import get_base
from convmixer_jax.config_record import digest
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput, take
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.training.assembly import Experiment, abstract_arguments, assemble
from convmixer_jax.training.dispatch import jit_dispatch, next_batches
from convmixer_jax.training.evaluate import evaluate
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.resume import restore_state
from convmixer_jax.training.state import TrainState, to_tree
from convmixer_jax.training.step import jit_eval_step, make_eval_step
from tests.training.steps import leaves, no_gather, plain_step

DIGITS = DATASETS["digits"]
NOWHERE = Path("/nonexistent")  # the digits are bundled: their folder is never looked at
BATCH = 64
# Updates of a dispatch, one after the other: the program takes eight at most.
DISPATCHES = (1, 8, 3, 8)
STEPS = sum(DISPATCHES)
SEED = 1
AS_USERS_GET_IT: dict[str, Any] = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}  # the defaults
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}


def digits_config(
    devices: int,
    kernel_size: int,
    order: tuple[str, ...] = ("pad_and_crop", "random_resized_crop", "horizontal_flip"),
    ops: str = "channel_major",
    bn_group_size: int = 0,
    **changes: Any,
) -> ConfigDict:
    """Order: of augmentations. ops, bn_group_size: config.model's. changes: of top-level fields."""
    config = get_base()
    config.dataset = "digits"
    config.seed = SEED
    config.devices = devices
    config.batch_size = BATCH
    config.steps_per_dispatch = max(DISPATCHES)
    config.augment.order = order
    config.augment.pad_and_crop.pixels = 1
    config.label_smoothing = 0.1
    config.model.dim, config.model.depth = 8, 1
    config.model.patch_size, config.model.kernel_size, config.model.ops = 1, kernel_size, ops
    config.model.bn_group_size = bn_group_size
    config.optimizer.eps = 2e-2
    config.schedule.name = "constant"
    config.schedule.learning_rate = 2e-3
    config.update(changes)
    return config


def widened(experiment: Experiment, kernel_size: int) -> Experiment:
    """The same run with model and images in float64, which no config asks for."""
    config, mesh = experiment.config, experiment.mesh
    shape: dict[str, Any] = {"dim": 8, "depth": 1, "patch_size": 1, "kernel_size": kernel_size, "num_classes": 10}
    model = ConvMixer(**shape, ops=config.model.ops, mesh=mesh, dtype="float64", param_dtype="float64")
    to_input = functools.partial(normalise, mean=DIGITS.mean, std=DIGITS.std, dtype="float64")
    augment = make_augment(config.augment.order, config.augment.to_dict(), to_input)
    tx, smoothing = make_optimizer(**config.optimizer), config.label_smoothing
    train_step = plain_step(model, tx, experiment.schedule, take=take, augment=augment, label_smoothing=smoothing)
    eval_step, whole = (
        make_eval_step(model, take=take, normalise=to_input, flip=False, gather=no_gather),
        replicated(mesh),
    )
    return dataclasses.replace(
        experiment,
        dispatch=jit_dispatch(train_step, experiment.plan, mesh, whole, config.max_skipped_steps, {}),
        eval_step=jit_eval_step(eval_step, mesh, whole, {}),
    )


def as_float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype("float64"), tree)


@functools.cache
def initial_state(kernel_size: int, ema_decay: float) -> TrainState:
    """Drawn once, so that only what follows is compared; on the host."""
    experiment = assemble(digits_config(1, kernel_size, ema_decay=ema_decay))
    return jax.device_get(experiment.init_state(np.uint32(SEED)))


@dataclasses.dataclass
class Trained:
    experiment: Experiment
    before: TrainState
    state: TrainState  # on the host, as `before`
    on_devices: TrainState
    evaluated: dict
    program: jax.stages.Compiled


@functools.cache
def train(dtype: str, kernel_size: int, devices: int, as_users: bool = True, **changes: Any) -> Trained:
    """Makes STEPS updates and evaluates. as_users: False for a quicker compilation, where numbers are not compared."""
    experiment = assemble(digits_config(devices, kernel_size, **changes))
    before = initial_state(kernel_size, experiment.config.ema_decay)
    # Without LLVM's optimisations thousands of numbers are added one after the other, which costs a digit.
    options = AS_USERS_GET_IT if as_users and dtype == "float32" else None
    if dtype == "float64":
        experiment = widened(experiment, kernel_size)
        params = as_float64(before.params)
        opt_state = jax.device_get(make_optimizer(**experiment.config.optimizer).init(params))
        before = before.replace(params=params, batch_stats=as_float64(before.batch_stats), opt_state=opt_state)
    whole, split = replicated(experiment.mesh), over_data(experiment.mesh)
    source = ResidentInput(load_split(DIGITS, "train", NOWHERE), whole, split, SEED, BATCH)
    state = jax.device_put(before, jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state))
    lowered = experiment.dispatch.lower(state, *abstract_arguments(experiment)[1:])
    program = lowered.compile(compiler_options=options)
    done = 0
    for count in DISPATCHES:
        batches = next_batches(experiment.inputs, source, done, count, experiment.plan)
        state, watch = program(state, np.uint32(SEED), source.data, batches, np.int32(count))
        done += count
        assert int(watch["step"]) == done
    test = ResidentEvaluation(load_split(DIGITS, "test", NOWHERE), whole, split, BATCH)
    evaluated = evaluate(experiment.eval_step, state.params, state.batch_stats, test, 360)
    return Trained(experiment, before, jax.device_get(state), state, evaluated, program)


def learnt(state: TrainState) -> dict[str, np.ndarray]:
    return leaves([state.params, state.batch_stats, state.ema, state.opt_state])


def assert_same_run(one: Trained, others: list[Trained], dtype: str = "float32") -> None:
    """Asserts that the others learnt and score what `one` did, and that it learnt something."""
    tolerance, before, reference = TOLERANCES[dtype], learnt(one.before), learnt(one.state)
    assert {leaf.dtype for name, leaf in reference.items() if "count" not in name} == {np.dtype(dtype)}
    assert (int(one.state.step), int(one.state.epoch.skipped), one.evaluated["n"]) == (STEPS, 0, 360)
    # Equality means nothing where nothing moved: each leaf moved by a twenty times the tolerance or more.
    for name, leaf in reference.items():
        assert np.abs(leaf - before[name]).max() > 20 * tolerance * np.abs(leaf).max(), name
    for other in others:
        found = learnt(other.state)
        assert found.keys() == reference.keys()
        for name, leaf in reference.items():
            np.testing.assert_allclose(found[name], leaf, rtol=0, atol=tolerance * np.abs(leaf).max(), err_msg=name)
        assert other.evaluated["n"] == 360
        assert other.evaluated["top1"] == one.evaluated["top1"]
        assert other.state.epoch.examples == one.state.epoch.examples == STEPS * BATCH


def through_disk(state: TrainState, folder: Path, experiment: Experiment) -> TrainState:
    """Saves the state; returns it as this experiment, on other devices perhaps, restores it."""
    meta = {"for": experiment.mesh.size, "config_digest": digest(experiment.config)}
    written = Checkpoints(folder)
    written.save(STEPS, to_tree(state), meta)
    written.close()
    assert written.failures == {}
    restored, found = restore_state(experiment, Checkpoints(folder, read_only=True), STEPS)
    assert found == meta
    for leaf, wanted in zip(*map(jax.tree.leaves, (restored, experiment.abstract_state)), strict=True):
        assert leaf.sharding == wanted.sharding
        assert len(leaf.addressable_shards) == experiment.mesh.size
    return restored
