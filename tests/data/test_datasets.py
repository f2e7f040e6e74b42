"""Data sets by name: rows of the table, what is found where a name says, and what a run records of the latter."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data import datasets
from convmixer_jax.data.datasets import DATASETS, Dataset, Facts, find_dataset, from_record, open_split, to_record
from convmixer_jax.data.examples import Examples, ImageFiles
from convmixer_jax.errors import UserError

NOWHERE = Path("/nonexistent")
FACTS = Facts(
    num_examples={"train": 4, "test": 2},
    image_shape=(16, 16, 3),
    class_names=("cat", "dog"),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    crop_pct=0.9,
    varied=True,
)


def open_drawer(place: str, data_dir: Path, known: Facts | None) -> Dataset:
    """Opens "drawer:PLACE": two classes, or those that are known; its one split has as many examples as PLACE says."""

    def load(_: Path, split: str) -> ImageFiles:
        names = np.array([f"{split}{n}.png" for n in range(int(place))])
        return ImageFiles(data_dir, names, label=np.zeros(int(place), np.int32), image_shape=(1, 1, 3), crop_pct=0.1)

    return Dataset(load=load, **vars(known or FACTS))


@pytest.fixture(autouse=True)
def _drawer(monkeypatch):
    monkeypatch.setitem(datasets.OPENERS, "drawer", open_drawer)


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_is_found_by_its_name(name):
    row = DATASETS[name]
    assert dataclasses.replace(find_dataset(name, NOWHERE), load=row.load) == row
    assert to_record(name, DATASETS[name]) is None


@pytest.mark.parametrize("name, near", [("cifar1O", "did you mean cifar10"), ("cupboard:/photos", "drawer:...")])
def test_an_unknown_name_is_told_with_the_choices(name, near):
    with pytest.raises(UserError, match=f"^config.dataset is '{name}'.*choose one of cifar10, ") as refused:
        find_dataset(name, NOWHERE)
    assert near in str(refused.value)


def test_images_of_many_sizes_become_the_size_asked_for():
    assert find_dataset("imagenet", NOWHERE, image_size=128).image_shape == (128, 128, 3)
    assert find_dataset("imagenet", NOWHERE, crop_pct=0.875).crop_pct == 0.875
    found = find_dataset("drawer:3", NOWHERE, image_size=32, crop_pct=1.0)
    train = open_split(found, "train", NOWHERE)
    assert (train.image_shape, train.crop_pct) == ((32, 32, 3), 1.0)  # not what the files came with


@pytest.mark.parametrize("field, value", [("image_size", 64), ("crop_pct", 0.5)])
def test_images_of_one_size_are_not_resized(field, value):
    with pytest.raises(UserError, match=f"^config.{field} is {value}: the images of cifar10 are 32x32 pixels"):
        find_dataset("cifar10", NOWHERE, **{field: value})


def test_what_a_run_recorded_comes_back_and_is_handed_to_the_opener():
    found = find_dataset("drawer:3", NOWHERE)
    record = json.loads(json.dumps(to_record("drawer:3", found)))
    assert from_record(record, "here") == FACTS
    known = dataclasses.replace(FACTS, class_names=("dog", "cat"))
    assert find_dataset("drawer:3", NOWHERE, known=known).class_names == ("dog", "cat")
    assert from_record(None, "here") is None


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": 7},
        {"num_examples": ["train"]},
        {"image_shape": [16, 16]},
        {"image_shape": None},
        {"mean": ["red"]},
        {"crop_pct": "all"},
    ],
    ids=str,
)
def test_a_damaged_record_is_told_with_its_place(change):
    record = to_record("drawer:3", find_dataset("drawer:3", NOWHERE)) | change
    with pytest.raises(UserError, match=r"^runs/x/config.json does not describe a data set"):
        from_record(record, "runs/x/config.json")


def test_a_record_without_a_field_is_told():
    record = to_record("drawer:3", find_dataset("drawer:3", NOWHERE))
    del record["varied"]
    with pytest.raises(UserError, match="varied"):
        from_record(record, "here")


def test_encoded_images_are_looked_for_once_and_arrays_are_not_kept(monkeypatch):
    asked = []

    def note(load):
        return lambda data_dir, split: asked.append((data_dir, split)) or load(data_dir, split)

    opened = dataclasses.replace(open_drawer("40", NOWHERE, None), load=note(open_drawer("40", NOWHERE, None).load))
    monkeypatch.setitem(datasets.OPENERS, "drawer", lambda *_: opened)
    drawer = find_dataset("drawer:40", NOWHERE)
    parts = [open_split(drawer, split, NOWHERE, val_fraction=0.25) for split in ("train", "val", "test", "train")]
    assert [len(part) for part in parts] == [30, 10, 40, 30]
    assert asked == [(NOWHERE, "train"), (NOWHERE, "test")]
    open_split(drawer, "train", Path("/elsewhere"))
    assert len(asked) == 3
    asked.clear()
    monkeypatch.setitem(DATASETS, "digits", dataclasses.replace(DATASETS["digits"], load=note(DATASETS["digits"].load)))
    digits = find_dataset("digits", NOWHERE)
    for _ in range(2):
        open_split(digits, "test", NOWHERE)
    assert len(asked) == 2


@pytest.mark.parametrize("name, wnid", [("imagenet", "n01440764"), ("tiny_imagenet", "n02124075")])
def test_classes_go_by_their_names_or_by_their_identifiers(name, wnid):
    row = DATASETS[name]
    assert row.other_names[0] == wnid
    assert row.has_classes(row.class_names)
    assert row.has_classes(row.other_names)
    assert not row.has_classes(row.other_names[::-1])
    assert not row.has_classes(())
    assert not DATASETS["digits"].has_classes(())


def test_examples_in_memory_pass_as_they_are(monkeypatch):
    examples = Examples(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int32))
    row = dataclasses.replace(DATASETS["digits"], load=lambda data_dir, split: examples)
    assert open_split(row, "test", NOWHERE) is examples
