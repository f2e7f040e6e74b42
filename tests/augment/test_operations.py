"""Every operation against Pillow, on real photographs and on tiles that are easy to get wrong."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from convmixer_jax.augment.operations import OPERATIONS, apply
from convmixer_jax.benchmarks.pillow_ops import BICUBIC, BILINEAR, NEAREST, apply_with_pillow
from tests.augment.samples import photographs, photographs_64

NAMES = tuple(OPERATIONS)
FILL = (125, 123, 114)
FACTORS = (0.0, 0.1, 0.37, 1.0, 1.45, 1.9)  # 0: the base; 1: the image

VALUES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("identity", "auto_contrast", "equalize", "invert", "blur", "smooth"), (0.0,)),
    **dict.fromkeys(("brightness", "contrast", "color", "sharpness"), FACTORS),
    "posterize": (0, 1, 3, 4, 8, 9),
    "solarize": (0, 1, 26, 153.5, 255, 256),
    "solarize_add": (0, 1, 99, 110, 128),
    **dict.fromkeys(("shear_x", "shear_y"), (-0.3, -0.1, 0, 0.25, 0.27)),
    **dict.fromkeys(("translate_x", "translate_y"), (-0.45, -1 / 8, 0, 0.03, 0.405)),
    "rotate": (-30, -11.7, 0, 4.5, 27),
    "cutout": (0, 0.2, 0.55),
}
WARPS = tuple(name for name in NAMES if OPERATIONS[name].group == "warp")
INTERPOLATIONS = {"nearest": NEAREST, "bilinear": BILINEAR, "bicubic": BICUBIC}


def wide_tiles() -> np.ndarray:
    """Returns 20 tiles uint8 of 48 x 64 pixels: height and width are told apart."""
    pixels = sklearn.datasets.load_sample_image("flower.jpg")[100:340, 100:356]
    return pixels.reshape(5, 48, 4, 64, 3).swapaxes(1, 2).reshape(-1, 48, 64, 3)


def hard_tiles() -> np.ndarray:
    """Black, white, one colour, two levels, a ramp, noise, and few levels: uint8 [9, 32, 32, 3]."""
    tiles = np.zeros((9, 32, 32, 3), np.uint8)
    rng = np.random.default_rng(0)
    tiles[1] = 255
    tiles[2] = (7, 128, 249)
    tiles[3, :16] = (100, 0, 255)
    tiles[4] = (np.arange(1024).reshape(32, 32, 1) // 4).astype(np.uint8)
    tiles[5] = rng.integers(0, 256, (32, 32, 3))
    tiles[6] = rng.integers(99, 101, (32, 32, 3))
    tiles[7, 5, 6] = (1, 128, 255)  # one pixel: equalize has too few to share out
    tiles[8] = rng.integers(0, 4, (32, 32, 3)) * 85
    return tiles


def square_tiles() -> np.ndarray:
    """Returns every hard tile six times, so that it meets every value, and 118 photographs: uint8 [N, 32, 32, 3]."""
    return np.concatenate([np.repeat(hard_tiles(), 6, axis=0), photographs()[:520:9], photographs()[520:]])


BATCHES: dict[str, Callable[[], np.ndarray]] = {"square": square_tiles, "wide": wide_tiles, "large": photographs_64}


class Cases(NamedTuple):
    """One image each, all operations in one batch."""

    kind: np.ndarray
    value: np.ndarray
    images: np.ndarray
    place: np.ndarray


@functools.cache
def cases(batch: str, names: tuple[str, ...]) -> Cases:
    """Returns each of `names` with every tile; the values take turns."""
    tiles = BATCHES[batch]()
    chosen = [(i, VALUES[name][tile % len(VALUES[name])]) for i, name in enumerate(names) for tile in range(len(tiles))]
    kind, value = (np.array(column) for column in zip(*chosen, strict=True))
    place = np.random.default_rng(1).uniform(size=(len(kind), 2))
    return Cases(kind, value.astype(np.float32), np.tile(tiles, (len(names), 1, 1, 1)), place.astype(np.float32))


@functools.cache
def program(names: tuple[str, ...]) -> Any:
    """Returns the jitted operations; which is done, how strongly and where are data, so one program does for all.

    Of the warps alone with the interpolation as data too, and of everything with "nearest".
    """
    method = "random" if names == WARPS else "nearest"
    return jax.jit(functools.partial(apply, names=names, interpolation=method, fill=FILL))


@functools.cache
def ours(batch: str, interpolation: str) -> np.ndarray:
    names = NAMES if interpolation == "nearest" else WARPS
    kind, value, images, place = cases(batch, names)
    bicubic = np.full(len(kind), interpolation == "bicubic")
    return np.asarray(program(names)(images.astype(np.float32), kind, value, bicubic=bicubic, place=place))


def both(batch: str, interpolation: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns our and Pillow's images of one operation."""
    names = NAMES if interpolation == "nearest" else WARPS
    kind, value, images, place = cases(batch, names)
    chosen = np.flatnonzero(kind == names.index(name))
    pillows = []
    for i in chosen:
        arguments: dict[str, Any] = {
            "resample": INTERPOLATIONS[interpolation],
            "fill": FILL,
            "place": place[i].tolist(),
        }
        pillows.append(np.asarray(apply_with_pillow(Image.fromarray(images[i]), name, value[i], **arguments)))
    return ours(batch, interpolation)[chosen], np.stack(pillows).astype(np.float32)


def test_every_operation_has_values():
    assert set(VALUES) == set(OPERATIONS)


def test_the_photographs_are_the_same_everywhere():
    for found, count, side in ((photographs(), 580, 32), (photographs_64(), 16, 64)):
        assert (found.shape, found.dtype) == ((count, side, side, 3), np.uint8)
        assert len(np.unique(found, axis=0)) == count
        assert not np.isin(found.std(axis=(1, 2, 3)), 0).any()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("auto_contrast", "rotate")])
@pytest.mark.parametrize("batch", BATCHES)
def test_nearest_is_exactly_pillows(batch, name):
    # Whole numbers, or float32 where Pillow has it too.
    got, pillows = both(batch, "nearest", name)
    np.testing.assert_array_equal(got, pillows)


@pytest.mark.parametrize("batch", BATCHES)
def test_auto_contrast_is_pillows_but_for_ties(batch):
    got, pillows = both(batch, "nearest", "auto_contrast")
    # Where a level falls exactly on another, Pillow's float64 may come out one lower.
    assert set(np.unique(got - pillows)) <= {0, 1}
    assert (got != pillows).mean() < 0.02


@pytest.mark.parametrize("batch", BATCHES)
def test_nearest_rotations_are_pillows_but_for_a_pixel(batch):
    # Exact for the same matrix, see test_warps; float32's sine moves one pixel in a million to its neighbour.
    got, pillows = both(batch, "nearest", "rotate")
    assert (got != pillows).any(axis=-1).sum() <= 3


@pytest.mark.parametrize("name", WARPS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("batch", BATCHES)
def test_interpolated_warps_are_pillows(batch, interpolation, name):
    got, pillows = both(batch, interpolation, name)
    # float32 for Pillow's float64, then truncated: a result within 20 roundings of a whole level may end up on its
    # other side. That is one in 1,000, but a shear of a tenth puts many results next to whole levels. Everywhere, along
    # the edges too.
    assert np.abs(got - pillows).max() <= 1
    assert (got != pillows).mean() < 0.01


def test_no_operation_changes_nothing():
    for names in (NAMES, WARPS):
        _, value, images, place = cases("square", names)
        arguments = {"bicubic": np.arange(len(value)) % 2 == 0, "place": place}
        result = program(names)(images.astype(np.float32), np.full(len(value), -1), value, **arguments)
        np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize(
    "names, has, has_not",
    [
        (("invert", "solarize"), (), ("scatter-add", "floor")),  # no histogram, no warp
        (("equalize",), ("scatter-add",), ("floor",)),
        (("shear_x",), ("floor",), ("scatter-add",)),
    ],
)
def test_what_cannot_occur_is_not_compiled(names, has, has_not):
    one = jnp.zeros((1,), jnp.int32)
    call = functools.partial(apply, names=names, interpolation="bilinear", fill=FILL)
    text = str(jax.make_jaxpr(call)(jnp.zeros((1, 8, 8, 3)), one, one.astype(jnp.float32)))
    found = set(re.findall(r"= ([\w-]+)[ \[]", text))
    assert set(has) <= found
    assert not set(has_not) & found


def test_a_cutout_is_clipped_at_the_edge():
    # The side is half of 8 pixels, centred on the corner: 2 x 2 of it are inside.
    images = jnp.full((1, 8, 8, 3), 9.0)
    call = functools.partial(apply, names=("cutout",), interpolation="nearest", fill=(1, 2, 3))
    result = np.asarray(call(images, jnp.zeros(1, jnp.int32), jnp.full(1, 0.5), place=jnp.zeros((1, 2))))
    assert (result[0, :2, :2] == (1, 2, 3)).all()
    assert (result == 9).sum() == 3 * (64 - 4)
