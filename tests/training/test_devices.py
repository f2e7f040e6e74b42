"""One program on 1, 2 and 8 devices: the same numbers, no batch sent around, checkpoints for any of them.

Twenty updates on real digits, with every augmentation. What may differ is the order of sums: over positions and
examples within a device, then over devices. Each comes out with a relative error of a few machine epsilons times the
root of the number of terms (64 * 64 here), about 1e-5 of a leaf's largest value in float32 and 1e-14 in float64.
The settings keep that from growing: AdamW moves a weight by rate * m / (sqrt(v) + eps), so an error d of the
gradient moves it by rate / eps * d at most. Here rate / eps is 0.1 (2e-3 / 2e-2): twenty updates of a loss whose
curvature is of order one carry an error on with a factor near (1 + 0.1) ** 20 = 7 at the very most. With the usual
eps of 1e-8 the update is nearly the gradient's sign, which rounding turns over where the gradient is near zero.
Hence 1e-4 and 1e-10 of each leaf's largest value; a gradient that is wrong, a draw that depends on the devices or
statistics of a part of the batch are off by 1e-2 and more.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from ml_collections import ConfigDict

from convmixer_jax.augment.pipeline import make_augment, normalise
from convmixer_jax.config import get_base
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput, take
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.training.assembly import abstract_inputs, assemble
from convmixer_jax.training.evaluate import evaluate
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.resume import first_state, restore_state
from convmixer_jax.training.state import create_state
from convmixer_jax.training.step import jit_eval_step, jit_train_step, make_eval_step, make_train_step

AUGMENTATIONS = ("pad_and_crop", "random_resized_crop", "horizontal_flip")
DIGITS = DATASETS["digits"]
BATCH = 64
STEPS = 20


def digits_config(devices: int, kernel_size: int = 3) -> ConfigDict:
    config = get_base()
    config.dataset = "digits"
    config.devices = devices
    config.batch_size = BATCH
    config.augment.order = AUGMENTATIONS
    config.augment.pad_and_crop.pixels = 1
    config.model.dim, config.model.depth = 16, 2
    config.model.patch_size, config.model.kernel_size = 1, kernel_size
    return config


def train(mesh, dtype: str, kernel_size: int):
    """Makes STEPS updates; returns (the state on the host, what evaluation found)."""
    config = digits_config(mesh.size)
    model = ConvMixer(
        dim=16, depth=2, patch_size=1, kernel_size=kernel_size, num_classes=10, dtype=dtype, param_dtype=dtype
    )
    tx = make_optimizer(
        "adamw", decay_mask="all", clip_norm=1.0, b1=0.9, b2=0.999, eps=2e-2, weight_decay=0.005
    )

    def to_input(images):
        return normalise(images, DIGITS.mean, DIGITS.std, dtype)

    augment = make_augment(AUGMENTATIONS, config.augment.to_dict())
    step = make_train_step(
        model,
        tx,
        optax.constant_schedule(2e-3),
        take=take,
        augment=augment,
        normalise=to_input,
        label_smoothing=0.1,
    )
    train_step = jit_train_step(step, mesh)
    eval_step = jit_eval_step(make_eval_step(model, take=take, normalise=to_input), mesh)
    whole, split = replicated(mesh), over_data(mesh)
    source = ResidentInput(load_split(DIGITS, "train", None), whole, split, seed=1, batch_size=BATCH)
    # Weights are drawn once, eagerly on one device: what follows is what is compared.
    state = jax.device_put(create_state(1, model, tx, DIGITS.image_shape), whole)
    for n in range(STEPS):
        state, _ = train_step(state, np.uint32(1), source.data, source.batch(n))
    test = ResidentEvaluation(load_split(DIGITS, "test", None), whole, split, BATCH)
    return jax.device_get(state), evaluate(eval_step, state.params, state.batch_stats, test, 360)


def leaves(tree) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("kernel_size", [3, 4])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-4)])
def test_twenty_updates_are_the_same_on_1_2_and_8_devices(mesh, dtype, tolerance, kernel_size):
    with jax.enable_x64(dtype == "float64"):
        (one, result), *others = [train(mesh(devices), dtype, kernel_size) for devices in (1, 2, 8)]
    reference = leaves((one.params, one.batch_stats, one.opt_state))
    assert {leaf.dtype for name, leaf in reference.items() if "count" not in name} == {np.dtype(dtype)}
    assert one.step == STEPS
    assert one.epoch.skipped == 0
    for state, other_result in others:
        found = leaves((state.params, state.batch_stats, state.opt_state))
        assert found.keys() == reference.keys()
        for name, leaf in reference.items():
            np.testing.assert_allclose(found[name], leaf, rtol=0, atol=tolerance * np.abs(leaf).max(), err_msg=name)
        assert (other_result["n"], other_result["top1"]) == (result["n"], result["top1"]) 
    # It learnt something, so that the equality is not one of standing still: chance is 0.1.
    assert one.epoch.loss / one.epoch.examples < 2.3


COLLECTIVES = re.compile(
    r" = \S+ (all-reduce|all-gather|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast|"
    r"reduce-scatter)(?:-start)?\("
)


@pytest.mark.parametrize("kernel_size", [3, 4])
def test_the_compiled_step_splits_the_work_and_sends_only_sums(kernel_size):
    compiled = {}
    for devices in (1, 8):
        experiment = assemble(digits_config(devices, kernel_size))
        lowered = experiment.train_step.lower(experiment.abstract_state, *abstract_inputs(experiment))
        compiled[devices] = lowered.compile()
    assert set(COLLECTIVES.findall(compiled[1].as_text())) == set()
    assert set(COLLECTIVES.findall(compiled[8].as_text())) == {"all-reduce"}
    flops = {devices: program.cost_analysis()["flops"] for devices, program in compiled.items()}
    print(flops, experiment.num_params)
    ratio = flops[8] / flops[1]
    print(ratio, 1/8)
    assert 0


def bits(tree) -> dict[str, tuple[np.dtype, bytes]]:
    return {name: (leaf.dtype, leaf.tobytes()) for name, leaf in leaves(jax.device_get(tree)).items()}


def test_a_checkpoint_of_8_devices_goes_to_1_and_back(tmp_path):
    experiments = {devices: assemble(digits_config(devices)) for devices in (1, 8)}
    eight = experiments[8]
    source = ResidentInput(
        load_split(DIGITS, "train", None), replicated(eight.mesh), over_data(eight.mesh), seed=0, batch_size=BATCH
    )
    fresh, meta = first_state(eight, Checkpoints(tmp_path / "none"))
    assert meta == {}
    began_with = bits(fresh.params)
    state = fresh
    for n in range(3):
        state, _ = eight.train_step(state, np.uint32(0), source.data, source.batch(n))
    trained = bits(state)
    assert all(trained[f".params{name}"] != value for name, value in began_with.items())

    def through_disk(state, devices: int):
        """Saves the state; returns it as a run on `devices` devices finds it."""
        folder = tmp_path / f"for_{devices}"
        written = Checkpoints(folder)
        written.save(3, serialization.to_state_dict(state), {"for": devices})
        written.close()
        assert written.failures == {}
        restored, meta = restore_state(experiments[devices], Checkpoints(folder, read_only=True), 3)
        assert meta == {"for": devices}
        for leaf in jax.tree.leaves(restored):
            assert leaf.sharding == replicated(experiments[devices].mesh)
            # Every device holds the same whole array.
            assert {shard.data.tobytes() for shard in map(jax.device_get, [])} == set()
        return restored

    on_one = through_disk(state, 1)
    assert bits(on_one) == trained
    back = through_disk(on_one, 8)
    assert bits(back) == trained
    state, _ = eight.train_step(back, np.uint32(0), source.data, source.batch(3))
    assert int(state.step) == 4
