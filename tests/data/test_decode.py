"""Images are decoded as Pillow decodes them, and resized and cropped as it would."""

import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from convmixer_jax.data import host_batches
from convmixer_jax.data.decode import decode_image
from convmixer_jax.data.host_batches import in_memory
from convmixer_jax.data.order import padded_indices
from convmixer_jax.inference.preprocess import Preprocess
from tests.augment.samples import photographs, photographs_64
from tests.data.images import numbered, write_files


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth coloured picture with some noise, as photographs have it."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + 2 * c) * np.cos(y / 5 - c) for c in range(3)]
    noise = draw.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(128 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    return decode_image(content, shape)


def by_pillow(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


OF_ONE_SIZE = {
    "colour": encoded(picture(64, 64), quality=90),
    "coarse": encoded(picture(64, 64), quality=30),
    "full chroma": encoded(picture(64, 64), subsampling=0),
    "progressive": encoded(picture(64, 64), progressive=True),
    "grey": encoded(picture(64, 64).convert("L")),
    "PNG": encoded(picture(64, 64), "PNG"),
    "grey PNG": encoded(picture(64, 64).convert("L"), "PNG"),
    "PNG with a palette": encoded(picture(64, 64).quantize(32), "PNG"),
}


@pytest.mark.parametrize("content", OF_ONE_SIZE.values(), ids=OF_ONE_SIZE)
def test_of_the_right_size_it_is_what_pillow_decodes(content):
    image = decoded(content, (64, 64, 3))
    np.testing.assert_array_equal(image, by_pillow(content), strict=True)
    assert image.std() > 20


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_one_channel_is_grey(kind):
    grey, coloured = encoded(picture(8, 8).convert("L"), kind), encoded(picture(8, 8), kind)
    for content in (grey, coloured):
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        np.testing.assert_array_equal(decoded(content, (8, 8, 1))[..., 0], expected)


DEEP = (np.asarray(picture(64, 64).convert("L"), np.uint16) * 257)[..., None]
FRAMES = [picture(64, 64, seed) for seed in range(3)]
# The file, and what it shows; BMP, WebP, GIF and PNG keep what they are given here.
FORMATS = {
    "BMP": (encoded(picture(64, 64), "BMP"), np.asarray(picture(64, 64))),
    "WebP": (encoded(picture(64, 64), "WEBP", lossless=True), np.asarray(picture(64, 64))),
    "GIF of several frames": (
        encoded(FRAMES[0].quantize(200), "GIF", save_all=True, append_images=FRAMES[1:]),
        np.asarray(FRAMES[0].quantize(200).convert("RGB")),
    ),
    "PNG of 16 bits": (encoded(Image.fromarray(DEEP[..., 0]), "PNG"), np.repeat(DEEP // 257, 3, -1).astype(np.uint8)),
    "transparent PNG": (encoded(picture(64, 64).convert("RGBA"), "PNG"), np.asarray(picture(64, 64))),
    "TIFF": (encoded(picture(64, 64), "TIFF"), np.asarray(picture(64, 64))),
}


@pytest.mark.parametrize("content, expected", FORMATS.values(), ids=FORMATS)
def test_other_formats_are_read_too(content, expected):
    np.testing.assert_array_equal(decoded(content, (64, 64, 3)), expected, strict=True)
    preprocess = Preprocess((64, 64, 3), (0.0,) * 3, (1.0,) * 3, 1.0)
    np.testing.assert_array_equal(decoded(content, (64, 64, 3)), preprocess.levels(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_and_tiny_images(kind):
    assert_as_evaluated(encoded(picture(1, 1), kind), (64, 64, 3), 0.9)
    # 20 megapixels, of few colours, since it is the size that counts.
    assert_as_evaluated(encoded(picture(40, 50).resize((5_000, 4_000), Image.Resampling.NEAREST), kind), (64, 64, 3), 1)


def test_the_rotation_that_exif_asks_for_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = encoded(picture(64, 64), exif=exif)
    np.testing.assert_array_equal(decoded(turned, (64, 64, 3)), decoded(encoded(picture(64, 64)), (64, 64, 3)))


def evaluated_by_pillow(image: Image.Image, height: int, width: int, crop_pct: float) -> np.ndarray:
    """What timm evaluates: torchvision's Resize and CenterCrop, in Python's numbers and Pillow's bicubic filter."""
    cover_h, cover_w = math.floor(height / crop_pct), math.floor(width / crop_pct)
    w, h = image.size
    if w * cover_h <= h * cover_w:
        new_h, new_w = int(cover_w * h / w), cover_w
    else:
        new_h, new_w = cover_h, int(cover_h * w / h)
    top, left = round((new_h - height) / 2.0), round((new_w - width) / 2.0)
    resized = np.asarray(image.resize((new_w, new_h), Image.Resampling.BICUBIC))
    return resized[top : top + height, left : left + width]


def assert_as_evaluated(content: bytes, shape: tuple[int, int, int], crop_pct: float) -> None:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    expected = evaluated_by_pillow(image, *shape[:2], crop_pct)
    np.testing.assert_array_equal(decode_image(content, shape, crop_pct), expected, strict=True)


# (height, width) of the file and of the result, the share that is kept.
SIZES = [
    ((375, 500), (64, 64), 1.0),
    ((500, 375), (64, 64), 1.0),
    ((333, 333), (64, 64), 1.0),
    ((65, 64), (64, 64), 1.0),
    ((64, 65), (64, 64), 1.0),
    ((64, 67), (64, 64), 1.0),  # 3 columns too many: 1.5 of them are left out at the left, which is rounded to 2
    ((64, 69), (64, 64), 1.0),  # 2.5, which is rounded to 2
    ((250, 350), (64, 64), 1.0),  # 350 * 64 / 250 = 89.6, which becomes 89
    ((31, 47), (64, 64), 1.0),
    ((31, 47), (64, 64), 0.9),
    ((64, 65), (64, 64), 0.875),
    ((199, 99), (64, 32), 1.0),
    ((100, 100), (64, 32), 0.96),
    ((100, 100), (32, 64), 0.96),
    ((1, 1), (4, 4), 1.0),
    ((300, 100), (64, 64), 1.0),  # so tall that Pillow 13 resizes the height first
    ((100, 300), (64, 64), 0.875),
]


@pytest.mark.parametrize("size, wanted, crop_pct", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_another_size_is_resized_and_cropped_as_by_pillow(size, wanted, crop_pct, mode):
    content = encoded(picture(*size).convert(mode))
    assert_as_evaluated(content, (*wanted, 3), crop_pct)


def bundled_jpegs() -> Iterator[bytes]:
    """Photographs of many sizes: scikit-learn's two, parts of them, and enlarged ones of CIFAR-10 and Tiny ImageNet."""
    folder = Path(sklearn.datasets.__file__).parent / "images"
    for name in ("china.jpg", "flower.jpg"):
        yield (folder / name).read_bytes()
        whole = Image.open(folder / name)
        for width, height in ((500, 375), (375, 500), (500, 333), (334, 500), (500, 500), (240, 180), (224, 300)):
            yield encoded(whole.resize((width, height), Image.Resampling.LANCZOS), quality=90)
        for box in ((10, 20, 243, 299), (0, 0, 640, 130), (101, 0, 230, 427)):
            yield encoded(whole.crop(box), quality=75)
    for number, pixels in enumerate([*photographs()[-3:], *photographs_64()[:3]]):
        side = 150 + 60 * number
        yield encoded(Image.fromarray(pixels).resize((side, side + 7 * number), Image.Resampling.BICUBIC))


def test_photographs_are_those_that_timm_evaluates():
    for content in bundled_jpegs():
        assert_as_evaluated(content, (224, 224, 3), 0.96)


def test_an_image_of_the_right_size_loses_its_edge_as_any_other_one():
    assert_as_evaluated(OF_ONE_SIZE["colour"], (64, 64, 3), 0.96)


def separated(image: Image.Image) -> Image.Image:
    """In CMYK with as much black as there can be, as for print; Pillow's own conversion leaves it out."""
    rgb = np.asarray(image).astype(int)
    white = np.maximum(rgb.max(-1, keepdims=True), 1)
    return Image.fromarray(np.concatenate([255 - 255 * rgb // white, 255 - white], -1).astype(np.uint8), "CMYK")


# As Pillow writes it; as Photoshop does, with luminance and chroma: a byte of Adobe's marker says so.
CMYK = {
    "CMYK": encoded(separated(picture(64, 64)), subsampling=0, quality=95),
    "YCCK": encoded(separated(picture(64, 64)), subsampling=0, quality=95),
}
CMYK["YCCK"] = CMYK["YCCK"].replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2")


@pytest.mark.parametrize("content", CMYK.values(), ids=CMYK)
def test_cmyk_becomes_rgb(content):
    image = decoded(content, (64, 64, 3))
    np.testing.assert_array_equal(image, by_pillow(content))
    assert image.std() > 20


def test_cmyk_has_the_colours_of_the_picture():
    # Quality 95 is some levels off; inverted colours, the usual mistake, would be a hundred off.
    difference = decoded(CMYK["CMYK"], (64, 64, 3)).astype(int) - np.asarray(picture(64, 64))
    assert np.abs(difference).mean() < 5
    assert CMYK["CMYK"] != CMYK["YCCK"]


def test_flat_black_and_white_stay_so():
    # Bicubic weights are negative in places: without clipping, an edge would wrap around in uint8.
    edge = np.zeros((90, 90, 3), np.uint8)
    edge[:, 45:] = 255
    image = decoded(encoded(Image.fromarray(edge), "PNG"), (64, 64, 3))
    assert image[:, :28].max() == 0
    assert image[:, 36:].min() == 255


def test_in_memory_leaves_arrays_alone():
    examples = numbered(3)
    assert in_memory(examples) is examples


@pytest.mark.parametrize("at_once", [3, 7, 10])
def test_files_in_memory_are_all_there_in_order(tmp_path, monkeypatch, capfd, at_once):
    monkeypatch.setattr(host_batches, "_READ_AT_ONCE", at_once)
    examples = numbered(7)
    files = write_files(tmp_path, examples)
    read = in_memory(files)
    np.testing.assert_array_equal(read.image, examples.image, strict=True)
    np.testing.assert_array_equal(read.label, examples.label, strict=True)
    some = in_memory(files.take(np.array([5, 1])))
    np.testing.assert_array_equal(some.image, examples.image[[5, 1]], strict=True)
    assert capfd.readouterr().err == "", "quick: no bar"


def test_a_long_wait_shows_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(host_batches, "_BAR_AFTER_S", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    in_memory(write_files(tmp_path / "a data set", numbered(7)))
    assert "reading images: 100%" in capsys.readouterr().err


def test_padded_indices_by_hand():
    # Three examples in batches of two: the second batch is padded with example 0.
    assert [[part.tolist() for part in padded_indices(number, 2, 3)] for number in (0, 1)] == [
        [[0, 1], [True, True]],
        [[2, 0], [True, False]],
    ]
