"""ImageNet from shards: the same images and labels as from folders, and no label that anything contradicts."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.sources.imagenet import load_imagenet
from convmixer_jax.data.sources.imagenet_spec import IMAGENET
from convmixer_jax.data.sources.records import RecordImages
from convmixer_jax.errors import UserError
from tests.data.records import Features, write_shards

WNIDS = ("n01", "n02", "n03")
SPEC = dataclasses.replace(
    IMAGENET,
    classes=WNIDS,
    num_examples={"train": 5, "test": 6},
    val_digest=hashlib.sha256(b"n02\nn01\nn03\nn03\nn01\nn02\n").hexdigest(),
)
# In the order of the shards: of each image its class, and its number.
IMAGES = {
    "train": [("n02", 7), ("n01", 3), ("n03", 1), ("n01", 10), ("n02", 2)],
    "validation": [("n03", 4), ("n02", 1), ("n01", 2), ("n01", 5), ("n02", 6), ("n03", 3)],
}
LABELS = {"train": [1, 0, 2, 0, 1], "test": [2, 1, 0, 0, 1, 2]}

Record = Callable[[str, str, int], Features]


def file_name(split: str, wnid: str, number: int) -> bytes:
    return (f"{wnid}_{number}.JPEG" if split == "train" else f"ILSVRC2012_val_{number:08}.JPEG").encode()


def script_record(split: str, wnid: str, number: int) -> Features:
    """As TensorFlow's scripts write it: labels from 1 on."""
    return {
        "image/encoded": f"{wnid} {number}".encode(),
        "image/class/label": 1 + WNIDS.index(wnid),
        "image/class/synset": wnid.encode(),
        "image/class/text": b"a fish",
        "image/filename": file_name(split, wnid, number),
        "image/object/bbox/xmin": [0.25, 0.5],
    }


def tfds_record(split: str, wnid: str, number: int) -> Features:
    """As tfds writes it: labels from 0 on."""
    return {
        "image": f"{wnid} {number}".encode(),
        "label": WNIDS.index(wnid),
        "file_name": file_name(split, wnid, number),
    }


def bare_record(split: str, wnid: str, number: int) -> Features:
    """Without what says the class in words."""
    record = script_record(split, wnid, number)
    return {key: record[key] for key in ("image/encoded", "image/class/label")}


def records(split: str, make: Record = script_record) -> list[Features]:
    return [make(split, *image) for image in IMAGES[split]]


def write(folder: Path, split: str, made: list[Features], kind: str = "tfrecord") -> list[Path]:
    return write_shards(folder, split, kind, [made[:2], made[2:]])


def load(data_dir: Path, split: str) -> RecordImages:
    images = load_imagenet(data_dir, split, SPEC)
    assert isinstance(images, RecordImages)
    return images


FORMS = {
    "scripts": (script_record, "tfrecord", ""),
    "scripts, a folder for each split": (script_record, "tfrecord", "own folder"),
    "scripts, labels alone": (bare_record, "tfrecord", ""),
    "scripts, from 0": (
        lambda *image: script_record(*image) | {"image/class/label": WNIDS.index(image[1])},
        "array_record",
        "",
    ),
    "scripts, with folders in the names": (
        lambda *image: script_record(*image) | {"image/filename": b"/raw/" + file_name(*image)},
        "tfrecord",
        "",
    ),
    "tfds's records": (tfds_record, "array_record", ""),
}


@pytest.mark.parametrize("make, kind, where", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("split, name", [("train", "train"), ("test", "validation")])
def test_images_and_labels_are_those_of_the_records(tmp_path, split, name, make, kind, where):
    folder = tmp_path / SPEC.folder / (name if where else "")
    write(folder, name, records(name, make), kind)
    for _ in range(2):
        images = load(tmp_path, split)
        assert images.label.tolist() == LABELS[split]
        assert images.label.dtype == np.int32
        assert [images.read(n) for n in range(len(images))] == [f"{w} {n}".encode() for w, n in IMAGES[name]]
        assert (images.image_shape, images.crop_pct) == ((224, 224, 3), 0.96)


def test_folders_come_before_shards_and_tfrecord_before_array_record(tmp_path):
    folder = tmp_path / SPEC.folder
    write(folder, "train", records("train"), "array_record")
    assert load(tmp_path, "train").path(0).name == "train.array_record-00000-of-00002"
    write(folder, "train", records("train"))
    assert load(tmp_path, "train").path(0).name == "train-00000-of-00002"
    (folder / "train").mkdir()
    with pytest.raises(UserError, match="imagenet/train lacks n01, n02, n03:"):
        load_imagenet(tmp_path, "train", SPEC)


def test_a_split_needs_only_its_own_shards(tmp_path):
    write(tmp_path / SPEC.folder, "validation", records("validation"))
    assert len(load(tmp_path, "test")) == 6
    with pytest.raises(UserError, match=r"ImageNet is not in .*shards imagenet/train-00000-of-"):
        load_imagenet(tmp_path, "train", SPEC)


def with_change(split: str, number: int, make: Record = script_record, **changes) -> list[Features]:
    """The records of a split, of which one has other values; KEY with "_" for "/", None for none."""
    made = records(split, make)
    for key, value in changes.items():
        name = key if key in made[number] else key.replace("_", "/")
        assert name in made[number]
        made[number][name] = value
        if value is None:
            del made[number][name]
    return made


TRAIN, VAL = IMAGES["train"], IMAGES["validation"]
# For each: the split, its records, and what the message says.
WRONG: dict[str, tuple[str, list[Features] | Callable[[], list[Features]], str]] = {
    "a label that the synset contradicts": (
        "train",
        with_change("train", 3, image_class_label=2),
        "record 1 of {second} has the label 2 and the synset n01, whose label is 1:",
    ),
    "a synset that the label contradicts": (
        "train",
        with_change("train", 0, image_class_synset=b"n03"),
        "record 0 of {first} has the label 2 and the synset n03, whose label is 3:",
    ),
    "an unknown synset": (
        "train",
        with_change("train", 2, image_class_synset=b"n99"),
        "record 0 of {second} has the synset 'n99', which is no class:",
    ),
    "one without a synset": (
        "validation",
        with_change("validation", 4, image_class_synset=None),
        "record 2 of {second} has the synset '', which is no class:",
    ),
    "labels alone, from 0": (
        "train",
        records("train", lambda *image: bare_record(*image) | {"image/class/label": WNIDS.index(image[1])}),
        "record 1 of {first} has the label 0, not one of 1 to 3:",
    ),
    "a label beyond the classes": (
        "train",
        with_change("train", 4, bare_record, image_class_label=4),
        "record 2 of {second} has the label 4, not one of 1 to 3:",
    ),
    "tfds's secret labels": (
        "validation",
        with_change("validation", 0, tfds_record, label=-1),
        "record 0 of {first} has the label -1, not one of 0 to 2:",
    ),
    "tfds's records with labels from 1": (
        "train",
        records("train", lambda *image: tfds_record(*image) | {"label": 1 + WNIDS.index(image[1])}),
        "record 0 of {second} has the label 3, not one of 0 to 2:",
    ),
    "a file of another class": (
        "train",
        with_change("train", 1, tfds_record, label=2),
        "record 1 of {first} is n01_3.JPEG, and has the label of n03:",
    ),
    "a file twice": (
        "train",
        with_change("train", 4, image_filename=b"n02_7.JPEG"),
        "record 2 of {second} is n02_7.JPEG, which an earlier record is, too:",
    ),
    "a class without images": (
        "train",
        records("train", lambda *image: bare_record(*image) | {"image/class/label": 1 + image[2] % 2}),
        "{first} to train-00001-of-00002 have no image of n03:",
    ),
    "an image missing": (
        "train",
        records("train")[:4],
        "{first} to train-00001-of-00002 have 4 images, not 5:",
    ),
    "an image too many": (
        "validation",
        records("validation") + records("validation")[:1],
        "{first} to validation-00001-of-00002 have 7 images, not 6:",
    ),
    "validation images of a class too many": (
        "validation",
        with_change("validation", 0, bare_record, image_class_label=1),
        "{first} to validation-00001-of-00002 have 3 images of n01, not 2:",
    ),
    "validation labels that changed places": (
        "validation",
        [
            tfds_record("validation", wnid, {1: 2, 2: 1}.get(number, number))
            for wnid, number in VAL
        ],
        "{first} to validation-00001-of-00002 have images with other labels than the published ones of their numbers:",
    ),
}  # fmt: skip


@pytest.mark.parametrize("split, made, words", WRONG.values(), ids=WRONG)
def test_no_label_that_something_contradicts_is_taken(tmp_path, split, made, words):
    first, second = write(tmp_path / SPEC.folder, split, made)
    for _ in range(2):  # also when the index is there
        with pytest.raises(UserError) as caught:
            load_imagenet(tmp_path, {"train": "train", "validation": "test"}[split], SPEC)
        assert words.format(first=first, second=second) in str(caught.value)
        assert "write the shards anew from the archives of https://www.image-net.org/download.php" in str(caught.value)


def rename(folder: Path, old: str, new: str) -> None:
    (folder / old).rename(folder / new)


SETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "one missing": (lambda f: (f / "train-00001-of-00002").unlink(), "imagenet lacks train-00001-of-00002:"),
    "of another set": (
        lambda f: rename(f, "train-00001-of-00002", "train-00001-of-00003"),
        "imagenet lacks train-00001-of-00002 and has, beside what belongs there, train-00001-of-00003:",
    ),
    "two sets": (
        lambda f: write_shards(f, "old-train", "tfrecord", [records("train")]),
        "imagenet has, beside what belongs there, train-00000-of-00002, train-00001-of-00002:",
    ),
}


@pytest.mark.parametrize("spoil, words", SETS.values(), ids=SETS)
def test_an_incomplete_set_of_shards_is_named(tmp_path, spoil, words):
    folder = tmp_path / SPEC.folder
    write(folder, "train", records("train"))
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_imagenet(tmp_path, "train", SPEC)
    assert words in str(caught.value)
    assert "keep the shards of one set only" in str(caught.value)


def test_names_that_only_look_like_shards_are_passed_over(tmp_path):
    folder = tmp_path / SPEC.folder
    write(folder, "train", records("train"))
    for name in (
        "train-00000-of-00002.gz",
        "train.txt",
        "test-00000-of-00001",
        "retrain-0-of-1",
        ".train-00000-of-00002.tmp",
    ):
        (folder / name).write_text("")
    assert len(load(tmp_path, "train")) == 5
