"""Images of any size, mode and rotation become what timm's evaluation makes of them."""

import math
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.datasets
from PIL import Image

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.data.fitting import MOST_PIXELS, resized_shape
from convmixer_jax.errors import UserError
from convmixer_jax.inference.preprocess import Preprocess
from tests.augment.samples import photographs_64
from tests.data.images import make_it_a_folder


def made_for(height: int, width: int, channels: int = 3, crop_pct: float = 1.0) -> Preprocess:
    return Preprocess((height, width, channels), (0.5, 0.4, 0.3)[:channels], (0.2, 0.25, 0.5)[:channels], crop_pct)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory) -> list[Path]:
    """Real photographs of many sizes: two large ones, cut and shrunk, and small ones as they are."""
    folder = tmp_path_factory.mktemp("photographs")
    china, flower = (Image.fromarray(sklearn.datasets.load_sample_image(f"{name}.jpg")) for name in ("china", "flower"))
    pictures = [china, flower.rotate(90, expand=True), china.resize((500, 375)), flower.crop((60, 20, 393, 353))]
    pictures += [flower.resize((233, 301)), china.resize((97, 224)), china.resize((223, 225)), china.convert("L")]
    pictures += [Image.fromarray(image) for image in photographs_64()[:2]]
    paths = [folder / f"{n}.jpg" for n in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path, quality=92)
    return paths


def by_timm(path: Path, img_size: int, crop_pct: float) -> np.ndarray:
    """Resize, of the shorter side, and CenterCrop as timm's transforms_imagenet_eval puts torchvision's together."""
    image = Image.open(path).convert("RGB")
    size = math.floor(img_size / crop_pct)
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_short, new_long = size, int(size * long / short)
    new_w, new_h = (new_short, new_long) if w <= h else (new_long, new_short)
    if (new_w, new_h) != (w, h):
        image = image.resize((new_w, new_h), Image.Resampling.BICUBIC)
    top, left = round((new_h - img_size) / 2.0), round((new_w - img_size) / 2.0)
    return np.asarray(image)[top : top + img_size, left : left + img_size]


@pytest.mark.parametrize("img_size, crop_pct", [(224, 0.96), (224, 0.875), (64, 1.0), (32, 1.0), (225, 0.95)])
def test_photographs_are_resized_and_cropped_as_timm_does(jpegs, img_size, crop_pct):
    preprocess = made_for(img_size, img_size, crop_pct=crop_pct)
    for path in jpegs:
        levels = preprocess.levels(path)
        np.testing.assert_array_equal(levels, by_timm(path, img_size, crop_pct), strict=True)
        assert levels.std() > 15


def test_an_image_of_the_models_size_is_left_as_it_is_where_all_of_it_counts():
    image = photographs_64()[0]
    np.testing.assert_array_equal(made_for(64, 64, crop_pct=1.0).levels(Image.fromarray(image)), image)


# 375 x 500 covers 64 x 64 at 64/375: 500 * 64 / 375 = 85.3. Of 201 x 99 for 64 x 32 the width decides: 64.97.
@pytest.mark.parametrize("size, wanted, crop_pct, expected", [
    ((375, 500), (64, 64), 1.0, (64, 85)),
    ((500, 375), (64, 64), 1.0, (85, 64)),
    ((375, 500), (224, 224), 0.96, (233, 310)),
    ((201, 99), (64, 32), 1.0, (64, 32)),
    ((100, 100), (64, 32), 1.0, (64, 64)),
    ((100, 100), (64, 32), 0.5, (128, 128)),
    ((1, 7), (3, 5), 1.0, (3, 21)),
])  # fmt: skip
def test_sizes_by_hand(size, wanted, crop_pct, expected):
    assert resized_shape(*size, (*wanted, 3), crop_pct) == expected


def test_every_size_is_covered():
    for h, w in np.random.default_rng(0).integers(1, 400, (100, 2)).tolist():
        assert made_for(7, 5, 1, 0.9).levels(Image.new("L", (w, h), 77)).tolist() == np.full((7, 5, 1), 77).tolist()


def test_normalised_by_hand():
    image = Image.fromarray(np.array([[[51, 102, 0], [255, 0, 153]]], np.uint8))
    batch = made_for(1, 2)([image, image])
    assert (batch.dtype, batch.shape) == (np.float32, (2, 1, 2, 3))
    # (0.2 - 0.5) / 0.2, (0.4 - 0.4) / 0.25, (0 - 0.3) / 0.5; and so on
    np.testing.assert_allclose(batch[1, 0], [[-1.5, 0, -0.6], [2.5, -1.6, 0.6]], atol=1e-6)
    assert made_for(1, 2)([]).shape == (0, 1, 2, 3)
    np.testing.assert_array_equal(made_for(1, 2)(image), batch[:1])


def test_what_a_recipe_evaluates_is_what_is_predicted():
    digits = DATASETS["digits"].load(Path("/nonexistent"), "test").image[:3]
    preprocess = Preprocess((8, 8, 1), (0.25,), (0.5,), 1.0)
    batch = preprocess([Image.fromarray(image[..., 0]) for image in digits])
    np.testing.assert_allclose(batch, (digits / 255 - 0.25) / 0.5, atol=1e-6)


def orange(alpha: int) -> Image.Image:
    return Image.new("RGBA", (4, 4), (250, 120, 30, alpha))


def palette(transparency: bytes | int) -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 250, 120, 30])
    image.info["transparency"] = transparency
    return image


def deep(level: int, kind: npt.DTypeLike) -> Image.Image:
    return Image.fromarray(np.full((4, 4), level, kind))


ORANGE, GREY = (250, 120, 30), 149  # 0.299 * 250 + 0.587 * 120 + 0.114 * 30 = 148.6
# The image, its file's ending, and its levels as RGB and as grey.
MODES: dict[str, tuple[Callable[[], Image.Image], str, tuple[int, int, int], int]] = {
    "RGB": (lambda: orange(255).convert("RGB"), "png", ORANGE, GREY),
    "L": (lambda: Image.new("L", (4, 4), 77), "png", (77, 77, 77), 77),
    "LA": (lambda: Image.new("LA", (4, 4), (77, 10)), "png", (77, 77, 77), 77),
    "1": (lambda: Image.new("1", (4, 4), 1), "png", (255, 255, 255), 255),
    "RGBA": (lambda: orange(255), "png", ORANGE, GREY),
    "RGBA, nearly transparent": (lambda: orange(1), "png", ORANGE, GREY),
    "palette": (lambda: orange(255).convert("RGB").quantize(4), "png", ORANGE, GREY),
    "palette, transparent": (lambda: palette(b"\xff\x80"), "png", ORANGE, GREY),
    "palette, one level transparent": (lambda: palette(1), "gif", ORANGE, GREY),
    # Without black, red is 255 minus cyan and so on; with half black, half of it.
    "CMYK": (lambda: Image.new("CMYK", (4, 4), (5, 135, 225, 0)), "tif", ORANGE, GREY),
    "CMYK, black": (lambda: Image.new("CMYK", (4, 4), (5, 135, 225, 255)), "tif", (0, 0, 0), 0),
    "YCbCr": (lambda: Image.new("YCbCr", (4, 4), (77, 128, 128)), "tif", (77, 77, 77), 77),
    "16 bit": (lambda: deep(100 * 257, np.uint16), "png", (100, 100, 100), 100),
    "16 bit, rounded": (lambda: deep(100 * 257 + 129, np.uint16), "png", (101, 101, 101), 101),
    "16 bit, white": (lambda: deep(65_535, np.uint16), "tif", (255, 255, 255), 255),
    "16 bit of PGM": (lambda: deep(100 * 257, np.int32), "pgm", (100, 100, 100), 100),
    "16 bit, the other order": (lambda: deep(100 * 257, np.dtype(">u2")), "tif", (100, 100, 100), 100),
    "whole floating-point levels": (lambda: deep(100, np.float32), "tif", (100, 100, 100), 100),
}  # fmt: skip


@pytest.mark.parametrize("make, ending, colour, grey", MODES.values(), ids=MODES)
@pytest.mark.parametrize("channels", [3, 1])
def test_every_mode(tmp_path, make, ending, colour, grey, channels):
    path = tmp_path / f"image.{ending}"
    make().save(path)
    expected = np.full((4, 4, channels), colour if channels == 3 else grey, np.uint8)
    np.testing.assert_array_equal(made_for(4, 4, channels).levels(path), expected)
    # Enlarged, it is as flat.
    np.testing.assert_array_equal(made_for(6, 6, channels).levels(path)[1], expected[[0] * 6, 0])


def test_a_cmyk_jpeg_is_as_pillow_has_it(tmp_path):
    cmyk = Image.fromarray(photographs_64()[1]).convert("CMYK")
    cmyk.save(tmp_path / "a.jpg", quality=95)
    levels = made_for(64, 64).levels(tmp_path / "a.jpg")
    np.testing.assert_array_equal(levels, np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB")))
    assert np.abs(levels.astype(int) - photographs_64()[1]).mean() < 5  # not inverted


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.unique(made_for(4, 4).levels(tmp_path / "a.gif")).tolist() == [10]


# How a picture is stored so that the orientation puts it upright, as EXIF 2.3 has it: 6 is "turn 90 degrees clockwise".
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_the_rotation_of_exif_is_applied(tmp_path, orientation):
    upright = photographs_64()[0][:40]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(made_for(40, 64).levels(tmp_path / "a.png"), upright)


def test_nothing_of_a_given_image_changes():
    image = orange(7).resize((9, 9))
    before = image.tobytes()
    made_for(4, 4).levels(image)
    assert (image.mode, image.size, image.tobytes()) == ("RGBA", (9, 9), before)


def header_only(path: Path) -> None:
    """A PNG that says it is 1 x 1, and has no pixels."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1, 1, 8, 2, 0, 0, 0) + b"\0\0\0\0")


def link_to_nothing(path: Path) -> None:
    """A link to where nothing is."""
    path.unlink()
    path.symlink_to("nothing")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:900]), "damaged"),
    "its end overwritten": (lambda path: path.write_bytes(path.read_bytes()[:-40] + b"?" * 40), "damaged"),
    "no pixels": (header_only, "its beginning is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "no image that Pillow knows"),
    "text": (lambda path: path.write_text("<html>404 Not Found</html>"), "no image that Pillow knows"),
    "missing": (lambda path: path.unlink(), "there is no such file"),
    "a folder": (make_it_a_folder, "cannot be used ([Errno 21] Is a directory"),
    # 1 becomes 224 and 4000 as many times as much.
    "a strip": (
        lambda path: Image.new("L", (4000, 1)).save(path),
        "to cover 224 x 224, its 4000 x 1 pixels would become 896000 x 224: too many",
    ),
    "a link to nothing": (link_to_nothing, "the link leads to no file"),
}


@pytest.mark.parametrize("spoil, told", BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path, spoil, told):
    path = tmp_path / "image.png"
    Image.fromarray(photographs_64()[0]).save(path)
    made_for(224, 224).levels(path)
    spoil(path)
    with pytest.raises(UserError) as error:
        made_for(224, 224)([os.fspath(path)])
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)


@pytest.mark.parametrize("level, told", [(0.5, "0.5 to 0.5"), (256, "256 to 256"), (-1, "-1 to -1"), (np.nan, "nan")])
def test_floating_point_levels_that_may_mean_anything_are_refused(tmp_path, level, told):
    deep(level, np.float32).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=rf"a\.tif: .* floating-point numbers, {told}.* of 8 or 16 bits"):
        made_for(4, 4).levels(tmp_path / "a.tif")


def test_how_long_and_narrow_it_may_be():
    assert 224 * 224 * 2000 < MOST_PIXELS < 224 * 224 * 4000
