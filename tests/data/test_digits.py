"""The bundled digits: a fixed split that holds every image once."""

import zlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from convmixer_jax.data.sources.digits import load_digits_split
from convmixer_jax.errors import UserError


@pytest.mark.parametrize("split, count", [("train", 1437), ("test", 360)])
def test_shapes_and_ranges(split, count):
    images, labels = load_digits_split(split)
    assert (images.shape, images.dtype) == ((count, 8, 8, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((count,), np.int32)
    assert (images.min(), images.max()) == (0, 255)


def test_levels_are_the_seventeen_of_the_source():
    images, _ = load_digits_split("train")
    assert np.unique(images).tolist() == [
        0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255,
    ]  # fmt: skip


def test_every_image_is_in_exactly_one_split():
    source = load_digits()
    wanted = sorted(
        (image.astype(int).tobytes(), label) for image, label in zip(source.images, source.target, strict=True)
    )
    found = []
    for split in ("train", "test"):
        images, labels = load_digits_split(split)
        levels = np.rint(images[..., 0] / 255 * 16).astype(int)
        found += [(image.tobytes(), label) for image, label in zip(levels, labels, strict=True)]
    assert sorted(found) == wanted


def test_the_test_split_has_a_fifth_of_every_class():
    _, labels = load_digits_split("test")
    sizes = np.bincount(load_digits().target)
    assert np.all(np.abs(np.bincount(labels) - sizes * 360 / 1797) < 1)


def test_the_split_never_changes():
    # Scores are comparable only on the same test images: these numbers change with the choice, and with nothing else.
    images, labels = load_digits_split("test")
    assert labels[:12].tolist() == [1, 8, 0, 3, 8, 0, 8, 3, 5, 1, 2, 1]
    assert zlib.crc32(images.tobytes()) == 3993836709


def test_an_unknown_split_is_a_user_error():
    with pytest.raises(UserError, match="split is 'validation': choose one of train, test"):
        load_digits_split("validation")
