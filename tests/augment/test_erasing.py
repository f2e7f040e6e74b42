"""Erased boxes against the definition of timm and torchvision, fills against their laws, cutout against all squares."""

import functools
import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from convmixer_jax.augment import erasing
from convmixer_jax.augment.erasing import FILLS
from convmixer_jax.errors import UserError
from tests.augment.samples import assert_needs_no_other_device

# With fixed seeds these tests always say the same; a sound implementation fails one in 1,000 choices of the seed.
P_VALUE = 1e-3
DRAWS = 5_000

# Compiled once for all settings, which are arguments.
draw_erased_boxes = jax.jit(erasing.draw_erased_boxes, static_argnums=1)
random_erasing = jax.jit(erasing.random_erasing, static_argnames="fill")
cutout = jax.jit(erasing.cutout)

TIMM: dict[str, Any] = {"area": (0.02, 1 / 3), "aspect": (0.3, 1 / 0.3)}
TORCHVISION: dict[str, Any] = {"area": (0.02, 0.33), "aspect": (0.3, 3.3)}
# Area 0.05-1.25 of it: every second try is too large. Aspect up to 20: a tenth of all images have none that fits.
TIGHT: dict[str, Any] = {"area": (0.5, 1.25), "aspect": (0.05, 20.0)}


def defined_box(
    rng: random.Random, height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draws (top, left, height, width) as RandomErasing is defined in both libraries; zeros where no try fits."""
    for _ in range(10):
        pixels = rng.uniform(*area) * height * width
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        h, w = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if h < height and w < width:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    return 0, 0, 0, 0


@pytest.mark.parametrize(
    "height, width, settings", [(32, 32, TIMM), (32, 32, TORCHVISION), (224, 160, TIMM), (32, 48, TIGHT)]
)
def test_boxes_are_distributed_as_timms_and_torchvisions(height, width, settings):
    ours = np.asarray(draw_erased_boxes(jax.random.key(5), DRAWS, height, width, **settings))
    rng = random.Random(5)
    theirs = np.array([defined_box(rng, height, width, **settings) for _ in range(DRAWS)])
    for boxes in (ours, theirs):
        assert (boxes >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= (height, width)).all()
        assert (boxes[:, 2:] < (height, width)).all()
    none = [(boxes[:, 2:] == 0).all(axis=1).sum() for boxes in (ours, theirs)]
    if settings is TIGHT:
        assert min(none) > 20
        assert scipy.stats.chi2_contingency([none, [DRAWS - n for n in none]]).pvalue > P_VALUE
    else:
        assert none == [0, 0]
    seen = {
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 2] / np.maximum(b[:, 3], 0.1),
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "room used": lambda b: (b[:, 0] + 0.5) / (height - b[:, 2] + 1),  # ties the place to the size
    }
    for name, value in seen.items():
        # Ties, of whole pixels, only make the Kolmogorov-Smirnov test more lenient.
        assert scipy.stats.ks_2samp(value(ours), value(theirs)).pvalue > P_VALUE, name


def test_area_aspect_and_place_have_their_laws():
    # On a large image rounding to pixels is nothing, and boxes of 1-2 % always fit, so the laws are those drawn from.
    side = 4_000
    boxes = draw_erased_boxes(jax.random.key(6), DRAWS, side, side, (0.01, 0.02), (0.5, 2.0))
    top, left, height, width = np.asarray(boxes, np.float64).T
    uniform = [
        (height * width / side**2 - 0.01) / 0.01,
        np.log(height / width) / np.log(4) + 0.5,
        top / (side - height),
        left / (side - width),
    ]
    for values in uniform:
        assert scipy.stats.kstest(values, "uniform").pvalue > P_VALUE
    for i in range(4):
        for j in range(i):
            assert scipy.stats.spearmanr(uniform[i], uniform[j]).pvalue > P_VALUE


@functools.cache
def erased(fill: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns 5,000 images of noise 16 x 16 around 100, their erased forms, and which pixels those have lost."""
    images = np.random.default_rng(1).normal(100, 1, (DRAWS, 16, 16, 3)).astype(np.float32)
    result = np.asarray(random_erasing(jax.random.key(2), images, probability=0.25, fill=fill, **TIMM))
    changed = result != images
    # A box has all channels, and what is not in it is untouched; no fill comes near 100.
    np.testing.assert_array_equal(changed.all(axis=3), changed.any(axis=3))
    return images, result, changed.all(axis=3)


@pytest.mark.parametrize("fill", FILLS)
def test_a_box_in_a_quarter_of_the_images_is_overwritten(fill):
    _, result, gone = erased(fill)
    assert result.dtype == np.float32
    hit = gone.any(axis=(1, 2))
    # Five deviations of a binomial count: missed by one key in two million.
    assert abs(hit.sum() - DRAWS / 4) <= 5 * math.sqrt(DRAWS * 3 / 16)
    rows, columns = gone.any(axis=2), gone.any(axis=1)
    np.testing.assert_array_equal(gone, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # without a hole: it begins once at most
        assert (np.diff(line, axis=1, prepend=False) & line).sum(axis=1).max() == 1


def test_pixels_are_filled_with_standard_normal_noise():
    _, result, gone = erased("pixel")
    noise = result[gone].astype(np.float64)  # [pixels, channels]
    assert len(noise) > 30_000
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > P_VALUE
    # Neither channels nor neighbours know of each other: a correlation of n pairs has a deviation of 1 / sqrt(n).
    beside = (result[:, :, :-1], result[:, :, 1:], gone[:, :, :-1] & gone[:, :, 1:])
    pairs = [(noise[:, 0], noise[:, 1]), (noise[:, 1], noise[:, 2]), [beside[i][beside[2]][:, 0] for i in (0, 1)]]
    for first, second in pairs:
        assert scipy.stats.pearsonr(first, second).pvalue > P_VALUE


def test_channels_are_filled_with_one_standard_normal_value_each():
    _, result, gone = erased("channel")
    values = []
    for image, box in zip(result, gone, strict=True):
        if box.any():
            assert (image[box] == image[box][0]).all()
            values.append(image[box][0])
    colours = np.array(values, np.float64)
    assert scipy.stats.kstest(colours.ravel(), "norm").pvalue > P_VALUE
    assert scipy.stats.pearsonr(colours[:, 0], colours[:, 1]).pvalue > P_VALUE


def test_constant_is_the_mean_colour():
    _, result, gone = erased("constant")
    assert (result[gone] == 0).all()


@pytest.mark.parametrize("settings", [{"probability": 0.0, **TIMM}, {"probability": 1.0, **TIMM, "area": (1.5, 2.0)}])
def test_nothing_is_erased_where_nothing_is_to_be_or_fits(settings):
    images = np.random.default_rng(3).normal(0, 1, (64, 12, 12, 3)).astype(np.float32)
    result = random_erasing(jax.random.key(0), jnp.asarray(images), fill="pixel", **settings)
    np.testing.assert_array_equal(result, images)


def test_a_narrow_dtype_is_kept_and_gets_the_same_boxes_and_values():
    images = np.random.default_rng(3).normal(0, 1, (64, 12, 12, 3)).astype(jnp.bfloat16)
    erase = functools.partial(random_erasing, jax.random.key(0), probability=0.5, fill="pixel", **TIMM)
    narrow, wide = erase(jnp.asarray(images)), erase(jnp.asarray(images, jnp.float32))
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))


def test_an_unknown_fill_is_the_users_mistake():
    with pytest.raises(UserError, match=r"config\.augment\.random_erasing\.fill is 'rand'.*pixel, channel, constant"):
        random_erasing(jax.random.key(0), jnp.zeros((2, 4, 4, 3)), probability=1.0, fill="rand", **TIMM)


@pytest.mark.parametrize("half_side", [1, 3])
def test_cutout_blackens_a_square_whose_centre_is_uniform_over_the_pixels(half_side):
    height, width, n = 6, 5, 6_000
    images = np.random.default_rng(4).uniform(1, 255, (n, height, width, 3)).astype(np.float32)
    result = np.asarray(cutout(jax.random.key(4), jnp.asarray(images), half_side=half_side, probability=0.7))
    gone = (result == 0).all(axis=3)
    np.testing.assert_array_equal(result, np.where(gone[..., None], 0, images))
    squares = np.zeros((height * width, height, width), bool)
    for centre, square in enumerate(squares):
        y, x = divmod(centre, width)
        square[max(0, y - half_side) : y + half_side, max(0, x - half_side) : x + half_side] = True
    kinds, kind_of = np.unique(squares, axis=0, return_inverse=True)
    is_kind = (gone[:, None] == kinds).all(axis=(2, 3))
    np.testing.assert_array_equal(is_kind.sum(axis=1), gone.any(axis=(1, 2)))
    chosen = is_kind.any(axis=1)
    # Five deviations of a binomial count: missed by one key in two million.
    assert abs(chosen.sum() - 0.7 * n) <= 5 * math.sqrt(n * 0.21)
    expected = np.bincount(kind_of) / len(squares) * chosen.sum()  # 140 for each of the 30 centres
    assert scipy.stats.chisquare(is_kind.sum(axis=0), expected).pvalue > P_VALUE


@pytest.mark.parametrize("settings", [{"half_side": 0, "probability": 1.0}, {"half_side": 4, "probability": 0.0}])
def test_no_cutout(settings):
    images = np.random.default_rng(4).uniform(1, 255, (6_000, 6, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(cutout(jax.random.key(0), images, **settings), images)


def test_neither_needs_another_device(mesh):
    images = np.random.default_rng(4).uniform(1, 255, (64, 12, 12, 3)).astype(np.float32)

    def both(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        erased = erasing.random_erasing(key, images, probability=0.5, fill="pixel", **TIMM)
        return erased, erasing.cutout(key, images, half_side=4, probability=0.7)

    assert_needs_no_other_device(both, mesh, images)
