"""Affine warps against PIL.Image.transform with the same matrices, and the matrices against what they are to do."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convmixer_jax.augment import warps
from convmixer_jax.errors import UserError
from tests.augment.samples import photographs

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
FILL = (10, 20, 30)
HEIGHT, WIDTH = 32, 26  # not square: x and y are told apart


@functools.cache
def warp(interpolation: str, edges: str) -> Any:
    return jax.jit(functools.partial(warps.warp, interpolation=interpolation, fill=FILL, edges=edges))


@functools.cache
def images() -> np.ndarray:
    return np.ascontiguousarray(photographs()[:520:5, :, :WIDTH])


@functools.cache
def matrices() -> np.ndarray:
    """Returns float32 [104, 6]: no change, mirrors, quarter turns, zooms, shears of round numbers, and anything."""
    rng = np.random.default_rng(0)
    chosen = [
        *((1, 0, 0, 0, 1, 0), (-1, 0, WIDTH, 0, 1, 0), (0, 1, 0, 1, 0, 0), (0, -1, 20, 1, 0, 0.5), (2, 0, 0, 0, 2, 0)),
        *((0.7, 0, 3.5, 0, 1.3, -2.25), (1, 0.3, 0, 0, 1, 0), (1, -0.3, 0, 0, 1, 0), (1, 0, 0, 0.25, 1, 0)),
        *((1, 0, 2.5, 0, 1, -3.5), (1, 0, -0.49999997, 0, 1, 0.49999997), (1, 0, 1000, 0, 1, 0), (1, 0, -9, 0, 1, -7)),
    ]
    anything = rng.uniform(-1, 1, (len(images()) - len(chosen), 6)) + [0.7, 0, 0, 0, 0.7, 0]
    anything *= [1, 1, 20, 1, 1, 20]
    return np.concatenate([chosen, anything]).astype(np.float32)


def pillows(image: np.ndarray, matrix: np.ndarray, interpolation: str) -> np.ndarray:
    picture = Image.fromarray(image)
    coefficients = tuple(map(float, matrix))
    warped = picture.transform(
        picture.size, Image.Transform.AFFINE, coefficients, PILLOW[interpolation], fillcolor=FILL
    )
    return np.asarray(warped, np.float32)


# Levels that may differ, and the share of them. float32 for Pillow's float64, then truncated: what lies within 20
# roundings of a whole level may end up on its other side, one in 1,000; matrices of few decimals put more there.
BOUNDS = {"nearest": (0, 0.0), "bilinear": (1, 5e-3), "bicubic": (1, 5e-3)}


@pytest.mark.parametrize("interpolation", PILLOW)
def test_warps_are_pillows_with_the_same_matrix(interpolation):
    ours = np.asarray(warp(interpolation, "constant")(images().astype(np.float32), matrices()))
    theirs = np.stack([pillows(*pair, interpolation) for pair in zip(images(), matrices(), strict=True)])
    levels, share = BOUNDS[interpolation]
    assert np.abs(ours - theirs).max() <= levels
    assert (ours != theirs).mean() <= share


@pytest.mark.parametrize("interpolation", PILLOW)
def test_edges_that_go_on_are_those_of_a_padded_image(interpolation):
    pad = 40
    inner = matrices()[(np.abs(matrices()[:, [2, 5]]) < 8).all(axis=1)]  # that do not leave the padding
    chosen = images()[: len(inner)]
    ours = np.asarray(warp(interpolation, "nearest")(chosen.astype(np.float32), inner))
    padded = np.pad(chosen, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    a, b, c, d, e, f = inner.astype(np.float64).T
    moved = np.stack([a, b, c + pad * (1 - a - b), d, e, f + pad * (1 - d - e)], axis=1)
    theirs = np.stack([pillows(*pair, interpolation) for pair in zip(padded, moved, strict=True)])
    levels, share = BOUNDS[interpolation]
    assert np.abs(ours - theirs[:, pad:-pad, pad:-pad]).max() <= levels
    assert (ours != theirs[:, pad:-pad, pad:-pad]).mean() <= share


def test_random_takes_the_interpolation_of_each_image():
    bicubic = np.arange(len(images())) % 2 == 0
    arguments = (images().astype(np.float32), matrices())
    mixed = warp("random", "constant")(*arguments, bicubic=bicubic)
    alone = [warp(name, "constant")(*arguments) for name in ("bicubic", "bilinear")]
    np.testing.assert_allclose(mixed, np.where(bicubic[:, None, None, None], *alone), atol=1)
    assert (np.asarray(mixed) == np.where(bicubic[:, None, None, None], *alone)).mean() > 0.999


@pytest.mark.parametrize("interpolation", PILLOW)
def test_whole_pixels_are_moved_exactly(interpolation):
    batch = images().astype(np.float32)
    step = jnp.full(len(batch), 3.0)
    moved = np.asarray(warp(interpolation, "constant")(batch, warps.translate(step, -2 * step)))
    np.testing.assert_array_equal(moved[:, 6:, :-3], batch[:, :-6, 3:])
    assert (moved[:, :6] == FILL).all()
    assert (moved[:, :, -3:] == FILL).all()


@pytest.mark.parametrize("interpolation", PILLOW)
def test_rotations_are_pillows(interpolation):
    degrees = np.linspace(-45, 45, len(images())).round(1)
    turn = warps.rotate(jnp.asarray(degrees), HEIGHT, WIDTH)
    ours = np.asarray(warp(interpolation, "constant")(images().astype(np.float32), turn))
    for image, angle, got in zip(images(), degrees, ours, strict=True):
        theirs = Image.fromarray(image).rotate(float(angle), PILLOW[interpolation], fillcolor=FILL)
        difference = np.abs(got - np.asarray(theirs, np.float32)).max(axis=-1)
        # With "nearest", float32's sine moves one pixel in a million to its neighbour.
        assert (difference > BOUNDS[interpolation][0]).sum() <= (interpolation == "nearest")


def test_large_images_are_exact_too():
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (6, 224, 512, 3), np.uint8)
    turn = np.asarray(warps.rotate(jnp.asarray([-30, -7.3, 0, 0.1, 12, 29.9]), 224, 512))
    ours = np.asarray(warp("nearest", "constant")(large.astype(np.float32), turn))
    for image, matrix, got in zip(large, turn, ours, strict=True):
        np.testing.assert_array_equal(got, pillows(image, matrix, "nearest"))


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels(channels):
    batch = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels)).astype(np.float32)
    shear = warps.shear_y(jnp.asarray([0.0, 1.0, -1.0]))
    ours = jax.jit(functools.partial(warps.warp, interpolation="nearest", fill=(7,) * channels))(batch, shear)
    np.testing.assert_array_equal(ours[0], batch[0])
    # Column x is read half a pixel and x pixels further down; further up it is outside, but for the first.
    np.testing.assert_array_equal(ours[1, 0, 2], batch[1, 3, 2])
    np.testing.assert_array_equal(ours[2, 0, 0], batch[2, 0, 0])
    assert (np.asarray(ours)[2, 0, 1:] == 7).all()


def test_names_are_looked_up():
    batch, matrix = jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 6))
    with pytest.raises(UserError, match="interpolation is 'cubic'.*bicubic"):
        warps.warp(batch, matrix, interpolation="cubic", fill=FILL)
    with pytest.raises(UserError, match="edges is 'wrap'.*constant, nearest"):
        warps.warp(batch, matrix, interpolation="nearest", fill=FILL, edges="wrap")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_truncation_is_all_that_it_does(interpolation):
    arguments = (images().astype(np.float32), matrices())
    call = functools.partial(warps.warp, interpolation=interpolation, fill=FILL, truncate=False)
    exact = np.asarray(jax.jit(call)(*arguments))
    truncated = np.asarray(warp(interpolation, "constant")(*arguments))
    assert (exact != np.trunc(exact)).mean() > 0.1
    # Two programs, that may round a whole level to either side.
    assert (np.trunc(exact) == truncated).mean() > 0.999
    assert (exact.min(), exact.max()) >= (0, 0)
    assert exact.max() <= 255


@pytest.mark.parametrize("height, width", [(513, 8), (8, 513)])
def test_longer_sides_than_are_exact_are_refused(height, width):
    limit = rf"config\.dataset has images of {height} x {width} pixels: rand_augment and affine .*up to 512; leave both"
    with pytest.raises(UserError, match=limit):
        warps.warp(jnp.zeros((1, height, width, 3)), jnp.zeros((1, 6)), interpolation="nearest", fill=FILL)
