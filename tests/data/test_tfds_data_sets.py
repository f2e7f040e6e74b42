"""What tensorflow_datasets itself prepares is read as it was written, or refused in one line."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.datasets import find_dataset, load_split, open_split
from convmixer_jax.data.sources.imagenet import load_imagenet
from convmixer_jax.data.sources.imagenet_spec import IMAGENET
from convmixer_jax.data.sources.records import ArrayRecordImages, RecordImages, TFRecordImages
from convmixer_jax.errors import UserError
from tests.data.tfds_data_sets import WNIDS, prepare_all

pytestmark = pytest.mark.slow  # each reading starts a process that imports tensorflow_datasets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A data_dir with all of tfds_data_sets.py."""
    data_dir = tmp_path_factory.mktemp("prepared")
    prepare_all(data_dir)
    return data_dir


# For each: the classes, the shape, whether it varies, the numbers of the test images, and the kind of the shards.
FRUIT = ("pear", "apple", "fig")
READ: dict[str, tuple[tuple[str, ...], tuple[int, int, int], bool, range, type[RecordImages]]] = {
    "photos": (FRUIT, (224, 224, 3), True, range(12, 18), TFRecordImages),
    "numbers": (("0", "1", "2"), (4, 6, 1), False, range(12, 18), ArrayRecordImages),
    "secret": (FRUIT, (224, 224, 3), True, range(9, 12), ArrayRecordImages),
}


@pytest.mark.parametrize("name", READ)
def test_what_tfds_prepares_is_read_as_it_was_written(prepared, name):
    class_names, image_shape, varied, test, kind = READ[name]
    dataset = find_dataset(f"tfds:{name}", prepared)
    assert (dataset.class_names, dataset.image_shape, dataset.varied) == (class_names, image_shape, varied)
    for split, numbers in (("train", range(9)), ("test", test)):
        assert dataset.num_examples[split] == len(numbers)
        assert isinstance(open_split(dataset, split, prepared), kind)
        examples = load_split(dataset, split, prepared)
        assert examples.label.tolist() == [n % 3 for n in numbers]
        expected = np.broadcast_to(np.reshape(numbers, (-1, 1, 1, 1)), (len(numbers), *image_shape))
        np.testing.assert_array_equal(examples.image, expected)


TOLD = {
    "pairs": "has the images left, right, the class labels same and besides score:",
    "deep": "has images of 1 channels and type uint16 as 'image':",
}


@pytest.mark.parametrize("name, words", TOLD.items())
def test_what_tfds_prepares_otherwise_is_refused(prepared, name, words):
    with pytest.raises(UserError) as caught:
        find_dataset(f"tfds:{name}", prepared)
    assert words in str(caught.value)


def test_a_fifth_of_a_training_split_alone_is_the_test_split(prepared):
    dataset = find_dataset("tfds:lone", prepared)
    assert dataset.num_examples == {"train": 2, "test": 1}
    parts = [load_split(dataset, split, prepared) for split in ("train", "test")]
    assert sorted(int(level) for part in parts for level in part.image[:, 0, 0, 0]) == [0, 1, 2]


def test_imagenet_is_found_where_tfds_prepared_it(prepared, tmp_path):
    spec = dataclasses.replace(
        IMAGENET,
        classes=WNIDS,
        num_examples={"train": 9, "test": 3},
        val_digest=hashlib.sha256(b"n01\nn02\nn03\n").hexdigest(),
    )
    for split, numbers in (("train", range(9)), ("test", range(9, 12))):
        images = load_imagenet(prepared, split, spec)
        assert images.label.tolist() == [n % 3 for n in numbers]
        assert images.read(0).startswith(b"\x89PNG")
    shutil.copytree(prepared / "imagenet2012", tmp_path / "imagenet2012")
    other = dataclasses.replace(spec, classes=("n02", "n01", "n03"))
    with pytest.raises(UserError, match="1.0.0 has other classes than ImageNet, or another order: write the shards"):
        load_imagenet(tmp_path, "train", other)
