"""What an update gets to see: draws keyed by seed and step alone, targets that stay distributions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convmixer_jax.augment.mixing import make_mix
from convmixer_jax.augment.pipeline import make_augment, normalise
from convmixer_jax.config import get_base
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.mesh import replicated
from convmixer_jax.training.prepare import Prepare, make_prepare
from convmixer_jax.training.state import STREAMS, TrainState, step_key
from tests.training.steps import bits, jit_once, plain_step, random_state

BATCH, CLASSES, SMOOTHING = 32, 4, 0.2
BASE = get_base()
AUGMENT = BASE.augment.to_dict() | {"colour_jitter": dict.fromkeys(("brightness", "contrast", "saturation"), 0.4)}
AUGMENT["colour_jitter"] |= {"hue": 0.1, "probability": 0.8}
NO_MIXING = BASE.mixing.to_dict()
MIXINGS = {
    "mixup": NO_MIXING | {"mixup_alpha": 0.5},
    "cutmix of half of the examples": NO_MIXING | {"cutmix_alpha": 1.0, "probability": 0.5, "per": "example"},
    "both": NO_MIXING | {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
}
AS_THEY_ARE = functools.partial(normalise, mean=(0.0,) * 3, std=(1 / 255,) * 3, dtype="float32")


pytestmark = pytest.mark.usefixtures("quick_compilation")


@functools.cache
def examples(most: int = 255) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, most + 1, (BATCH, 8, 8, 3), np.uint8)
    return {"image": image, "label": (np.arange(BATCH, dtype=np.int32) * 3) % CLASSES}


def prepare(augmentations: tuple[str, ...], mixing: dict[str, Any]) -> Prepare:
    augment = make_augment(augmentations, AUGMENT, AS_THEY_ARE)
    return jax.jit(make_prepare(augment, make_mix(**mixing), num_classes=CLASSES, label_smoothing=SMOOTHING))


@pytest.mark.parametrize("augmentations, mixing", [(("horizontal_flip",), NO_MIXING), ((), MIXINGS["both"])])
def test_seed_and_step_decide(augmentations, mixing):
    make = prepare(augmentations, mixing)
    result = bits(make(7, 3, examples()))
    assert bits(prepare(augmentations, mixing)(np.uint32(7), jnp.int32(3), examples())) == result
    for seed, step in ((8, 3), (7, 4), (3, 7)):
        assert bits(make(seed, step, examples())) != result


def test_nothing_else_decides():
    # All of this is linear in the grey levels, and twice as much rounds as well: were a draw to depend on what is in
    # the images, the one of twice the levels would be another one.
    make = prepare(("pad_and_crop", "horizontal_flip"), MIXINGS["both"])
    dark, label = examples(127)["image"], examples()["label"]
    for step in range(3):
        images, targets = make(7, step, {"image": dark, "label": label})
        bright, same = make(7, step, {"image": 2 * dark, "label": label})
        np.testing.assert_array_equal(bright, 2 * images)
        np.testing.assert_array_equal(same, targets)
        # Neither on the labels.
        np.testing.assert_array_equal(make(7, step, {"image": dark, "label": 0 * label})[0], images)


@pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS)
def test_targets_stay_distributions(mixing):
    make, label = prepare((), mixing), examples()["label"]
    plain = np.full((BATCH, CLASSES), SMOOTHING / CLASSES)
    plain[np.arange(BATCH), label] += 1 - SMOOTHING
    changed = 0
    for step in range(20):
        targets = np.asarray(make(0, step, examples())[1])
        assert targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=0, atol=4e-7)  # some roundings of numbers below 1
        # Between the target of the example and that of its neighbour, which has another label.
        low, high = np.sort([plain, plain.reshape(-1, 2, CLASSES)[:, ::-1].reshape(-1, CLASSES)], axis=0)
        assert ((low - 1e-6 <= targets) & (targets <= high + 1e-6)).all()
        changed += np.sum(np.abs(targets - plain).max(axis=1) > 1e-3)
    assert changed > 20 * BATCH / 8


def test_without_mixing_it_is_augmentation_and_smoothing():
    augmentations = ("pad_and_crop", "horizontal_flip")
    images, targets = prepare(augmentations, NO_MIXING)(7, 3, examples())
    alone = jax.jit(make_augment(augmentations, AUGMENT, AS_THEY_ARE))(step_key(7, "augment", 3), examples()["image"])
    np.testing.assert_array_equal(images, alone)
    expected = np.full((BATCH, CLASSES), 0.05, np.float32)
    expected[np.arange(BATCH), examples()["label"]] = 0.85
    np.testing.assert_allclose(targets, expected, rtol=0, atol=1e-7)


def test_augmentation_and_mixing_draw_from_streams_of_their_own():
    mixed_alone, targets = prepare((), MIXINGS["mixup"])(7, 3, examples())
    _, with_flips = prepare(("horizontal_flip",), MIXINGS["mixup"])(7, 3, examples())
    np.testing.assert_array_equal(with_flips, targets)
    assert not np.array_equal(mixed_alone, examples()["image"])
    assert len({jax.random.key_data(step_key(7, purpose, 3)).tobytes() for purpose in STREAMS}) == len(STREAMS)


def make_step(grid, *, augmentations: tuple[str, ...], mix: Any) -> tuple[Any, Any]:
    """Returns a compiled train step, and a function without arguments to its first state."""
    model = ConvMixer(dim=4, depth=1, patch_size=2, kernel_size=3, num_classes=CLASSES)
    tx, augment = optax.scale(-1.0), make_augment(augmentations, AUGMENT, AS_THEY_ARE)
    step = plain_step(
        model,
        tx,
        lambda step: 0.01,
        take=lambda data, batch: batch,
        augment=augment,
        label_smoothing=SMOOTHING,
        mix=mix,
    )
    whole = replicated(grid)
    return jit_once(step, grid), (model, functools.partial(jax.device_put, random_state(model, tx, (8, 8, 3)), whole))


@pytest.mark.parametrize("own_share", [0.7, 0.3])
def test_training_top1_counts_the_class_with_the_larger_share(mesh, own_share):
    def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return images, own_share * targets + (1 - own_share) * jnp.roll(targets, 1, axis=0)

    step, (model, first) = make_step(mesh(1), augmentations=(), mix=mix)
    variables = jax.device_get(first().variables("raw"))
    images = np.float32(examples()["image"])
    logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    best, own = np.argmax(logits, axis=1), examples()["label"]
    right = {share: int(np.sum(best == label)) for share, label in ((0.7, own), (0.3, np.roll(own, 1)))}
    assert right[0.7] != right[0.3]
    state, _ = step(first(), np.uint32(0), {}, examples(), np.int32(1))
    assert (int(state.report.top1), int(state.report.examples)) == (right[own_share], BATCH)


COLOURFUL = ("random_resized_crop", "rand_augment", "colour_jitter", "channel_shift", "cutout", "random_erasing")


@pytest.mark.slow
def test_updates_with_all_that_needs_colours_can_be_interrupted(mesh):
    """Digits have one channel, so the resumed runs of test_resume.py are without RandAugment and colour jitter."""
    step, (_, first) = make_step(mesh(1), augmentations=COLOURFUL, mix=make_mix(**MIXINGS["both"]))

    def update(state: TrainState, count: int) -> TrainState:
        """Returns what a checkpoint keeps of the state after so many more updates."""
        state = jax.device_put(state)
        for _ in range(count):
            state, _ = step(state, np.uint32(5), {}, examples(), np.int32(1))
        return jax.device_get(state)

    half = update(first(), 2)
    undisturbed, resumed = update(first(), 4), update(half, 2)
    assert int(resumed.step) == 4
    assert bits(resumed) == bits(undisturbed)
    # The draws are others in each update: from a state that forgot its number, the end is another one.
    assert bits(update(half.replace(step=np.int32(0)), 2).params) != bits(undisturbed.params)
