"""Evaluation counts every example once, and its numbers are those of a plain computation in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convmixer_jax.augment.pipeline import normalise
from convmixer_jax.data.datasets import Examples
from convmixer_jax.data.resident import ResidentEvaluation, take
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.evaluate import evaluate, evaluate_state
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.metrics import EvalSums, TrainSums, summarise_evaluation
from convmixer_jax.training.step import jit_eval_step, make_eval_step
from tests.training.steps import no_gather, random_state

COUNT = 10_000
BATCH = 384  # 26 batches and 16 examples more
MODEL = ConvMixer(dim=8, depth=1, patch_size=2, kernel_size=3, num_classes=10)
TO_INPUT = functools.partial(normalise, mean=(0.5,), std=(0.29,), dtype="float32")


@pytest.fixture(scope="module")
def synthetic():
    """Noise as images; the variables of a fresh model; its logits, float64 [COUNT, 10]; labels it is often right on."""
    random = np.random.Generator(np.random.PCG64(0))
    images = random.integers(0, 256, (COUNT, 8, 8, 1), np.uint8)
    variables = jax.jit(functools.partial(MODEL.init, train=False))(jax.random.key(0), np.zeros((1, 8, 8, 1)))
    apply = jax.jit(lambda images: MODEL.apply(variables, TO_INPUT(images), train=False))
    logits = np.asarray(apply(images), np.float64)
    # Any of the three largest logits' classes, or any class at all, so that top-1 and top-5 are neither 0 nor 1.
    ranked = np.argsort(-logits, axis=1)
    label = np.where(random.random(COUNT) < 0.7, ranked[np.arange(COUNT), random.integers(0, 3, COUNT)], 0)
    label = np.where(random.random(COUNT) < 0.3, random.integers(0, 10, COUNT), label)
    return Examples(images, label.astype(np.int32)), variables, logits


def in_numpy(logits: np.ndarray, label: np.ndarray) -> dict:
    of_label = logits[np.arange(len(label)), label][:, None]
    rank = np.sum(logits > of_label, axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(label)), label]
    right, examples = (np.bincount(classes, minlength=logits.shape[1]) for classes in (label[rank == 0], label))
    return {
        "n": len(label),
        "top1": np.mean(rank == 0),
        "top5": np.mean(rank < 5),
        "loss": losses.mean(),
        "per_class": (right / np.maximum(examples, 1)).tolist(),
    }


@functools.cache
def compiled(grid, flip: bool):
    step = make_eval_step(MODEL, take=take, normalise=TO_INPUT, flip=flip, gather=no_gather)
    return jit_eval_step(step, grid, replicated(grid), {})


def on_devices(grid, synthetic, expected: int = COUNT, flip: bool = False):
    examples, variables, _ = synthetic
    source = ResidentEvaluation(examples, replicated(grid), over_data(grid), BATCH)
    return evaluate(compiled(grid, flip), variables["params"], variables["batch_stats"], source, expected)


@pytest.mark.parametrize("devices", [1, 8])
def test_ten_thousand_images_in_batches_of_384(mesh, synthetic, devices):
    examples, _, logits = synthetic
    # Batches of another size are computed in another order, so logits differ by some 1e-6. Counts must be equal all
    # the same: no label's logit is that close to another one.
    gaps = np.abs(logits - logits[np.arange(COUNT), examples.label][:, None])
    gaps[np.arange(COUNT), examples.label] = np.inf
    assert gaps.min() > 1e-6
    wanted = in_numpy(logits, examples.label)
    assert 0.1 < wanted["top1"] < wanted["top5"] < 0.9
    found = on_devices(mesh(devices), synthetic)
    assert found["n"] == COUNT
    for name in ("top1", "top5", "per_class"):
        assert found[name] == wanted[name], name
    # 384 losses are added in float32, an error of some ulps (6e-8); batches are added in float64.
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)


def test_a_count_that_differs_is_an_error(mesh, synthetic):
    with pytest.raises(RuntimeError, match="evaluation counted 10000 examples of 9999"):
        on_devices(mesh(8), synthetic, expected=COUNT - 1)


def test_padding_counts_for_nothing(mesh, synthetic):
    # The first 5 examples in one batch of 384: the other 379 places hold example 0.
    examples, variables, logits = synthetic
    five = (examples.take(np.arange(5)), variables, logits[:5])
    found = on_devices(mesh(8), five, expected=5)
    wanted = in_numpy(logits[:5], examples.label[:5])
    assert (found["n"], found["top1"], found["top5"]) == (5, wanted["top1"], wanted["top5"])
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)


def logits_of(variables, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda x: MODEL.apply(variables, TO_INPUT(x), train=False))(images), np.float64)


@pytest.fixture(scope="module")
def mirrored(synthetic) -> np.ndarray:
    """The logits of each image's mirror image, float64 [COUNT, 10]."""
    examples, variables, _ = synthetic
    return logits_of(variables, examples.image[:, :, ::-1])


@pytest.mark.parametrize("devices", [1, 8])
def test_flips_add_the_logits_of_the_mirror_image(mesh, synthetic, mirrored, devices):
    examples, _, logits = synthetic
    added = logits + mirrored
    two_best = np.sort(added, axis=1)[:, -2:]
    clear = np.diff(two_best).min() > 1e-6  # as above: no best logit is that close to the next
    assert clear, np.diff(two_best).min()
    found, plain = (on_devices(mesh(devices), synthetic, flip=flip) for flip in (True, False))
    assert found["top1_flip"] == np.mean(added.argmax(axis=1) == examples.label)
    assert found["top1_flip"] not in (found["top1"], np.mean(mirrored.argmax(axis=1) == examples.label))
    # All else is of the images as they are.
    assert found.keys() - plain.keys() == {"top1_flip"}
    assert [found[name] for name in ("n", "top1", "per_class")] == [plain[name] for name in ("n", "top1", "per_class")]
    assert found["loss"] == pytest.approx(plain["loss"], rel=1e-6)


def test_padding_counts_for_nothing_with_flips(mesh, synthetic, mirrored):
    # The other 379 places hold example 0, whose label is made right for one test and wrong for the other.
    examples, variables, logits = synthetic
    best = (logits + mirrored)[:5].argmax(axis=1).astype(np.int32)
    for wrong in range(6):
        label = (best + (np.arange(5) < wrong)) % 10
        five = (Examples(examples.image[:5], label), variables, logits[:5])
        found = on_devices(mesh(8), five, expected=5, flip=True)
        assert found["top1_flip"] == (5 - wrong) / 5


def test_a_symmetric_model_gains_nothing_by_flips(mesh, synthetic):
    examples, variables, _ = synthetic
    symmetric = jax.tree.map(lambda leaf: (leaf + leaf[:, ::-1]) / 2 if leaf.ndim == 4 else leaf, variables)
    logits = logits_of(symmetric, examples.image)
    two_best = np.sort(logits, axis=1)[:, -2:]
    kept = np.flatnonzero(np.diff(two_best)[:, 0] > 1e-5)  # rounding differs between image and mirror image
    assert len(kept) > 0.99 * COUNT
    found = on_devices(mesh(8), (examples.take(kept), symmetric, None), expected=len(kept), flip=True)
    assert found["top1_flip"] == found["top1"] == np.mean(logits.argmax(axis=1)[kept] == examples.label[kept])


def test_raw_and_averaged_variables_are_both_scored(mesh, synthetic):
    examples, variables, logits = synthetic
    other = jax.tree.map(lambda leaf: -leaf if leaf.ndim == 2 else leaf, variables)  # the head turned over
    scores = {"raw": in_numpy(logits, examples.label)["top1"]}
    scores["ema"] = in_numpy(logits_of(other, examples.image), examples.label)["top1"]
    assert scores["raw"] != scores["ema"]
    state = random_state(MODEL, optax.identity(), (8, 8, 1)).replace(**variables, ema=dict(other))
    source = ResidentEvaluation(examples, replicated(mesh(8)), over_data(mesh(8)), BATCH)
    run = functools.partial(evaluate_state, compiled(mesh(8), False), source=source, expected=COUNT)
    for which, beside in (("raw", "ema"), ("ema", "raw")):
        alone = evaluate(compiled(mesh(8), False), **state.variables(which), source=source, expected=COUNT)
        assert run(state, which) == alone | {f"top1_{beside}": scores[beside]}
        assert alone["top1"] == scores[which]
    # Without an average there is nothing beside.
    assert run(state.replace(ema={}), "raw") == on_devices(mesh(8), synthetic)
    with pytest.raises(ValueError, match="'ema'"):
        run(state.replace(ema={}), "ema")


def test_top5_of_fewer_than_five_classes():
    step = make_eval_step(
        Table(), take=lambda data, batch: batch, normalise=lambda images: images, flip=False, gather=no_gather
    )
    batch = {"image": jnp.array([[3.0, 2, 1], [1, 2, 3]]), "label": jnp.array([2, 2]), "mask": jnp.array([True, True])}
    sums = step({}, {}, {}, batch)
    assert (int(sums.top5), sums.correct.tolist(), sums.examples.tolist()) == (2, [0, 0, 1], [0, 0, 2])


class Table:
    """A model whose images are its logits."""

    def apply(self, variables, images, train):
        assert not train
        return images


def test_an_evaluation_summed_up_by_hand():
    batches = [
        EvalSums(loss=np.float32(6.0), top5=np.int32(3), correct=np.int32([1, 0, 0]), examples=np.int32([2, 2, 0])),
        EvalSums(loss=np.float32(1.5), top5=np.int32(1), correct=np.int32([1, 0, 0]), examples=np.int32([1, 0, 0])),
    ]
    # Five examples, two of them right, both of class 0, which has three; class 2 has none. The mean of the batches'
    # own means would be (1.5 + 1.5) / 2 for the loss and (1/4 + 1) / 2 for top-1.
    summary = summarise_evaluation(batches)
    assert summary.keys() == {"n", "top1", "top5", "loss", "per_class"}
    assert (summary["n"], summary["top1"], summary["top5"], summary["loss"]) == (5, 0.4, 0.8, 1.5)
    assert summary["per_class"][:2] == [pytest.approx(2 / 3), 0.0]
    assert np.isnan(summary["per_class"][2])


def test_training_sums_by_hand():
    finite, not_finite = jnp.array(True), jnp.array(False)
    sums = TrainSums.zeros()
    sums = sums.add(jnp.float32(2.0), jnp.int32(3), 4, jnp.float32(0.5), finite)
    sums = sums.add(jnp.float32(np.nan), jnp.int32(4), 4, jnp.float32(np.inf), not_finite)
    sums = sums.add(jnp.float32(0.5), jnp.int32(2), 2, jnp.float32(1.5), finite)
    # Six examples: losses 2.0 * 4 + 0.5 * 2 = 9, right ones 3 + 2; two updates: norms 0.5 + 1.5.
    assert sums.means() == {"train/loss": 1.5, "train/top1": 5 / 6, "norm/grad": 1.0, "train/skipped_updates": 1}
    assert [leaf.dtype for leaf in jax.tree.leaves(sums)] == [leaf.dtype for leaf in jax.tree.leaves(TrainSums.zeros())]


def test_training_sums_of_skipped_updates_alone():
    means = TrainSums.zeros().add(jnp.nan, jnp.int32(0), 4, jnp.nan, jnp.array(False)).means()
    assert means.pop("train/skipped_updates") == 1
    assert len(means) == 3
    assert all(np.isnan(value) for value in means.values())
