"""Crops on the host: boxes as the device draws them, pixels as Pillow resizes them, the same on every path."""

import functools
import hashlib
import io
import random
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.datasets
from cykooz_resizer import CpuExtensions, Resizer
from PIL import Image

from convmixer_jax.augment.crops import INTERPOLATIONS
from convmixer_jax.data import host_batches, host_crops
from convmixer_jax.data.decode import decode_crops
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.host_batches import Crops, HostBatches, Reading
from convmixer_jax.data.host_crops import DRAWS, FILTERS, ResizedCrop, crop_draws, draw_boxes, resize_box
from convmixer_jax.data.order import batch_indices
from convmixer_jax.data.resident import ResidentInput
from convmixer_jax.data.stream import StreamInput
from convmixer_jax.errors import UserError
from convmixer_jax.training.mesh import over_data, replicated
from tests.augment.samples import photographs_64
from tests.augment.test_crops import BOXES, torchvision_box

# With fixed seeds these tests always say the same; a sound implementation fails one in 1,000 choices of the seed.
P_VALUE = 1e-3
TIMM = ResizedCrop((0.08, 1.0), (3 / 4, 4 / 3), "random")
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@functools.cache
def china() -> np.ndarray:
    return sklearn.datasets.load_sample_image("china.jpg")


def jpeg(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_draws_are_uniform_and_each_row_keeps_its_own():
    draws = crop_draws(seed=3, step=7, batch_size=2_000)
    assert (draws.shape, draws.dtype) == ((2_000, DRAWS), np.float64)
    assert (draws.min() >= 0, draws.max() < 1) == (True, True)
    for column in draws.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > P_VALUE
    correlation = np.corrcoef(draws.T) - np.eye(DRAWS)
    assert np.abs(correlation).max() < 5 / np.sqrt(2_000)  # five deviations, of 253 pairs
    np.testing.assert_array_equal(crop_draws(3, 7, 50), draws[:50])
    for other in (crop_draws(3, 8, 50), crop_draws(4, 7, 50)):
        assert not np.intersect1d(other, draws).size
    # The first word of Philox, in its upper 53 bits.
    word = np.random.Philox(np.random.SeedSequence((3, 7, 0x7C3D077))).random_raw()
    assert draws[0, 0] == (int(word) >> 11) / 2**53


@pytest.mark.parametrize("height, width, scale, ratio", BOXES)
def test_boxes_are_torchvisions(height, width, scale, ratio):
    count = 5_000
    sides = np.full(count, height), np.full(count, width)
    ours = draw_boxes(crop_draws(5, 0, count), *sides, ResizedCrop(scale, ratio, "bilinear"))
    assert (ours.shape, ours.dtype) == ((count, 4), np.int32)
    rng = random.Random(0)
    theirs = np.array([torchvision_box(rng, height, width, scale, ratio) for _ in range(count)])
    top, left, box_h, box_w = ours.T
    assert (0 <= top).all()
    assert (0 <= left).all()
    assert (top + box_h <= height).all()
    assert (left + box_w <= width).all()
    for value in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert scipy.stats.ks_2samp(value(ours), value(theirs)).pvalue > P_VALUE


def test_each_image_has_a_box_of_its_own_size():
    heights, widths = np.array([1, 1, 100, 5_000, 30]), np.array([1, 900, 100, 4_000, 1])
    draws = crop_draws(0, 0, 5)
    together = draw_boxes(draws, heights, widths, TIMM)
    for n in range(5):
        alone = draw_boxes(draws[n : n + 1], heights[n : n + 1], widths[n : n + 1], TIMM)
        np.testing.assert_array_equal(alone[0], together[n])
    top, left, height, width = together.T
    assert together.min() >= 0
    assert (height.min(), width.min()) == (1, 1)
    assert ((top + height <= heights) & (left + width <= widths)).all()
    assert together[0].tolist() == [0, 0, 1, 1]
    # 1 x 900 allows no ratio of 4/3 but that of 1 x 1, centred: 899 // 2.
    assert together[1].tolist() == [0, 449, 1, 1]


def some_boxes(pixels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Of every size and place, whatever their shape."""
    rng = np.random.default_rng(seed)
    height, width = pixels.shape[:2]
    sides = rng.integers(1, (height + 1, width + 1), (count, 2))
    return np.concatenate([rng.integers(0, np.array([height, width]) + 1 - sides), sides], 1)


@pytest.mark.parametrize("interpolation", PILLOW)
def test_photographs_are_resized_as_by_pillow(interpolation):
    options = FILTERS[interpolation][0]
    for pixels in (china(), sklearn.datasets.load_sample_image("flower.jpg"), *photographs_64()[:4]):
        sizes = [(224, 224), (64, 64), (32, 48), (9, 301)] * 10
        for box, size in zip(some_boxes(pixels, 40), sizes, strict=True):
            top, left, height, width = box.tolist()
            cut = Image.fromarray(pixels[top : top + height, left : left + width])
            # Width first, then height, as Pillow does it but for the tallest images.
            narrow = cut.resize((size[1], height), PILLOW[interpolation])
            expected = np.asarray(narrow.resize(size[::-1], PILLOW[interpolation]), int)
            off = np.abs(resize_box(pixels, box, size, options) - expected)
            # Weights of fewer bits than Pillow's turn single roundings over: a level after the width. Bicubic weights,
            # whose absolute values sum to 1.25, make up to 1.25 of it, and it is rounded again.
            assert off.max() <= (1 if interpolation == "bilinear" else 2)
            assert (off > 1).mean() < 1e-3


def test_one_channel_is_resized_as_three():
    box = np.array([10, 20, 200, 300])
    for options in FILTERS["random"]:
        whole = resize_box(china(), box, (64, 64), options)
        np.testing.assert_array_equal(resize_box(china()[..., 1:2], box, (64, 64), options)[..., 0], whole[..., 1])


def test_nothing_outside_of_the_box_is_seen():
    other = np.zeros_like(china())
    other[10:210, 20:320] = china()[10:210, 20:320]
    for options in FILTERS["random"]:
        images = [resize_box(pixels, np.array([10, 20, 200, 300]), (64, 64), options) for pixels in (china(), other)]
        np.testing.assert_array_equal(*images)


def test_every_processor_gives_the_same(monkeypatch):
    # Its vector instructions are chosen at run time; batches must not know which.
    box = np.array([3, 5, 301, 407])
    found = [resize_box(china(), box, (224, 224), options) for options in FILTERS["random"]]
    plain = Resizer()
    plain.cpu_extensions = CpuExtensions.none
    monkeypatch.setattr(host_crops._threads, "resizer", plain)
    for options, expected in zip(FILTERS["random"], found, strict=True):
        np.testing.assert_array_equal(resize_box(china(), box, (224, 224), options), expected)


JPEGS = {
    "4:2:0": jpeg(china()[:175, :233], quality=85, subsampling="4:2:0"),
    "4:2:2": jpeg(china()[:175, :233], quality=85, subsampling="4:2:2"),
    "4:4:4": jpeg(china()[:175, :233], quality=85, subsampling="4:4:4"),
    "4:1:1": jpeg(china()[:175, :233], quality=85, subsampling="4:1:1"),
    "progressive": jpeg(china()[:175, :233], quality=85, progressive=True),
    "restarts": jpeg(china()[:175, :233], quality=85, restart_marker_rows=1),
    "grey": jpeg(china()[:175, :233, 0], quality=85),
    "noise": jpeg(np.random.default_rng(0).integers(0, 256, (175, 233, 3), np.uint8), quality=95),
    "bytes after its end": jpeg(china()[:175, :233], quality=85) + b"\0\0",
    "a pixel": jpeg(china()[:1, :1]),
}


@pytest.mark.parametrize("content", JPEGS.values(), ids=JPEGS)
def test_a_crop_is_what_the_whole_image_has_there(content):
    count = 20
    draws = crop_draws(1, 0, count)
    for crop in (TIMM, ResizedCrop((0.001, 0.05), (0.2, 5.0), "bilinear")):
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        boxes = draw_boxes(draws, *np.full((2, count), np.array(pixels.shape[:2])[:, None]), crop)
        images = decode_crops([content] * count, draws, (31, 37, 3), crop)
        for image, box, own in zip(images, boxes.tolist(), draws, strict=True):
            np.testing.assert_array_equal(image, resize_box(pixels, box, (31, 37), crop.resize_options(own)))


def test_random_interpolation_is_a_coin_for_each_image():
    draws = crop_draws(2, 0, 1_000)
    heads = [TIMM.resize_options(own) is FILTERS["bicubic"][0] for own in draws]
    assert abs(sum(heads) - 500) <= 5 * np.sqrt(250)  # five deviations: one seed in two million
    assert ResizedCrop((0.1, 1.0), (1.0, 1.0), "bicubic").resize_options(draws[0]) is FILTERS["bicubic"][0]
    assert ResizedCrop((0.1, 1.0), (1.0, 1.0), "bilinear").resize_options(draws[0]) is FILTERS["bilinear"][0]


def test_host_and_device_know_the_same_interpolations():
    assert FILTERS.keys() == INTERPOLATIONS.keys()


def test_an_unknown_interpolation_is_the_users_mistake():
    with pytest.raises(UserError, match=r"random_resized_crop\.interpolation is 'nearest'.*bilinear, bicubic, random"):
        ResizedCrop((0.1, 1.0), (1.0, 1.0), "nearest")


COUNT, BATCH, SEED = 20, 8, 3  # two batches in an epoch
SUFFIXES: dict[str, dict[str, Any]] = {".jpg": {}, ".png": {}, ".webp": {"lossless": True}, ".bmp": {}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> ImageFiles:
    """Parts of a photograph of many sizes and formats."""
    folder = tmp_path_factory.mktemp("photographs")
    names = []
    for n, box in enumerate(some_boxes(china(), COUNT, seed=1).tolist()):
        top, left, height, width = box
        suffix = [".jpg", *SUFFIXES][n % 5]
        names.append(f"{n}{suffix}")
        part = Image.fromarray(china()[top : top + height, left : left + width])
        part.save(folder / names[-1], **SUFFIXES[suffix])
    labels = np.arange(COUNT, dtype=np.int32)
    return ImageFiles(folder, np.array(names), label=labels, image_shape=(32, 32, 3), crop_pct=0.9)


def expected_batch(files: ImageFiles, step: int) -> np.ndarray:
    index = batch_indices(SEED, step, BATCH, COUNT)
    images = []
    for n, own in zip(index, crop_draws(SEED, step, BATCH), strict=True):
        whole = np.asarray(Image.open(files.called(n)).convert("RGB"))
        (box,) = draw_boxes(own[None], np.array(whole.shape[:1]), np.array(whole.shape[1:2]), TIMM)
        images.append(resize_box(whole, box, (32, 32), TIMM.resize_options(own)))
    return np.stack(images)


def test_a_stream_of_crops_is_the_same_wherever_it_begins(stored, mesh):
    grid = replicated(mesh(8)), over_data(mesh(8))
    source = StreamInput(stored, *grid, SEED, BATCH, Reading(crop=TIMM))
    for step in (0, 1, 2, 5, 6, 0):
        batch = source.batch(step)
        np.testing.assert_array_equal(batch["image"], expected_batch(stored, step), strict=True)
        np.testing.assert_array_equal(batch["label"], batch_indices(SEED, step, BATCH, COUNT))
    source.close()
    with pytest.raises(ValueError, match="cannot lie on the devices"):
        ResidentInput(stored, *grid, SEED, BATCH, Reading(crop=TIMM))


def digests(files: ImageFiles, rows: slice) -> list[str]:
    batches = HostBatches(
        files,
        lambda step: batch_indices(SEED, step, BATCH, COUNT)[rows],
        range(4),
        Crops(TIMM, lambda step: crop_draws(SEED, step, BATCH)[rows]),
    )
    return [hashlib.sha256(image.tobytes()).hexdigest() for batch in batches for image in batch["image"]]


def test_processes_and_threads_change_no_crop(stored, monkeypatch):
    whole = np.array(digests(stored, slice(None))).reshape(4, BATCH)
    for processes, threads in ((1, 1), (2, 7), (4, 2)):
        monkeypatch.setattr(host_batches, "reading_threads", lambda threads=threads: threads)
        each = BATCH // processes
        parts = [digests(stored, slice(n * each, (n + 1) * each)) for n in range(processes)]
        np.testing.assert_array_equal(np.concatenate([np.reshape(part, (4, each)) for part in parts], 1), whole)
