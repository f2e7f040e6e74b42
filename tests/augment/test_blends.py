"""Conversion to grey, blends and filters: each exactly Pillow's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter

from convmixer_jax.augment import blends
from tests.augment.samples import photographs


def test_to_bytes_rounds_halves_to_even_and_clips():
    levels = jnp.asarray([-3, -0.5, 0.5, 1.5, 1.51, 254.5, 255.4, 300])
    np.testing.assert_array_equal(blends.to_bytes(levels), [0, 0, 0, 2, 2, 254, 255, 255])
    assert blends.to_bytes(jnp.asarray([7], jnp.uint8)).dtype == jnp.float32


def test_luma_is_pillows_for_every_colour():
    luma = jax.jit(blends.luma)
    for red in range(0, 256, 16):
        reds = np.arange(red, red + 16, dtype=np.uint8)
        colours = np.stack(np.meshgrid(reds, np.arange(256), np.arange(256), indexing="ij"), axis=-1).astype(np.uint8)
        pillows = Image.fromarray(colours.reshape(4096, 256, 3)).convert("L")
        ours = luma(colours.reshape(1, 4096, 256, 3).astype(np.float32))
        np.testing.assert_array_equal(ours[0, ..., 0], np.asarray(pillows))


def test_luma_of_one_channel_is_the_image():
    images = jnp.arange(8.0).reshape(2, 2, 2, 1)
    np.testing.assert_array_equal(blends.luma(images), images)


@pytest.mark.parametrize("levels, mean", [((0, 1), 1), ((0, 0, 1), 0), ((0, 1, 1), 1), ((254, 255), 255), ((3, 3), 3)])
def test_mean_level_is_rounded_half_up(levels, mean):
    images = np.repeat(np.array(levels, np.float32).reshape(1, 1, -1, 1), 3, axis=-1)
    np.testing.assert_array_equal(blends.mean_level(jnp.asarray(images)), np.full((1, 1, 1, 1), mean))


def test_mean_level_of_many_white_pixels_is_white():
    # 4 million pixels: their sum, doubled, still fits into an int32.
    np.testing.assert_array_equal(blends.mean_level(jnp.full((1, 2048, 2048, 1), 255.0)), [[[[255]]]])


def test_blends_are_pillows_for_every_pair_of_levels():
    base, image = (level.astype(np.uint8) for level in np.meshgrid(np.arange(256), np.arange(256)))
    # Factors of two decimals make products that lie on whole levels but for float32's rounding.
    factors = np.concatenate([np.arange(-20, 300, 5) / 100, np.random.default_rng(0).uniform(0.1, 1.9, 20)])
    factors = factors.astype(np.float32)
    shape = (len(factors), 256, 256, 1)
    images = np.broadcast_to(image[..., None], shape).astype(np.float32)
    ours = jax.jit(blends.blend)(base[None, ..., None].astype(np.float32), images, factors)
    for factor, got in zip(factors, np.asarray(ours), strict=True):
        pillows = Image.blend(Image.fromarray(base), Image.fromarray(image), float(factor))
        np.testing.assert_array_equal(got[..., 0], np.asarray(pillows), str(factor))


@pytest.mark.parametrize("ours, pillows", [(blends.smooth, ImageFilter.SMOOTH), (blends.blur, ImageFilter.BLUR)])
@pytest.mark.parametrize("height, width", [(32, 32), (20, 32), (5, 6), (3, 32), (2, 2)])
def test_filters_are_pillows(ours, pillows, height, width):
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    images = np.concatenate([photographs()[::5], noise])[:, :height, :width]
    filtered = np.asarray(jax.jit(ours)(images.astype(np.float32)))
    for image, got in zip(images, filtered, strict=True):
        np.testing.assert_array_equal(got, np.asarray(Image.fromarray(image).filter(pillows)))
