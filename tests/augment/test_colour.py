"""Colour against Pillow's own operations, drawn factors and orders against their laws, channel shift against NumPy."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageEnhance

from convmixer_jax.augment.colour import apply_jitter, channel_shift, colour_jitter, draw_jitter, hue_of, shift_hue
from convmixer_jax.errors import UserError
from tests.augment.samples import assert_needs_no_other_device, photographs

# With fixed seeds these tests always say the same; a sound implementation fails one in 1,000 choices of the seed.
P_VALUE = 1e-3

STRENGTHS: dict[str, Any] = {"brightness": 0.4, "contrast": 0.5, "saturation": 0.6, "hue": 0.5}
NONE: dict[str, Any] = dict.fromkeys(STRENGTHS, 0.0)


def hsv_shifted(image: Image.Image, share: float) -> Image.Image:
    """Turns the hue by a share of the circle, as torchvision's adjust_hue is defined."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + int(share * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


PILLOW = {
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "hue": hsv_shifted,
}


def pillow_jitter(image: np.ndarray, names: Sequence[str], order: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Does the parts of one image in their order. order: places in `names`; amounts: in the order of `names`."""
    picture = Image.fromarray(image.squeeze())
    for part in order:
        picture = PILLOW[names[part]](picture, float(amounts[part]))
    return np.asarray(picture).reshape(image.shape).astype(int)


def every_hue() -> np.ndarray:
    """Returns colours uint8 [6 * 65,536 + 65,536, 3] with every hue and every saturation that bytes have.

    The hue depends on differences between the channels alone, so it is enough that the darkest is 0.
    """
    two = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), axis=-1).reshape(-1, 2)
    three = np.concatenate([two, np.zeros((len(two), 1), int)], axis=1)
    greys = np.concatenate([two, two[:, 1:]], axis=1)
    return np.concatenate([three[:, list(p)] for p in itertools.permutations(range(3))] + [greys]).astype(np.uint8)


def test_every_hue_is_pillows_and_comes_back_as_pillows():
    colours = every_hue().reshape(7, 256, 256, 3)
    shifts = np.array([0, 1, -1, 43, -85, 127, -127])
    floats = colours.astype(np.float32)
    hues, turned = jax.jit(lambda images, shift: (hue_of(images), shift_hue(images, shift)))(floats, shifts)
    for i, shift in enumerate(shifts):
        picture = Image.fromarray(colours[i])
        np.testing.assert_array_equal(np.asarray(hues)[i, ..., 0], np.asarray(picture.convert("HSV"))[..., 0])
        np.testing.assert_array_equal(turned[i], np.asarray(hsv_shifted(picture, (shift + np.sign(shift) / 2) / 255)))


@functools.cache
def drawn(*names: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the draws of 5,000 images: order and amounts [parts, B], and the coin."""
    strengths = {name: STRENGTHS[name] for name in names}
    return jax.device_get(jax.jit(lambda key: draw_jitter(key, 5_000, strengths))(jax.random.key(1)))


GREY = ("brightness", "contrast")


@pytest.mark.parametrize("channels, names", [*[(3, (name,)) for name in STRENGTHS], (3, tuple(STRENGTHS)), (1, GREY)])
def test_jitter_is_pillows(channels, names):
    images = photographs()[..., :channels]
    order, amounts = (draws[:, : len(images)] for draws in drawn(*names)[:2])
    result = np.asarray(jax.jit(apply_jitter, static_argnums=1)(images.astype(np.float32), names, order, amounts))
    for i in range(len(images)):
        # All in whole numbers or in the same order of float32 operations, so not even one level is lost.
        np.testing.assert_array_equal(result[i], pillow_jitter(images[i], names, order[:, i], amounts[:, i]))


def test_factors_are_uniform_and_orders_alike_probable():
    order, amounts, coin = drawn(*STRENGTHS)
    middles = [1, 1, 1, 0]
    triples = zip(amounts, middles, STRENGTHS.values(), strict=True)
    uniform = [(values - middle) / strength / 2 + 0.5 for values, middle, strength in triples] + [coin]
    for values in uniform:
        assert scipy.stats.kstest(values, "uniform").pvalue > P_VALUE
    for first, second in itertools.combinations(uniform, 2):
        assert scipy.stats.spearmanr(first, second).pvalue > P_VALUE
    kinds, counts = np.unique(order, axis=1, return_counts=True)
    assert kinds.shape == (4, 24)  # 208 of each expected
    assert scipy.stats.chisquare(counts).pvalue > P_VALUE


def test_a_strength_above_1_goes_down_to_0_alone():
    _, amounts, _ = jax.jit(lambda key: draw_jitter(key, 5_000, {"contrast": 3.0}))(jax.random.key(2))
    assert scipy.stats.kstest(np.asarray(amounts[0]) / 4, "uniform").pvalue > P_VALUE


@functools.cache
def jitter(**settings: Any):
    return jax.jit(functools.partial(colour_jitter, **settings))


def test_jitter_applies_its_draws_to_the_images_that_the_coin_chose():
    images = np.resize(photographs()[:500, :4, :4], (5_000, 4, 4, 3)).astype(np.float32) + np.float32(0.25)
    result = np.asarray(jitter(**STRENGTHS, probability=0.8)(jax.random.key(1), images))
    order, amounts, coin = drawn(*STRENGTHS)
    chosen = coin < 0.8
    # Five deviations of a binomial count: missed by one key in two million.
    assert abs(chosen.sum() - 4_000) <= 5 * math.sqrt(5_000 * 0.16)
    np.testing.assert_array_equal(result[~chosen], images[~chosen])
    for i in np.flatnonzero(chosen)[:200]:
        rounded = np.round(images[i]).astype(np.uint8)
        expected = pillow_jitter(rounded, list(STRENGTHS), order[:, i], amounts[:, i])
        np.testing.assert_array_equal(result[i], expected)


@pytest.mark.parametrize("settings", [NONE | {"probability": 1.0}, STRENGTHS | {"probability": 0.0}])
def test_strength_or_probability_zero_changes_nothing(settings):
    images = np.random.default_rng(0).uniform(0, 255, (64, 12, 12, 3)).astype(np.float32)
    np.testing.assert_array_equal(jitter(**settings)(jax.random.key(0), images), images)


@pytest.mark.parametrize(
    "settings, channels, message",
    [
        ({"saturation": 0.1}, 1, r"colour_jitter\.saturation is 0\.1, but images of one channel .* set it to 0"),
        ({"hue": 0.1}, 1, r"colour_jitter\.hue is 0\.1, but images of one channel .* set it to 0"),
        ({"hue": 0.6}, 3, r"colour_jitter\.hue is 0\.6: .* at most 0\.5"),
        ({"contrast": -0.1}, 3, r"colour_jitter\.contrast is -0\.1: it must be at least 0"),
    ],
)
def test_a_strength_without_meaning_is_the_users_mistake(settings, channels, message):
    with pytest.raises(UserError, match=r"config\.augment\." + message):
        colour_jitter(jax.random.key(0), jnp.zeros((2, 4, 4, channels)), **NONE | settings, probability=1.0)


def test_channel_shift_is_keras():
    n = 5_000
    images = np.resize(photographs()[:500, ::4, ::4], (n, 8, 8, 3)).astype(np.float32)
    result = np.asarray(jax.jit(functools.partial(channel_shift, levels=30.0))(jax.random.key(3), images))
    low, high = (f(images, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    assert ((low <= result) & (result <= high)).all()
    # The pixel that is farthest from both ends tells the shift, unless it too was clipped.
    middle = np.abs(images - (low + high) / 2).reshape(n, -1).argmin(axis=1)
    shift = (result - images).reshape(n, -1)[np.arange(n), middle]
    wide = (np.minimum(images - low, high - images).reshape(n, -1)[np.arange(n), middle]) > 30
    assert wide.sum() > 1_000
    assert scipy.stats.kstest(shift[wide] / 60 + 0.5, "uniform").pvalue > P_VALUE
    # One number for all channels, clipped to the extremes of all channels together. The sum of levels is rounded by
    # at most 2^-17, and so was the one that told the shift.
    expected = np.clip(images + shift[:, None, None, None], low, high)
    np.testing.assert_allclose(result[wide], expected[wide], rtol=0, atol=2.0**-16)


def test_channel_shift_of_zero_levels_changes_nothing():
    images = photographs()[:8].astype(np.float32)
    np.testing.assert_array_equal(channel_shift(jax.random.key(0), jnp.asarray(images), levels=0.0), images)


def test_neither_needs_another_device(mesh):
    images = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3)).astype(np.float32)

    def both(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        return colour_jitter(key, images, **STRENGTHS, probability=0.8), channel_shift(key, images, levels=20.0)

    assert_needs_no_other_device(both, mesh, images)
