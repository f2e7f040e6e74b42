"""Data sets that tensorflow_datasets prepared are found by name, read where they lie, and refused in one line."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convmixer_jax.data.datasets import find_dataset, from_record, open_split, to_record
from convmixer_jax.data.sources import tfds_prepared
from convmixer_jax.data.sources.records import RecordImages, TFRecordImages
from convmixer_jax.errors import UserError
from tests.data.records import WRITE, example

# What tensorflow_datasets says of such a directory; test_tfds_data_sets.py has real ones.
DESCRIPTION: dict[str, Any] = {
    "file_format": "tfrecord",
    "supervised": None,
    "splits": {
        "train": [["fruit-train.tfrecord-00000-of-00002", 2], ["fruit-train.tfrecord-00001-of-00002", 1]],
        "validation": [["fruit-validation.tfrecord-00000-of-00001", 1]],
        "test": [["fruit-test.tfrecord-00000-of-00001", 2]],
    },
    "images": {"image": {"shape": [None, None, 3], "dtype": "uint8"}},
    "labels": {"label": ["pear", "apple"]},
    "others": ["id"],
}
LABELS = {"train": [1, 0, 1], "validation": [1], "test": [0, 1]}


@pytest.fixture
def described(monkeypatch) -> dict[str, Any]:
    """What the stand-in for tensorflow_datasets says, to be changed; under "asked" how often."""
    description = copy.deepcopy(DESCRIPTION) | {"asked": 0}

    def describe(directory: Path) -> dict[str, Any]:
        description["asked"] += 1
        return description

    monkeypatch.setattr(tfds_prepared, "describe_tfds_directory", describe)
    return description


def write(directory: Path, labels: dict[str, list[int]] = LABELS, splits: dict = DESCRIPTION["splits"]) -> Path:
    """The shards of DESCRIPTION, or of others, and files that stand for the description."""
    directory.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (directory / name).write_text(directory.name)
    for split, values in labels.items():
        remaining = iter(values)
        for name, count in splits[split]:
            records = [{"image": f"{split} {n}".encode(), "label": next(remaining)} for n in range(count)]
            WRITE["tfrecord"](directory / name, [example(record) for record in records])
    return directory


def test_the_newest_version_is_found(tmp_path, described):
    for version in ("1.0.9", "1.0.10", "1.0.2"):
        write(tmp_path / "fruit" / version)
    (tmp_path / "fruit/1.1.0.incompleteA").mkdir()
    (tmp_path / "fruit/2.0.0").mkdir()  # without a description
    dataset = find_dataset("tfds:fruit", tmp_path)
    images = open_split(dataset, "train", tmp_path)
    assert isinstance(images, RecordImages)
    assert images.path(0).parent.name == "1.0.10"
    older = open_split(find_dataset("tfds:fruit:1.0.2", tmp_path), "train", tmp_path)
    assert isinstance(older, RecordImages)
    assert older.path(0).parent.name == "1.0.2"


def test_a_configuration_is_named(tmp_path, described):
    write(tmp_path / "fruit/ripe/1.0.0")
    write(tmp_path / "fruit/green/1.0.0")
    assert len(open_split(find_dataset("tfds:fruit/ripe", tmp_path), "test", tmp_path)) == 2
    assert len(open_split(find_dataset("tfds:fruit/ripe:1.0.0", tmp_path), "test", tmp_path)) == 2
    with pytest.raises(UserError, match="fruit has the configurations green, ripe: name one, such as tfds:fruit/green"):
        find_dataset("tfds:fruit", tmp_path)


def test_facts_and_images_are_those_of_the_directory(tmp_path, described):
    write(tmp_path / "fruit/1.0.0")
    dataset = find_dataset("tfds:fruit", tmp_path)
    assert dataset.num_examples == {"train": 3, "test": 2}
    assert dataset.class_names == ("pear", "apple")
    assert (dataset.image_shape, dataset.varied, dataset.crop_pct) == ((224, 224, 3), True, 0.96)
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    train = open_split(dataset, "train", tmp_path)
    assert isinstance(train, TFRecordImages)
    assert train.label.tolist() == [1, 0, 1]
    assert [train.read(n) for n in range(3)] == [b"train 0", b"train 1", b"train 0"]
    assert (train.image_shape, train.crop_pct) == ((224, 224, 3), 0.96)


def test_grey_images_of_one_size_are_taken_as_they_are(tmp_path, described):
    write(tmp_path / "fruit/1.0.0")
    described["images"]["image"]["shape"] = [28, 20, 1]
    dataset = find_dataset("tfds:fruit", tmp_path)
    assert (dataset.image_shape, dataset.varied, dataset.crop_pct) == ((28, 20, 1), False, 1.0)
    assert (dataset.mean, dataset.std) == ((0.449,), (0.226,))


def test_what_is_known_is_asked_once(tmp_path, described):
    directory = write(tmp_path / "fruit/1.0.0")
    for _ in range(2):
        find_dataset("tfds:fruit", tmp_path)
    assert described["asked"] == 1
    (directory / "features.json").write_text("another description")
    find_dataset("tfds:fruit", tmp_path)
    assert described["asked"] == 2


def test_without_known_test_labels_validation_is_the_test_split(tmp_path, described):
    write(tmp_path / "fruit/1.0.0", LABELS | {"test": [-1, -1]})
    dataset = find_dataset("tfds:fruit", tmp_path)
    assert dataset.num_examples["test"] == 1
    assert open_split(dataset, "test", tmp_path).label.tolist() == [1]


ALONE = {
    "all there is": {"train": [n % 2 for n in range(20)]},
    "others without labels": {"train": [n % 2 for n in range(20)], "test": [-1, -1]},
}


@pytest.mark.parametrize("labels", ALONE.values(), ids=ALONE)
def test_a_fifth_of_a_training_split_alone_is_the_test_split(tmp_path, described, labels):
    names = {"train": DESCRIPTION["splits"]["train"], "test": DESCRIPTION["splits"]["test"]}
    counts = {"train": [15, 5], "test": [2]}
    described["splits"] = {
        split: [[name, count] for (name, _), count in zip(names[split], counts[split], strict=True)] for split in labels
    }
    write(tmp_path / "fruit/1.0.0", labels, described["splits"])
    dataset = find_dataset("tfds:fruit", tmp_path)
    assert dataset.num_examples == {"train": 16, "test": 4}
    parts = {split: open_split(dataset, split, tmp_path) for split in ("train", "test")}
    assert len({name for part in parts.values() for name, _ in part.sizes()}) == 20
    assert np.bincount(parts["test"].label).tolist() == [2, 2]
    known = from_record(to_record("tfds:fruit", dataset), "config.json")
    again = open_split(find_dataset("tfds:fruit", tmp_path, known=known), "test", tmp_path)
    assert again.digest() == parts["test"].digest()


def test_an_evaluation_needs_neither_training_data_nor_the_same_order_of_classes(tmp_path, described):
    directory = write(tmp_path / "fruit/1.0.0")
    record = to_record("tfds:fruit", find_dataset("tfds:fruit", tmp_path))
    for shard in directory.glob("*-train*"):
        shard.unlink()
    described["labels"]["label"] = ["apple", "pear"]  # so that stored 0 is an apple now
    (directory / "features.json").write_text("another description")
    known = from_record(record, "config.json")
    dataset = find_dataset("tfds:fruit", tmp_path, known=known)
    assert described["asked"] == 1
    assert dataset.class_names == ("pear", "apple")
    assert open_split(dataset, "test", tmp_path).label.tolist() == [1, 0]


def other_classes(described: dict[str, Any], directory: Path) -> None:
    described["labels"]["label"] = ["pear", "plum"]


def fewer_images(described: dict[str, Any], directory: Path) -> None:
    described["splits"]["test"] = [["fruit-validation.tfrecord-00000-of-00001", 1]]


CHANGED = {
    "classes": (other_classes, "has the classes pear, plum, not those of the run, pear, apple:"),
    "images": (fewer_images, "has 1 images for 'test', and the run began with 2:"),
}


@pytest.mark.parametrize("change, words", CHANGED.values(), ids=CHANGED)
def test_a_directory_that_is_another_one_than_that_of_the_run_is_refused(tmp_path, described, change, words):
    directory = write(tmp_path / "fruit/1.0.0")
    known = from_record(to_record("tfds:fruit", find_dataset("tfds:fruit", tmp_path)), "config.json")
    change(described, directory)
    (directory / "features.json").write_text("another description")
    with pytest.raises(UserError) as caught:
        open_split(find_dataset("tfds:fruit", tmp_path, known=known), "test", tmp_path)
    assert words in str(caught.value)


PLACES = {
    "nothing there": (
        "fruit",
        "fruit/VERSION is not there: prepare it where there is a network, by `tfds build fruit ",
    ),
    "no such version": ("fruit:2.0.0", "fruit/2.0.0 is not there: prepare it"),
    "no such configuration": ("fruit/ripe", "fruit/ripe/VERSION is not there: prepare it"),
    "a path": ("../fruit", "config.dataset is 'tfds:../fruit': tfds:NAME and tfds:NAME/CONFIG are accepted"),
    "nothing": ("", "config.dataset is 'tfds:': tfds:NAME and"),
    "half a version": ("fruit:1", "config.dataset is 'tfds:fruit:1': tfds:NAME and"),
}


@pytest.mark.parametrize("place, words", PLACES.values(), ids=PLACES)
def test_what_is_not_there_is_named_with_the_way_out(tmp_path, place, words):
    with pytest.raises(UserError) as caught:
        find_dataset(f"tfds:{place}", tmp_path)
    assert words in str(caught.value)


def with_splits(*names: str) -> Callable[[dict[str, Any]], object]:
    return lambda d: d.update(splits={name: d["splits"][name] for name in names})


DESCRIPTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "two images": (
        lambda d: d["images"].update(mask=d["images"]["image"]),
        "has the images image, mask, the class labels label and besides id: one image and one class label are needed",
    ),
    "no label": (lambda d: d["labels"].clear(), "has the images image, the class labels none and besides id:"),
    "16 bits": (
        lambda d: d["images"]["image"].update(dtype="uint16"),
        "has images of 3 channels and type uint16 as 'image': grey or RGB of uint8 are read",
    ),
    "transparent": (lambda d: d["images"]["image"].update(shape=[8, 8, 4]), "has images of 4 channels and type uint8"),
    "another format": (
        lambda d: d.update(file_format="riegeli"),
        "has files of the format riegeli, and tfrecord, array_record are read:",
    ),
    "no training split": (with_splits("test"), "has the splits test: 'train' is needed"),
}


@pytest.mark.parametrize("change, words", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_data_set_that_cannot_be_used_says_what_there_is(tmp_path, described, change, words):
    directory = write(tmp_path / "fruit/1.0.0")
    change(described)
    with pytest.raises(UserError) as caught:
        find_dataset("tfds:fruit", tmp_path)
    assert f"{directory} {words}" in str(caught.value)


def test_supervised_keys_choose_among_several_labels(tmp_path, described):
    write(tmp_path / "fruit/1.0.0")
    described["labels"]["colour"] = ["red", "green", "blue"]
    described["supervised"] = ["image", "label"]
    assert find_dataset("tfds:fruit", tmp_path).class_names == ("pear", "apple")


RECORDS = {
    "beyond the classes": (
        LABELS | {"train": [1, 0, 2]},
        "record 0 of {} has the label 2, not one of 0 to 1:",
        "fruit-train.tfrecord-00001-of-00002",
    ),
    "some secret": (
        LABELS | {"train": [1, -1, 0]},
        "record 1 of {} has the label -1, not one of 0 to 1:",
        "fruit-train.tfrecord-00000-of-00002",
    ),
}


@pytest.mark.parametrize("labels, words, shard", RECORDS.values(), ids=RECORDS)
def test_a_wrong_label_is_named_with_its_record(tmp_path, described, labels, words, shard):
    directory = write(tmp_path / "fruit/1.0.0", labels)
    with pytest.raises(UserError) as caught:
        open_split(find_dataset("tfds:fruit", tmp_path), "train", tmp_path)
    assert words.format(directory / shard) in str(caught.value)


def test_a_shard_with_fewer_records_is_named(tmp_path, described):
    directory = write(tmp_path / "fruit/1.0.0")
    shard = directory / "fruit-train.tfrecord-00000-of-00002"
    WRITE["tfrecord"](shard, [example({"image": b"", "label": 0})])
    with pytest.raises(UserError) as caught:
        open_split(find_dataset("tfds:fruit", tmp_path), "train", tmp_path)
    assert f"{shard} has 1 records, not 2 as dataset_info.json says: prepare it anew" in str(caught.value)
