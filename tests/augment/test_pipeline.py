"""The pass over a batch: which draws an augmentation gets, on any number of devices, and that strength zero is none."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.augment.crops import PAD_MODES
from convmixer_jax.augment.flips import horizontal_flip
from convmixer_jax.augment.pipeline import AUGMENTATIONS, make_augment, normalise
from convmixer_jax.errors import UserError
from convmixer_jax.training.mesh import over_data, replicated

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8}
ERASING = {"probability": 0.7, "area": (0.1, 1 / 3), "aspect": (0.3, 1 / 0.3), "fill": "pixel"}
RAND_AUGMENT: dict[str, Any] = {
    "tables": "timm",
    "policy": "rand-m9-mstd0.5-inc1",
    "num_ops": 2,
    "magnitude": 9.0,
    "interpolation": "nearest",  # others are truncated, so that two programs may differ by a level
    "fill": (),
}
pytestmark = pytest.mark.usefixtures("quick_compilation")

# Settings of each row that change nothing, and settings that do. What is compiled for long, or has many modes, is shown
# to change nothing where it is tested itself.
IN_FILES_OF_THEIR_OWN = {"rand_augment", "colour_jitter", "affine"}
ZERO: dict[str, list[dict[str, Any]]] = {
    "pad_and_crop": [{"pixels": 0, "mode": mode} for mode in PAD_MODES],
    # By each interpolation for some of the images.
    "random_resized_crop": [{"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "interpolation": "random"}],
    "horizontal_flip": [{"probability": 0.0}],
    "channel_shift": [{"levels": 0.0}],
    "cutout": [{"half_side": 4, "probability": 0.0}],
    "random_erasing": [ERASING | {"probability": 0.0}],
}
STRONG: dict[str, dict[str, Any]] = {
    "pad_and_crop": {"pixels": 3, "mode": "reflect"},
    "random_resized_crop": {"scale": (0.3, 1.0), "ratio": (3 / 4, 4 / 3), "interpolation": "bilinear"},
    "horizontal_flip": {"probability": 0.5},
    "rand_augment": RAND_AUGMENT,
    "colour_jitter": JITTER,
    "affine": {"rotation": 20.0, "shift": 0.1, "zoom": 0.1, "interpolation": "bilinear", "edges": "nearest"},
    "channel_shift": {"levels": 40.0},
    "cutout": {"half_side": 4, "probability": 0.7},
    "random_erasing": ERASING,
}
# Resampling sums 2 x 12 products of grey levels up to 255 in float32, in an order that may depend on the program. One
# other draw would change images by tens of levels.
ROUNDING = 24 * 255 * 2.0**-24


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """64 images of noise, uint8: no two and no two parts alike."""
    return np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), np.uint8)


def as_they_are(images: jax.Array) -> jax.Array:
    """In the place of normalisation, so that grey levels stay what they are."""
    return images


def run(names: list[str], settings: dict[str, dict[str, Any]], images: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.asarray(jax.jit(make_augment(names, settings, as_they_are))(jax.random.key(seed), images))


def in_order(names: list[str]) -> list[str]:
    """Those on normalised images behind the others, and those that make fractions behind those of whole levels.

    Fractions differ in their last bits from program to program: rounded, they would differ by whole levels.
    """
    fractions = ("random_resized_crop", "affine", "channel_shift")
    return sorted(names, key=lambda name: (not AUGMENTATIONS[name].on_levels, name in fractions))


@functools.cache
def compiled_alone(name: str) -> jax.stages.Wrapped:
    """Returns the pass of one row with its strong settings; compiled once for all tests."""
    return jax.jit(make_augment([name], STRONG, as_they_are))


def test_every_row_is_tested():
    assert set(ZERO) | IN_FILES_OF_THEIR_OWN == set(STRONG) == set(AUGMENTATIONS)


@pytest.mark.parametrize("name, settings", [(name, settings) for name, rows in ZERO.items() for settings in rows])
def test_strength_zero_changes_nothing(images, name, settings):
    result = run([name], {name: settings}, images)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_key_alone_decides(images, name):
    first, again, other = (np.asarray(compiled_alone(name)(jax.random.key(seed), images)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    # Of 64 images at least a quarter: a flip changes a half, with a deviation of 4 images.
    assert (np.abs(first - images).max(axis=(1, 2, 3)) > 1).sum() >= 16
    assert (np.abs(first - other).max(axis=(1, 2, 3)) > 1).sum() >= 16


@pytest.mark.slow
def test_all_of_them_on_8_devices_draw_what_each_draws_alone(mesh, images):
    """Draws depend neither on an augmentation's place, nor on the others, nor on the part that a device has."""
    names, devices = in_order(list(AUGMENTATIONS)), 8
    whole, split = replicated(mesh(devices)), over_data(mesh(devices))
    augment = jax.jit(make_augment(names, STRONG, as_they_are), in_shardings=(whole, split), out_shardings=split)
    result = augment(jax.random.key(0), images)
    assert len(result.addressable_shards) == devices
    assert result.addressable_shards[0].data.shape[0] == 64 // devices
    # Row by row, and with neither mesh nor sharding.
    expected = images
    for name in names:
        expected = compiled_alone(name)(jax.random.key(0), expected)
    np.testing.assert_allclose(result, expected, rtol=0, atol=ROUNDING)


def test_augmentations_run_in_the_order_given(images):
    settings = STRONG | {"horizontal_flip": {"probability": 1.0}}
    crop = functools.partial(compiled_alone("pad_and_crop"), jax.random.key(0))
    crop_first = run(["pad_and_crop", "horizontal_flip"], settings, images)
    flip_first = run(["horizontal_flip", "pad_and_crop"], settings, images)
    np.testing.assert_array_equal(crop_first, crop(images)[:, :, ::-1])
    np.testing.assert_array_equal(flip_first, crop(images[:, :, ::-1]))
    assert (crop_first != flip_first).any()


def test_no_augmentation_at_all_only_converts(images):
    result = run([], {}, images)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, images)


def test_an_unknown_name_is_the_users_mistake():
    with pytest.raises(UserError, match=r"config\.augment\.order is 'flip'") as raised:
        make_augment(["flip"], STRONG, as_they_are)
    assert all(name in str(raised.value) for name in AUGMENTATIONS)


@pytest.mark.parametrize("probability", [0.5, 0.1])
def test_flips_have_their_rate_and_are_exact(probability):
    n = 10_000
    images = np.random.default_rng(1).uniform(0, 255, (n, 2, 3, 1)).astype(np.float32)
    flip = jax.jit(functools.partial(horizontal_flip, probability=probability))
    result = np.asarray(flip(jax.random.key(1), images))
    mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (result == images).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(mirrored, ~same)
    # Five deviations of a binomial count: missed by one key in two million.
    assert abs(mirrored.sum() - n * probability) <= 5 * math.sqrt(n * probability * (1 - probability))


def test_probability_one_flips_every_image(images):
    flipped = horizontal_flip(jax.random.key(0), jnp.asarray(images), probability=1.0)
    np.testing.assert_array_equal(flipped, images[:, :, ::-1])


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


# Half a step of each dtype, four times for float32 (quotient, difference, quotient, and the constants); bfloat16 is
# rounded to once, from float32. The subtraction may lose digits, so the error is one of values near 4.
@pytest.mark.parametrize("dtype, rtol, atol", [("float32", 0, 4 * 4 * 2.0**-24), ("bfloat16", 2.0**-8, 1e-6)])
@pytest.mark.parametrize("source", [np.uint8, np.float32])
def test_normalise(images, source, dtype, rtol, atol):
    result = jax.jit(functools.partial(normalise, mean=MEAN, std=STD, dtype=dtype))(images.astype(source))
    expected = (images.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    assert result.dtype == dtype
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=rtol, atol=atol)


def test_normalise_black_and_white():
    # 0 is -mean/std and 255 is (1 - mean)/std; here -2 and 2.
    grey = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
    result = normalise(jnp.asarray(grey), mean=(0.5,), std=(0.25,), dtype="float32")
    np.testing.assert_array_equal(np.ravel(result), [-2, 2])


def test_what_works_on_normalised_images_comes_after_normalisation(images):
    halved = make_augment(["horizontal_flip", "random_erasing"], STRONG | {"random_erasing": ERASING}, lambda x: x / 2)
    result, flipped = (
        jax.jit(halved)(jax.random.key(0), images),
        compiled_alone("horizontal_flip")(jax.random.key(0), images),
    )
    kept = np.asarray(result) == np.asarray(flipped) / 2
    # Noise of deviation 1 in the place of values of up to 127: boxes of a tenth to a third of seven images in ten.
    assert 0.6 < kept.mean() < 0.95
    assert np.abs(np.asarray(result)[~kept]).max() < 7


def test_an_order_that_erases_before_it_normalises_is_the_users_mistake():
    with pytest.raises(UserError, match=r"config\.augment\.order is .*random_erasing works on normalised.*cutout must"):
        make_augment(["random_erasing", "cutout"], STRONG, as_they_are)
