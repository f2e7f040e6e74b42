"""Crops against NumPy's padding, Pillow's resampling and torchvision's definition of a random box."""

import functools
import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.datasets
from PIL import Image

from convmixer_jax.augment import crops
from convmixer_jax.augment.crops import (
    INTERPOLATIONS,
    PAD_MODES,
    draw_resized_boxes,
    pad_and_crop,
    random_resized_crop,
    resize_boxes,
)
from convmixer_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_compilation")

# With fixed seeds these tests always say the same; a sound implementation fails one in 1,000 choices of the seed.
P_VALUE = 1e-3


NUMPY_MODES: dict[str, Any] = {"zero": "constant", "reflect": "reflect"}


def all_crops(image: np.ndarray, pixels: int, mode: str) -> np.ndarray:
    """Returns every crop of the padded image, row by row: [(2 pixels + 1)^2, H, W, C]."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode=NUMPY_MODES[mode])
    places = range(2 * pixels + 1)
    return np.stack([padded[top : top + height, left : left + width] for top in places for left in places])


def drawn_crops(key: jax.Array, image: np.ndarray, batch: int, pixels: int, mode: str) -> np.ndarray:
    """Crops `batch` copies of an image; returns which of `all_crops` each one is, having checked that it is one."""
    outputs = np.asarray(pad_and_crop(key, jnp.asarray(np.repeat(image[None], batch, 0)), pixels=pixels, mode=mode))
    choices = all_crops(image, pixels, mode)
    assert len(np.unique(choices, axis=0)) == len(choices)
    equal = (outputs[:, None] == choices).all(axis=(2, 3, 4))
    np.testing.assert_array_equal(equal.sum(axis=1), 1)
    return equal.argmax(axis=1)


@pytest.mark.parametrize("mode", PAD_MODES)
@pytest.mark.parametrize("pixels, shape", [(1, (5, 5, 3)), (2, (4, 7, 1)), (4, (6, 7, 3))])
def test_every_output_is_a_crop_of_the_padded_image(mode, pixels, shape):
    image = np.random.default_rng(0).uniform(1, 255, shape).astype(np.float32)
    places = drawn_crops(jax.random.key(0), image, 64, pixels, mode)
    assert len(set(places)) > 4  # 64 draws from at least 9 places


@pytest.mark.parametrize("mode", PAD_MODES)
def test_each_image_of_a_batch_is_cropped_from_itself(mode):
    images = np.random.default_rng(1).uniform(1, 255, (16, 5, 5, 2)).astype(np.float32)
    outputs = np.asarray(pad_and_crop(jax.random.key(1), jnp.asarray(images), pixels=2, mode=mode))
    for image, output in zip(images, outputs, strict=True):
        assert (output == all_crops(image, 2, mode)).all(axis=(1, 2, 3)).sum() == 1


def test_corners_are_uniform():
    image = np.random.default_rng(2).uniform(1, 255, (3, 3, 1)).astype(np.float32)
    places = drawn_crops(jax.random.key(2), image, 5000, 2, "zero")
    counts = np.bincount(places, minlength=25)  # 200 of each expected; all 25 pairs, so rows and columns jointly
    assert scipy.stats.chisquare(counts).pvalue > P_VALUE


def test_an_unknown_mode_is_the_users_mistake():
    with pytest.raises(UserError, match=r"config\.augment\.pad_and_crop\.mode is 'edge'.*zero, reflect"):
        pad_and_crop(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), pixels=1, mode="edge")


PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@functools.cache
def photographs(side: int) -> np.ndarray:
    """Returns tiles uint8 [N, side, side, 3] of scikit-learn's two photographs, shrunk so that each has detail."""
    tiles = []
    for name in ("china.jpg", "flower.jpg"):
        photo = Image.fromarray(sklearn.datasets.load_sample_image(name))
        pixels = np.asarray(photo.resize((photo.width * side // 64, photo.height * side // 64), Image.Resampling.BOX))
        rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
        pixels = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
        tiles.append(pixels.swapaxes(1, 2).reshape(-1, side, side, 3))
    return np.concatenate(tiles)


resize = jax.jit(resize_boxes, static_argnums=2)


def box_key(key: jax.Array) -> jax.Array:
    """Returns the key of random_resized_crop's boxes; the other one is that of the interpolation."""
    return jax.random.split(key)[0]


# (top, left, height, width) as shares of the side: all of it, enlarged 1.1 to 8 times, in one direction alone, a line.
SHARES = [(0, 0, 1, 1), (0, 0, 0.9, 0.9), (0.25, 0.5, 0.5, 0.5), (0.5, 0, 0.5, 0.75), (0.1, 0.3, 0.9, 0.7)]
SHARES += [(0, 0.25, 1, 0.5), (0.875, 0.875, 0.125, 0.125), (0, 0.1, 0.7, 0.9), (0.5, 0, 0.03125, 1)]


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("interpolation", PILLOW)
def test_resized_boxes_are_pillows(interpolation, side):
    images = photographs(side)
    boxes = [[round(share * side) for share in SHARES[i % len(SHARES)]] for i in range(len(images))]
    resized = np.asarray(resize(images.astype(np.float32), np.asarray(boxes), interpolation))
    for image, (top, left, height, width), got in zip(images, boxes, resized, strict=True):
        cut = Image.fromarray(image).crop((left, top, left + width, top + height))
        expected = np.asarray(cut.resize((side, side), PILLOW[interpolation]), np.float32)
        # Pillow rounds (and clips) twice, after each direction. The weights of a bicubic kernel have absolute values
        # that sum to 1.25 at most: 1.25 / 2 + 1/2 of a level in all, which is one where ours is rounded too.
        assert np.abs(np.round(got) - expected).max() <= 1


def test_random_interpolation_is_either_by_image():
    assert set(INTERPOLATIONS) == {*PILLOW, "random"}
    images = photographs(32)[:6].astype(np.float32)
    boxes = np.asarray([[3, 5, 20, 17]] * 6)
    bicubic = np.array([True, False, False, True, True, False])
    either = resize_boxes(images, boxes, "random", bicubic)
    expected = np.where(
        bicubic[:, None, None, None], *(resize(images, boxes, name) for name in ("bicubic", "bilinear"))
    )
    # The same weights in one more program: some rounding steps of sums of products up to 255.
    np.testing.assert_allclose(either, expected, rtol=0, atol=1e-3)
    draw = jax.jit(functools.partial(random_resized_crop, scale=(0.3, 0.3), ratio=(1.0, 1.0), interpolation="random"))
    many = np.repeat(images[:1], 1000, axis=0)
    boxes = draw_resized_boxes(box_key(jax.random.key(0)), 1000, 32, 32, (0.3, 0.3), (1.0, 1.0))
    smooth = np.abs(draw(jax.random.key(0), many) - resize(many, boxes, "bilinear")).max(axis=(1, 2, 3)) < 1e-3
    assert abs(smooth.sum() - 500) <= 5 * np.sqrt(250)  # five deviations: one key in two million


def test_the_interpolation_is_drawn_independently_of_the_boxes(monkeypatch):
    drawn = []

    def record(images: jax.Array, boxes: jax.Array, interpolation: str, bicubic: jax.Array) -> jax.Array:
        drawn.extend([np.asarray(boxes), np.asarray(bicubic)])
        return images

    monkeypatch.setattr(crops, "resize_boxes", record)
    images = jnp.zeros((DRAWS, 100, 100, 1), jnp.uint8)
    # With a ratio of 1 the side is the root of the area, and the first of ten tries fits.
    random_resized_crop(jax.random.key(9), images, scale=(0.01, 0.5), ratio=(1.0, 1.0), interpolation="random")
    boxes, bicubic = drawn
    top, left, side, _ = boxes.T
    for values in (side, top / (101 - side), left / (101 - side)):
        # Of the same image; and, as a generator numbers its draws, of one with ten tries or two places to each coin.
        for draws_per_box in (1, 2, 10):
            coins = bicubic[::draws_per_box]
            chosen = values[: len(coins)]
            assert scipy.stats.ks_2samp(chosen[coins], chosen[~coins]).pvalue > P_VALUE


def test_a_bicubic_overshoot_is_clipped():
    # A step from 0 to 255 in the middle overshoots on both sides when it is enlarged.
    image = np.zeros((1, 8, 8, 1), np.float32)
    image[:, :, 4:] = 255
    resized = np.asarray(resize(image, np.array([[2, 2, 4, 4]]), "bicubic"))
    assert (resized.min(), resized.max()) == (0, 255)


def test_nothing_outside_the_box_is_seen():
    images = np.random.default_rng(3).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    images[1, 4:12, 3:9] = images[0, 4:12, 3:9]
    first, second = resize(images, np.array([[4, 3, 8, 6]] * 2), "bicubic")
    np.testing.assert_array_equal(first, second)


def test_an_unknown_interpolation_is_the_users_mistake():
    field = r"config\.augment\.random_resized_crop\.interpolation is 'nearest'.*bilinear, bicubic"
    with pytest.raises(UserError, match=field):
        resize_boxes(jnp.zeros((1, 4, 4, 3)), jnp.asarray([[0, 0, 4, 4]]), "nearest")


def torchvision_box(
    rng: random.Random, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draws (top, left, height, width) as torchvision.transforms.RandomResizedCrop.get_params is defined."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.randint(0, height - h), rng.randint(0, width - w), h, w
    w, h = width, height
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    return (height - h) // 2, (width - w) // 2, h, w


DRAWS = 5_000  # the same everywhere, so that the random generator is compiled once

BOXES = [
    (1000, 1000, (0.08, 1.0), (3 / 4, 4 / 3)),  # torchvision's default
    (32, 32, (0.75, 1.0), (3 / 4, 4 / 3)),  # the CIFAR recipe: about a quarter of the tries do not fit
    (600, 1000, (0.3, 0.9), (0.5, 2.0)),
    (900, 300, (0.5, 1.0), (3 / 4, 4 / 3)),  # no try fits: the largest has an area of 4/9
    (64, 48, (0.9, 1.0), (0.4, 1.2)),
]


@pytest.mark.parametrize("height, width, scale, ratio", BOXES)
def test_boxes_are_distributed_as_torchvisions(height, width, scale, ratio):
    ours = np.asarray(draw_resized_boxes(jax.random.key(5), DRAWS, height, width, scale, ratio))
    rng = random.Random(5)
    theirs = np.array([torchvision_box(rng, height, width, scale, ratio) for _ in range(DRAWS)])
    for boxes in (ours, theirs):
        top, left, h, w = boxes.T
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] > 0).all()
        assert (top + h <= height).all()
        assert (left + w <= width).all()
    seen = {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "room used": lambda b: (b[:, 0] + 0.5) / (height - b[:, 2] + 1),  # ties the place to the size
    }
    for name, value in seen.items():
        # Ties, of whole pixels, only make the Kolmogorov-Smirnov test more lenient.
        assert scipy.stats.ks_2samp(value(ours), value(theirs)).pvalue > P_VALUE, name


@pytest.mark.parametrize(
    "height, width, scale, ratio, box",
    [
        (32, 32, (1.5, 2.0), (1.0, 1.0), (0, 0, 32, 32)),  # larger than the image: all of it
        (32, 32, (1.0, 1.0), (2.0, 2.0), (8, 0, 16, 32)),  # taller than the ratio 2 allows: all columns, centred
        (90, 30, (1.0, 1.0), (0.5, 1.0), (15, 0, 60, 30)),  # too tall an image: all columns, ratio 1/2, centred
        (20, 100, (1.0, 1.0), (0.5, 1.5), (0, 35, 20, 30)),  # too wide: all rows, ratio 3/2, centred
        (20, 101, (1.0, 1.0), (0.5, 1.5), (0, 35, 20, 30)),  # an odd rest: the smaller half before
    ],
)
def test_fallback_where_no_try_fits(height, width, scale, ratio, box):
    boxes = draw_resized_boxes(jax.random.key(0), DRAWS, height, width, scale, ratio)
    np.testing.assert_array_equal(boxes, [box] * DRAWS)
    assert torchvision_box(random.Random(0), height, width, scale, ratio) == box


def test_random_resized_crop_resizes_the_boxes_it_draws():
    images = np.resize(photographs(32)[:, :8, :8], (DRAWS, 8, 8, 3))
    key, scale, ratio = jax.random.key(7), (0.3, 1.0), (3 / 4, 4 / 3)
    crop = functools.partial(random_resized_crop, scale=scale, ratio=ratio, interpolation="bilinear")
    resized = np.asarray(crop(key, jnp.asarray(images, jnp.float32)))
    boxes = np.asarray(draw_resized_boxes(box_key(key), DRAWS, 8, 8, scale, ratio))
    assert len(np.unique(boxes[:100], axis=0)) > 10
    for image, (top, left, height, width), got in zip(images[:100], boxes[:100], resized[:100], strict=True):
        cut = Image.fromarray(image).crop((left, top, left + width, top + height))
        expected = np.asarray(cut.resize((8, 8), Image.Resampling.BILINEAR), np.float32)
        assert np.abs(np.round(got) - expected).max() <= 1
