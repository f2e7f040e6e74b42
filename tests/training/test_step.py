"""The compiled step: soft targets, loss, the draws of augmentation, reuse of memory, and what stays float32."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convmixer_jax.augment.pipeline import make_augment, normalise
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.resident import ResidentInput, take
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.prepare import smooth_targets
from convmixer_jax.training.state import create_state
from convmixer_jax.training.step import make_eval_step
from tests.training.steps import bits, jit_once, no_gather, plain_step

DIGITS = DATASETS["digits"]
NOWHERE = Path("/nonexistent")  # the digits are bundled: their folder is never looked at
PAD = {"pad_and_crop": {"pixels": 1, "mode": "zero"}}
TX = make_optimizer("adamw", decay_mask="all", clip_norm=1.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.005)


@pytest.mark.parametrize(
    "smoothing, on, off", [(0.0, 1.0, 0.0), (0.1, 0.925, 0.025), (0.4, 0.7, 0.1), (0.8, 0.4, 0.2)]
)  # fmt: skip
def test_smooth_targets_by_hand(smoothing, on, off):
    # Four classes: the label keeps 1 - s and, like each of the others, gets s / 4.
    targets = smooth_targets(jnp.array([2, 0]), 4, smoothing)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets, [[off, off, on, off], [on, off, off, off]], rtol=0, atol=1e-7)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=0, atol=2e-7)  # four roundings of half an ulp of 1


pytestmark = pytest.mark.usefixtures("quick_compilation")


@functools.cache
def first_state():
    model = ConvMixer(dim=8, depth=1, patch_size=1, kernel_size=3, num_classes=10)
    create = functools.partial(create_state, model=model, tx=TX, image_shape=DIGITS.image_shape)
    return jax.device_get(jax.jit(create)(np.uint32(0)))


@functools.cache
def small_run(grid, **settings):
    return SmallRun(grid, **settings)


class SmallRun:
    """A small run on digits: its compiled step, first state and batches."""

    def __init__(self, grid, *, augmentations=(), smoothing=0.0, dtype="float32"):
        self.model = ConvMixer(dim=8, depth=1, patch_size=1, kernel_size=3, num_classes=10, dtype=dtype)
        self.normalise = functools.partial(normalise, mean=DIGITS.mean, std=DIGITS.std, dtype=dtype)
        augment = make_augment(augmentations, PAD, self.normalise)
        rate = optax.constant_schedule(1e-3)
        step = plain_step(self.model, TX, rate, take=take, augment=augment, label_smoothing=smoothing)
        self.whole = replicated(grid)
        self.step = jit_once(step, grid)
        self.train = load_split(DIGITS, "train", NOWHERE)
        self.source = ResidentInput(self.train, self.whole, over_data(grid), seed=0, batch_size=32)

    def first_state(self, **changes):
        # Fresh buffers each time: the step takes over those that it is given.
        return jax.device_put(first_state().replace(**changes), self.whole)

    def update(self, state, seed=0, batch=0):
        return self.step(state, np.uint32(seed), self.source.data, self.source.batch(batch), np.int32(1))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_cross_entropy_with_the_soft_targets(mesh, smoothing):
    run = small_run(mesh(1), smoothing=smoothing)
    state = run.first_state()
    index = np.asarray(run.source.batch(0)["index"])
    images = run.normalise(jnp.asarray(run.train.image[index]))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits, _ = run.model.apply(variables, images, train=True, mutable=["batch_stats"])
    logits = np.asarray(logits, np.float64)
    targets = np.full((32, 10), smoothing / 10)
    targets[np.arange(32), run.train.label[index]] += 1 - smoothing
    loss = -np.sum(targets * log_softmax(logits))
    top1 = np.sum(logits.argmax(axis=1) == run.train.label[index])
    state, watch = run.update(state)
    # A sum of 320 products in float32, each rounded to 6e-8, compiled in another order than here.
    assert float(state.report.loss) == pytest.approx(loss, rel=1e-5)
    assert int(state.report.top1) == top1
    assert (int(state.report.examples), int(state.report.updates), int(watch["step"])) == (32, 1, 1)
    assert jax.tree.map(float, state.epoch) == jax.tree.map(float, state.report)


def whole_batch(data, batch):
    """In the place of what takes examples by their numbers."""
    return batch


def test_augmentation_is_keyed_by_seed_and_step(mesh):
    run = small_run(mesh(1), augmentations=("pad_and_crop",))
    result = bits(run.update(run.first_state(), seed=7)[0].params)
    assert bits(run.update(run.first_state(), seed=7)[0].params) == result, "same state and seed"
    assert bits(run.update(run.first_state(), seed=8)[0].params) != result, "another seed"
    later = run.first_state(step=np.int32(1))
    assert bits(run.update(later, seed=7)[0].params) != result, "the same batch at another step"
    plain = small_run(mesh(1))
    assert bits(plain.update(plain.first_state(), seed=7)[0].params) != result, "the augmentation does something"


def test_without_augmentation_neither_seed_nor_step_matters(mesh):
    # The other side of the test above: what differed there came from the draws alone (the rate is constant).
    run = small_run(mesh(1))
    result = bits(run.update(run.first_state(), seed=7)[0].params)
    assert bits(run.update(run.first_state(step=np.int32(5)), seed=8)[0].params) == result


@pytest.mark.parametrize("devices", [1, 8])
def test_the_state_is_donated(mesh, devices):
    run = small_run(mesh(devices))
    before = run.first_state()
    after, _ = run.update(before)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((after, run.source.data)))


def test_bfloat16_is_for_the_computation_alone(mesh):
    run = small_run(mesh(1), dtype="bfloat16")
    state = run.first_state()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    image = jnp.asarray(run.train.image[:4])
    assert run.normalise(image).dtype == jnp.bfloat16
    assert run.model.apply(variables, run.normalise(image), train=False).dtype == jnp.bfloat16

    before = jax.device_get(state)
    state, _ = run.update(state)
    learnt = jax.tree.leaves((state.params, state.batch_stats, state.opt_state))
    assert {leaf.dtype for leaf in learnt} == {np.dtype("float32"), np.dtype("int32")}
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [leaf.dtype for leaf in jax.tree.leaves(before)]
    # A weight of 0.1 has steps of 4e-4 in bfloat16: the first update of AdamW, 1e-3 * (1 + decay), would be rounded
    # to 8e-4 or 12e-4 were the weights kept in it.
    moved = np.abs(np.asarray(state.params["head"]["kernel"]) - before.params["head"]["kernel"])
    assert np.median(moved) == pytest.approx(1e-3, rel=0.01)

    # The loss is made in float32 of the bfloat16 logits: were it bfloat16, it would be on a grid of 2 ** -6 near 2.3.
    sums = jax.eval_shape(
        make_eval_step(
            run.model, take=lambda data, batch: batch, normalise=run.normalise, flip=False, gather=no_gather
        ),
        state.params,
        state.batch_stats,
        {},
        {"image": image, "label": np.zeros(4, np.int32), "mask": np.ones(4, bool)},
    )
    assert sums.loss.dtype == np.float32
    mean = float(state.report.loss) / 32
    assert mean * 64 != round(mean * 64)
