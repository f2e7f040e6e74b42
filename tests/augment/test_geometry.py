"""The affine warp against Keras' composition of matrices in NumPy, resampled by SciPy, as Keras resamples."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

from convmixer_jax.augment import geometry
from convmixer_jax.augment.geometry import INTERPOLATIONS
from convmixer_jax.augment.warps import EDGES
from convmixer_jax.errors import UserError
from tests.augment.samples import assert_needs_no_other_device, photographs

# With fixed seeds these tests always say the same; a sound implementation fails one in 1,000 choices of the seed.
P_VALUE = 1e-3

NONE = {"rotation": 0.0, "shift": 0.0, "zoom": 0.0}
ALL = {"rotation": 40.0, "shift": 0.2, "zoom": 0.3}
ALONE = [NONE | {name: strength} for name, strength in ALL.items()]

# Coordinates up to 64 are sums of five rounded terms, each off by 2^-19 at most, and as much for sine and cosine; one
# pixel further the level changes by 255 at most, along both axes.
COORDINATE = 10 * 2.0**-19
LEVEL = 2 * 255 * COORDINATE


def keras_matrix(degrees: float, shift: np.ndarray, zoom: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns apply_affine_transform's matrix [3, 3] on (x, y, 1) of pixel indices; shift in pixels, both (x, y)."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    shifting = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
    zooming = np.diag([zoom[0], zoom[1], 1])
    middle = np.array([[1, 0, width / 2 - 0.5], [0, 1, height / 2 - 0.5], [0, 0, 1]])
    return middle @ turn @ shifting @ zooming @ np.linalg.inv(middle)


def scipy_warp(image: np.ndarray, matrix: np.ndarray, order: int, mode: str) -> np.ndarray:
    """Resamples an image [H, W, C], in float64, as Keras does it: channel by channel, along (row, column)."""
    swapped = matrix[[1, 0, 2]][:, [1, 0, 2]]
    warp = functools.partial(scipy.ndimage.affine_transform, order=order, mode=mode, cval=0.0)
    return np.stack([warp(c, swapped[:2, :2], swapped[:2, 2]) for c in np.moveaxis(image.astype(float), 2, 0)], axis=2)


def sources(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the source (x, y) of every output pixel, [2, H, W], counted from the centre of the first pixel."""
    y, x = np.mgrid[:height, :width]
    return np.tensordot(matrix[:2], np.stack([x, y, np.ones_like(x)]), axes=1)


# Compiled once for all strengths, which are arguments.
affine = jax.jit(geometry.affine, static_argnames=("interpolation", "edges"))
draw_affine = jax.jit(geometry.draw_affine, static_argnums=1)


def run(strengths: dict[str, float], interpolation: str, edges: str, height: int = 32) -> tuple[np.ndarray, ...]:
    """Warps photographs; returns them, the result and the matrices [N, 3, 3] that Keras has for the same draws."""
    images, key = photographs()[::4, :height], jax.random.key(1)
    result = affine(key, images.astype(np.float32), **strengths, interpolation=interpolation, edges=edges)
    degrees, shifts, zooms = (np.asarray(draws, float) for draws in draw_affine(key, len(images), **strengths))
    draws = zip(degrees, shifts * (32, height), zooms, strict=True)
    return images, np.asarray(result), np.stack([keras_matrix(*draw, height, 32) for draw in draws])


def assert_same_levels(got: np.ndarray, expected: np.ndarray) -> None:
    """Asserts that levels are the same up to the inexactness of coordinates, and neither darker nor brighter."""
    difference = got - expected
    assert np.abs(difference).max() <= LEVEL <= 1e-2
    # Errors of coordinates have no direction. Truncation would darken by half a level.
    assert abs(difference.mean()) <= LEVEL / 10


@pytest.mark.parametrize("strengths, height", [*[(strengths, 32) for strengths in ALONE], (ALL, 32), (ALL, 20)])
def test_bilinear_with_the_nearest_edge_is_keras_default(strengths, height):
    images, result, matrices = run(strengths, "bilinear", "nearest", height)
    assert (np.abs(result - images).max(axis=(1, 2, 3)) > 1).mean() > 0.9
    expected = [scipy_warp(image, matrix, 1, "nearest") for image, matrix in zip(images, matrices, strict=True)]
    assert_same_levels(result, np.stack(expected))


def test_bilinear_with_black_edges_is_keras_but_for_half_a_pixel():
    images, result, matrices = run(ALL, "bilinear", "constant")
    for image, got, matrix in zip(images, result, matrices, strict=True):
        # How far the source point lies within the outermost pixels' centres, where SciPy's image ends.
        x, y = sources(matrix, 32, 32)
        depth = np.min([x, y, 31 - x, 31 - y], axis=0)
        assert_same_levels(got[depth > COORDINATE], scipy_warp(image, matrix, 1, "constant")[depth > COORDINATE])
        assert (got[depth < -0.5 - COORDINATE] == 0).all()
        # In between SciPy is black; Pillow's image ends at those pixels' edges, and has there what "nearest" has.
        between = (depth < -COORDINATE) & (depth > -0.5 + COORDINATE)
        if between.any():
            assert_same_levels(got[between], scipy_warp(image, matrix, 1, "nearest")[between])


def test_nearest_takes_keras_pixels():
    images, result, matrices = run(ALL, "nearest", "nearest")
    for image, got, matrix in zip(images, result, matrices, strict=True):
        # 16.16 fixed point: each of up to 64 steps is off by 2^-17. Nearer to the border of two pixels both are right.
        unsure = 64 * 2.0**-17 + COORDINATE
        sure = (np.abs(np.mod(sources(matrix, 32, 32), 1) - 0.5) > 2 * unsure).all(axis=0)
        assert sure.mean() > 0.95
        np.testing.assert_array_equal(got[sure], scipy_warp(image, matrix, 0, "nearest")[sure])


def test_bicubic_is_pillows():
    images, result, _ = run(ALL, "bicubic", "constant")
    matrices = geometry.affine_matrices(*draw_affine(jax.random.key(1), len(images), **ALL), 32, 32)
    for image, got, matrix in zip(images, result, np.asarray(matrices, float), strict=True):
        how = Image.Resampling.BICUBIC
        picture = Image.fromarray(image).transform((32, 32), Image.Transform.AFFINE, tuple(matrix), how)
        # Pillow truncates. The cubic is at most 1.5 times as steep as a straight line between the darkest and the
        # brightest pixel, and what it makes of the rows spans at most 1.5 times as much: less than 3 times in all.
        difference = got - np.asarray(picture)
        assert -3 * LEVEL <= difference.min()
        assert difference.max() <= 1 + 3 * LEVEL


@pytest.mark.parametrize("interpolation, edges", list(itertools.product(INTERPOLATIONS, EDGES)))
def test_strength_zero_changes_nothing(interpolation, edges):
    images, result, _ = run(NONE, interpolation, edges)
    np.testing.assert_array_equal(result, images)
    fractions = images * np.float32(0.987)
    np.testing.assert_array_equal(
        affine(jax.random.key(1), fractions, **NONE, interpolation=interpolation, edges=edges), fractions
    )


def test_levels_between_whole_ones_are_kept_as_in_keras():
    images, _, matrices = run(ALL, "bilinear", "nearest")
    fractions = images * np.float32(0.987)
    got = np.asarray(affine(jax.random.key(1), fractions, **ALL, interpolation="bilinear", edges="nearest"))
    expected = [scipy_warp(image, matrix, 1, "nearest") for image, matrix in zip(fractions, matrices, strict=True)]
    assert_same_levels(got, np.stack(expected))


def test_draws_are_uniform():
    degrees, shifts, zooms = draw_affine(jax.random.key(2), 5_000, 20.0, 0.1, 0.2)
    uniform = [degrees / 40 + 0.5, *(shifts / 0.2 + 0.5).T, *((zooms - 1) / 0.4 + 0.5).T]
    for values in uniform:
        assert scipy.stats.kstest(np.asarray(values), "uniform").pvalue > P_VALUE
    for first, second in itertools.combinations(uniform, 2):
        assert scipy.stats.spearmanr(first, second).pvalue > P_VALUE


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"interpolation": "random"}, r"interpolation is 'random'.*nearest, bilinear, bicubic"),
        ({"edges": "reflect"}, r"edges is 'reflect'.*constant, nearest"),
    ],
)
def test_an_unknown_name_is_the_users_mistake(settings, message):
    known: dict[str, Any] = {**NONE, "interpolation": "bilinear", "edges": "nearest"}
    with pytest.raises(UserError, match=r"config\.augment\.affine\." + message):
        affine(jax.random.key(0), jnp.zeros((2, 4, 4, 3)), **known | settings)


def test_it_needs_no_other_device(mesh):
    images = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3)).astype(np.float32)
    warp = functools.partial(geometry.affine, **ALL, interpolation="bilinear", edges="constant")
    assert_needs_no_other_device(warp, mesh, images)
