"""Every example counts once in the confusion matrix, and the worst mistakes come first."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data.datasets import DATASETS, open_split
from convmixer_jax.data.examples import Examples, ImageFiles
from convmixer_jax.data.sources import tfds_prepared
from convmixer_jax.errors import UserError
from convmixer_jax.inference.examination import dataset_of, examine
from tests.data.records import WRITE, example
from tests.inference.random_weights import random_weights

# The first pixel of example i is i, and LOGITS[i] are its logits. Predicted: 0 0 1 2 2 0 0; mistakes: 1, 3, 5, 6.
LABEL = np.array([0, 1, 1, 0, 2, 2, 1], np.int32)
LOGITS = np.array([[3, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 900], [0, 0, 1], [4, 0, 0], [2, 1, 0]], np.float32)
EXAMPLES = Examples(np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), LABEL)


def classify(images):
    return LOGITS[images[:, 0, 0, 0]]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_counts_and_mistakes(batch_size):
    found = examine(classify, EXAMPLES, batch_size, keep=3, num_classes=3)
    np.testing.assert_array_equal(found.confusion, [[1, 0, 1], [2, 1, 0], [1, 0, 1]])
    assert (found.count, found.top1) == (7, 3 / 7)
    # Their losses: log(e^2 + e + 1) - 1 for 1 and 6, 900 for 3, log(e^4 + 2) for 5. Of equal ones the first is kept.
    assert [mistake.index for mistake in found.mistakes] == [3, 5, 1]
    losses = [900, math.log(math.exp(4) + 2), math.log(math.exp(2) + math.e + 1) - 1]
    assert [mistake.loss for mistake in found.mistakes] == pytest.approx(losses, rel=1e-12)
    worst = found.mistakes[0]
    assert (worst.label, worst.predicted, worst.probability, worst.probability_of_true) == (0, 2, 1.0, 0.0)
    assert [int(mistake.image[0, 0, 0]) for mistake in found.mistakes] == [3, 5, 1]
    assert found.mistakes[2].probability == pytest.approx(math.exp(2) / (math.exp(2) + math.e + 1))


def test_logits_that_are_no_numbers_are_not_counted(recwarn):
    wrong = np.where(np.arange(7)[:, None] == [2, 5, 9], np.nan, LOGITS)
    with pytest.raises(UserError, match="logits are NaN or infinite for 2 of 7 images"):
        examine(lambda images: wrong[images[:, 0, 0, 0]], EXAMPLES, 7, keep=3, num_classes=3)
    assert list(recwarn) == []


def test_image_files_are_read_in_order(tmp_path):
    for level in range(7):
        Image.new("L", (2, 2), level).save(tmp_path / f"{level}.png")
    files = ImageFiles(tmp_path, np.array([f"{level}.png" for level in range(7)]), label=LABEL, image_shape=(2, 2, 1))
    found = examine(classify, files, 3, keep=7, num_classes=3)
    np.testing.assert_array_equal(found.confusion, [[1, 0, 1], [2, 1, 0], [1, 0, 1]])
    assert [mistake.index for mistake in found.mistakes] == [3, 5, 1, 6]


def write_folder(data_dir: Path) -> str:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (data_dir / "photos/val" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(data_dir / "photos/val" / name)
    return f"folder:{data_dir / 'photos'}"


def write_prepared(data_dir: Path) -> str:
    directory = data_dir / "pets/1.0.0"
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").touch()
    WRITE["tfrecord"](directory / "pets-test", [example({"image": b"", "label": label}) for label in (0, 0, 1)])
    return "tfds:pets"


DESCRIPTION = {
    "file_format": "tfrecord",
    "supervised": ["image", "label"],
    "splits": {"train": [["pets-train", 9]], "test": [["pets-test", 3]]},
    "images": {"image": {"shape": [None, None, 3], "dtype": "uint8"}},
    "labels": {"label": ["cat", "dog"]},
    "others": [],
}


@pytest.mark.parametrize("place", [write_folder, write_prepared])
def test_of_a_data_set_that_was_found_by_its_place_the_test_split_is_read(tmp_path, monkeypatch, place):
    monkeypatch.setattr(tfds_prepared, "describe_tfds_directory", lambda directory: DESCRIPTION)
    description, _ = random_weights("cifar10")
    changes = {"dataset": place(tmp_path), "class_names": ("cat", "dog"), "num_classes": 2}
    dataset = dataset_of(dataclasses.replace(description, **changes), tmp_path)
    assert open_split(dataset, "test", tmp_path).label.tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["imagenet", "tiny_imagenet"])
def test_weights_may_name_the_classes_by_their_identifiers(name):
    description, _ = random_weights("cifar10")
    row = DATASETS[name]
    named = {"class_names": row.other_names, "num_classes": row.num_classes, "image_shape": row.image_shape}
    assert dataset_of(dataclasses.replace(description, **named), Path()) is row


def test_a_data_set_is_known_by_its_classes_and_images():
    description, _ = random_weights("cifar10")
    assert dataset_of(description, Path()) is DATASETS["cifar10"]
    for change in ({"image_shape": (64, 64, 3)}, {"class_names": ("cat", "dog"), "num_classes": 2}):
        with pytest.raises(UserError, match=r"random weights is a model of .* classes and .*cifar10.*no test split"):
            dataset_of(dataclasses.replace(description, **change), Path())
