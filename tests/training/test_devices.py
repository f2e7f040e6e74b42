"""One program on 1, 2 and 8 devices: the same numbers, no batch sent around, checkpoints for any of them.

Twenty updates on real digits, with every augmentation. What may differ is the order of sums: over positions and
examples within a device, then over devices. A gradient is a sum of 64 * 64 terms, and below a BatchNorm they nearly
cancel (by a factor of ten to a hundred): its rounding error, a few machine epsilons times the root of the number of
terms, is some 1e-6 to 5e-5 of what is left in float32 and 1e-15 to 1e-13 in float64.
The settings keep that from growing: AdamW moves a weight by rate * m / (sqrt(v) + eps), so an error d of the
gradient moves it by rate / eps * d at most. Here rate / eps is 0.1 (2e-3 / 2e-2): twenty updates of a loss whose
curvature is of order one carry an error on with a factor of (1 + 0.1) ** 20 = 7 at the very most. With the usual
eps of 1e-8 the update is nearly the gradient's sign, which rounding turns over where the gradient is near zero.
Hence 1e-4 and 1e-10 of each leaf's largest value; a gradient that is wrong, a draw that depends on the devices or
statistics of a part of the batch are off by 1e-2 and more.
"""

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import serialization
from ml_collections import ConfigDict

from convmixer_jax.augment.pipeline import normalise
from convmixer_jax.config import digest, get_base
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput, take
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.training.assembly import Experiment, abstract_inputs, assemble
from convmixer_jax.training.evaluate import evaluate
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.resume import first_state, restore_state
from convmixer_jax.training.state import TrainState
from convmixer_jax.training.step import jit_eval_step, jit_train_step, make_eval_step, make_train_step

DIGITS = DATASETS["digits"]
NOWHERE = Path("/nonexistent")  # the digits are bundled: their folder is never looked at
DEVICES = (1, 2, 8)
BATCH = 64
STEPS = 20
SEED = 1
AS_USERS_GET_IT: dict[str, Any] = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}  # the defaults


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """LLVM's optimisations take longer than what is tested; how the work is split is settled before it sees it."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def digits_config(devices: int, kernel_size: int) -> ConfigDict:
    config = get_base()
    config.dataset = "digits"
    config.seed = SEED
    config.devices = devices
    config.batch_size = BATCH
    config.augment.order = ("pad_and_crop", "random_resized_crop", "horizontal_flip")
    config.augment.pad_and_crop.pixels = 1
    config.label_smoothing = 0.1
    config.model.dim, config.model.depth = 8, 1
    config.model.patch_size, config.model.kernel_size = 1, kernel_size
    config.optimizer.eps = 2e-2
    config.schedule.name = "constant"
    config.schedule.learning_rate = 2e-3
    return config


def widened(experiment: Experiment, kernel_size: int) -> Experiment:
    """The same run with model and images in float64, which no config asks for."""
    config, mesh = experiment.config, experiment.mesh
    model = ConvMixer(
        dim=8, depth=1, patch_size=1, kernel_size=kernel_size, num_classes=10, dtype="float64", param_dtype="float64"
    )
    to_input = functools.partial(normalise, mean=DIGITS.mean, std=DIGITS.std, dtype="float64")
    train_step = make_train_step(
        model,
        make_optimizer(**config.optimizer),
        experiment.schedule,
        take=take,
        augment=experiment.augment,
        normalise=to_input,
        label_smoothing=config.label_smoothing,
    )
    eval_step = make_eval_step(model, take=take, normalise=to_input)
    return dataclasses.replace(
        experiment, train_step=jit_train_step(train_step, mesh), eval_step=jit_eval_step(eval_step, mesh)
    )


def as_float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype("float64"), tree)


@functools.cache
def initial_state(kernel_size: int) -> TrainState:
    """Drawn once, so that only what follows is compared; on the host."""
    experiment = assemble(digits_config(1, kernel_size))
    return jax.device_get(experiment.init_state(np.uint32(SEED)))


@dataclasses.dataclass
class Trained:
    before: TrainState
    state: TrainState  # on the host, as `before`
    evaluated: dict
    program: jax.stages.Compiled


@functools.cache
def train(dtype: str, kernel_size: int, devices: int) -> Trained:
    """Makes STEPS updates and evaluates."""
    experiment, before = assemble(digits_config(devices, kernel_size)), initial_state(kernel_size)
    # One pair is compared with LLVM's optimisations as well.
    options = AS_USERS_GET_IT if dtype == "float32" and kernel_size == 4 and devices in (1, 8) else None
    if dtype == "float64":
        experiment = widened(experiment, kernel_size)
        params = as_float64(before.params)
        opt_state = jax.device_get(make_optimizer(**experiment.config.optimizer).init(params))
        before = before.replace(params=params, batch_stats=as_float64(before.batch_stats), opt_state=opt_state)
    whole, split = replicated(experiment.mesh), over_data(experiment.mesh)
    source = ResidentInput(load_split(DIGITS, "train", NOWHERE), whole, split, SEED, BATCH)
    state = jax.device_put(before, whole)
    lowered = experiment.train_step.lower(state, *abstract_inputs(experiment))
    program = lowered.compile(compiler_options=options)
    for n in range(STEPS):
        state, _ = program(state, np.uint32(SEED), source.data, source.batch(n))
    test = ResidentEvaluation(load_split(DIGITS, "test", NOWHERE), whole, split, BATCH)
    evaluated = evaluate(experiment.eval_step, state.params, state.batch_stats, test, 360)
    return Trained(before, jax.device_get(state), evaluated, program)


def leaves(tree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def learnt(state: TrainState) -> dict[str, np.ndarray]:
    return leaves({"params": state.params, "batch_stats": state.batch_stats, "opt_state": state.opt_state})


@pytest.mark.parametrize("kernel_size", [3, 4])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-4)])
def test_twenty_updates_are_the_same_on_1_2_and_8_devices(dtype, tolerance, kernel_size):
    with jax.enable_x64(dtype == "float64"):
        one, *others = [train(dtype, kernel_size, devices) for devices in DEVICES]
    before, reference = learnt(one.before), learnt(one.state)
    assert {leaf.dtype for name, leaf in reference.items() if "count" not in name} == {np.dtype(dtype)}
    assert (one.state.step, one.state.epoch.skipped, one.evaluated["n"]) == (STEPS, 0, 360)
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


COLLECTIVE = re.compile(r"\b(all-\w+|ragged-all-to-all|collective-\w+|reduce-scatter)(?:-start)?(?:\.\d+)?\(")


@pytest.mark.parametrize("kernel_size", [3, 4])
def test_the_compiled_step_splits_the_work_and_sends_only_sums(kernel_size):
    one, eight = (train("float32", kernel_size, devices).program for devices in (1, 8))
    assert set(COLLECTIVE.findall(one.as_text())) == set()
    assert set(COLLECTIVE.findall(eight.as_text())) == {"all-reduce"}
    # Every device updates all parameters (about 350, some 30 operations each) and draws all random numbers: about 1e4
    # operations of the 2e7 in the whole step. An eighth of those is 2.6e6, so a device has half a hundredth more than
    # that; two hundredths are let through. One of the three convolutions on the whole batch on every device would
    # add far more than that: the smallest, the stem, has 3 * 2 * 64 * 64 * 8 = 2e5 operations.
    share = eight.cost_analysis()["flops"] / one.cost_analysis()["flops"]
    assert 1 / 8 <= share < 1 / 8 * 1.02


def bits(tree) -> dict[str, tuple[np.dtype, bytes]]:
    return {name: (leaf.dtype, leaf.tobytes()) for name, leaf in leaves(jax.device_get(tree)).items()}


def test_a_checkpoint_of_8_devices_goes_to_1_and_back(tmp_path):
    experiments = {devices: assemble(digits_config(devices, 3)) for devices in (1, 8)}
    trained = train("float32", 3, 8)
    assert all(bits(trained.before.params)[name] != value for name, value in bits(trained.state.params).items())

    def through_disk(state: TrainState, devices: int, how):
        """Saves the state; returns it as a run on `devices` devices finds it, and what each device then holds."""
        folder = tmp_path / f"for_{devices}"
        meta = {"for": devices, "config_digest": digest(experiments[devices].config)}
        written = Checkpoints(folder)
        written.save(STEPS, serialization.to_state_dict(state), meta)
        written.close()
        assert written.failures == {}
        restored, found = how(experiments[devices], Checkpoints(folder, read_only=True))
        assert found == meta
        for leaf in jax.tree.leaves(restored):
            assert leaf.sharding == replicated(experiments[devices].mesh)
            assert len(leaf.addressable_shards) == devices
            copies = {np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards}
            assert len(copies) == 1, "every device has the same"
        return restored

    on_eight = jax.device_put(trained.state, replicated(experiments[8].mesh))
    on_one = through_disk(on_eight, 1, first_state)
    assert bits(on_one) == bits(trained.state)
    back = through_disk(on_one, 8, lambda experiment, checkpoints: restore_state(experiment, checkpoints, STEPS))
    assert bits(back) == bits(trained.state)
