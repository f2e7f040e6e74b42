"""Images are decoded as Pillow decodes them, and resized and cropped as it would."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data import host_batches
from convmixer_jax.data.decode import check_readable, decode_image
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.host_batches import in_memory
from convmixer_jax.data.order import padded_indices
from convmixer_jax.errors import UserError
from tests.data.images import make_it_a_folder, numbered, write_files


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
    return decode_image(content, shape).numpy()


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


def test_one_channel_is_grey():
    image = picture(8, 8).convert("L")
    np.testing.assert_array_equal(decoded(encoded(image, "PNG"), (8, 8, 1))[..., 0], np.asarray(image))


# (height, width) of the file, of the result, and of what it is resized to before its centre is cut out. Written down
# by hand: 375 x 500 covers 64 x 64 at 64/375, and 500 * 64 / 375 = 85.3.
SIZES = [
    ((375, 500), (64, 64), (64, 85)),
    ((500, 375), (64, 64), (85, 64)),
    ((333, 333), (64, 64), (64, 64)),
    ((65, 64), (64, 64), (65, 64)),
    ((64, 65), (64, 64), (64, 65)),
    ((31, 47), (64, 64), (64, 97)),  # larger: 47 * 64 / 31 = 97.03
    ((201, 99), (64, 32), (65, 32)),  # 201 * 32 / 99 = 64.97: the width decides
    ((100, 100), (64, 32), (64, 64)),
    ((1, 1), (4, 4), (4, 4)),
]


@pytest.mark.parametrize("size, wanted, between", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_another_size_is_resized_and_cropped_as_by_pillow(size, wanted, between, mode):
    content = encoded(picture(*size).convert(mode))
    resized = Image.open(io.BytesIO(content)).convert("RGB").resize(between[::-1], Image.Resampling.BICUBIC)
    top, left = (between[0] - wanted[0]) // 2, (between[1] - wanted[1]) // 2
    expected = np.asarray(resized)[top : top + wanted[0], left : left + wanted[1]]
    image = decoded(content, (*wanted, 3))
    assert (image.dtype, image.shape) == (np.uint8, (*wanted, 3))
    # Pillow rounds to whole levels between its two passes.
    assert np.abs(image.astype(int) - expected).max() <= 1


def test_flat_black_and_white_stay_so():
    # Bicubic weights are negative in places: without clipping, an edge would wrap around in uint8.
    edge = np.zeros((90, 90, 3), np.uint8)
    edge[:, 45:] = 255
    image = decoded(encoded(Image.fromarray(edge), "PNG"), (64, 64, 3))
    assert image[:, :28].max() == 0
    assert image[:, 36:].min() == 255


BAD: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-500]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404 Not Found</html>"),
    "a folder": make_it_a_folder,
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_the_first_bad_file_is_named_in_one_line(tmp_path, spoil):
    paths = [tmp_path / f"{n}.JPEG" for n in range(4)]
    for path in paths:
        path.write_bytes(OF_ONE_SIZE["colour"])
    check_readable(paths, (64, 64, 3))
    for path in paths[2:]:
        spoil(path)
    with pytest.raises(UserError) as caught:
        check_readable(paths, (64, 64, 3))
    assert str(paths[2]) in str(caught.value)
    assert "take it anew" in str(caught.value)
    assert "node" not in str(caught.value), "TensorFlow's words are no help"


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
    assert "reading a data set: 100%" in capsys.readouterr().err


def test_the_digest_sees_names_sizes_labels_and_order(tmp_path):
    files = write_files(tmp_path / "here", numbered(7))
    first = files.digest()
    assert write_files(tmp_path / "elsewhere", numbered(7)).digest() == first, "not where the folder lies"
    labels = files.label.copy()
    labels[0] += 1
    others = [
        ImageFiles(files.folder, files.name, labels, files.image_shape),
        ImageFiles(files.folder, files.name[::-1], files.label, files.image_shape),
        files.take(np.arange(6)),
    ]
    digests = {first} | {other.digest() for other in others}
    os.rename(files.folder / "0.png", files.folder / "new.png")
    digests.add(ImageFiles(files.folder, np.array(["new.png", *files.name[1:]]), files.label, (4, 4, 3)).digest())
    os.rename(files.folder / "new.png", files.folder / "0.png")
    with open(files.folder / "3.png", "ab") as file:
        file.write(b"x")
    assert len(digests | {files.digest()}) == 6
    (files.folder / "3.png").unlink()
    with pytest.raises(UserError, match=r"3\.png cannot be read \(No such file or directory\)"):
        files.digest()


def test_padded_indices_by_hand():
    # Three examples in batches of two: the second batch is padded with example 0.
    assert [[part.tolist() for part in padded_indices(number, 2, 3)] for number in (0, 1)] == [
        [[0, 1], [True, True]],
        [[2, 0], [True, False]],
    ]
