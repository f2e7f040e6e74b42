"""Folders of anybody's images: which are found, as what, in which order; and a clear message for what is wrong."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data.datasets import find_dataset, load_split, open_split
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.sources import class_folders
from convmixer_jax.data.sources.class_folders import SUFFIXES
from convmixer_jax.data.sources.image_folder import TEST_FOLDERS, ImageFolder
from convmixer_jax.errors import UserError
from tests.data.class_folders import SPLIT, TREE, fill, recorded

NOWHERE = Path("/nonexistent")


def names_of(files: ImageFiles) -> list[str]:
    return np.strings.decode(files.name, "utf-8").tolist()


def named(files: ImageFiles) -> dict[str, int]:
    return dict(zip(names_of(files), files.label.tolist(), strict=True))


def test_folders_are_classes_in_the_order_of_code_points(tmp_path):
    fill(tmp_path, [f"{part}/{name}/1.png" for part in ("train", "val") for name in ("b", "a", "B", "é", "10", "9")])
    folder = ImageFolder(str(tmp_path))
    assert folder.class_names() == ("10", "9", "B", "a", "b", "é")
    assert folder.load("test").label.tolist() == [0, 1, 2, 3, 4, 5]
    assert folder.load("test").label.dtype == np.int32


def test_images_are_in_the_order_of_class_and_name(tmp_path):
    folder = ImageFolder(str(fill(tmp_path, SPLIT)))
    assert folder.num_examples() == {"train": 4, "test": 2}
    expected = {"train/cat/a.png": 0, "train/cat/b.png": 0, "train/dog/10.jpg": 1, "train/dog/2.JPG": 1}
    assert list(named(folder.load("train")).items()) == list(expected.items())
    assert named(folder.load("test")) == {"val/cat/1.png": 0, "val/dog/x.gif": 1}


def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    first = {split: named(ImageFolder(str(fill(tmp_path, TREE))).load(split)) for split in ("train", "test")}
    scandir = os.scandir

    class Backwards(list):
        __enter__ = list.__iter__

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(class_folders.os, "scandir", lambda folder: Backwards(reversed(list(scandir(folder)))))
    second = {split: named(ImageFolder(str(tmp_path)).load(split)) for split in ("train", "test")}
    assert [list(names.items()) for names in first.values()] == [list(names.items()) for names in second.values()]


def test_every_suffix_and_depth_counts(tmp_path):
    names = [f"deep/down/a{number}{suffix}" for number, suffix in enumerate((*SUFFIXES, ".JPEG", ".Png"))]
    fill(tmp_path, [f"{part}/{name}/1.png" for part in ("train", "val") for name in ("cat", "dog")])
    fill(tmp_path / "train/cat", names)
    found = named(ImageFolder(str(tmp_path)).load("train"))
    assert found == {"train/cat/1.png": 0, "train/dog/1.png": 1} | {f"train/cat/{name}": 0 for name in names}


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    left = (".DS_Store", "Thumbs.db", "desktop.ini", "._1.png", ".ipynb_checkpoints/1.png", "__MACOSX/1.png")
    fill(tmp_path, SPLIT)
    for place in ("", "train", "train/cat", "val"):
        fill(tmp_path / place, left)
    fill(tmp_path, ["README.md", "labels/list.csv", "test/secret.png"])  # beside the splits nothing is looked at
    assert ImageFolder(str(tmp_path)).num_examples() == {"train": 4, "test": 2}


@pytest.mark.parametrize("there", [TEST_FOLDERS, TEST_FOLDERS[1:], TEST_FOLDERS[2:], TEST_FOLDERS[3:]], ids=str)
def test_the_first_of_several_test_folders_is_taken(tmp_path, there):
    fill(tmp_path, [f"{part}/{name}/1.png" for part in ("train", *there) for name in ("cat", "dog")])
    assert names_of(ImageFolder(str(tmp_path)).load("test")) == [f"{there[0]}/cat/1.png", f"{there[0]}/dog/1.png"]


def test_a_class_without_test_images_has_an_empty_folder(tmp_path):
    fill(tmp_path, SPLIT)
    (tmp_path / "val/dog/x.gif").unlink()
    assert named(ImageFolder(str(tmp_path)).load("test")) == {"val/cat/1.png": 0}


def test_a_fifth_of_one_tree_is_the_test_split(tmp_path):
    splits = {split: named(ImageFolder(str(fill(tmp_path, TREE))).load(split)) for split in ("train", "test")}
    assert not splits["train"].keys() & splits["test"].keys()
    assert splits["train"] | splits["test"] == {name: int(name[0] == "b") for name in TREE}
    assert all(list(names) == sorted(names) for names in splits.values())
    # Pinned, since another choice would put images of earlier runs' training among those they are tested on.
    assert list(splits["test"]) == PINNED


PINNED = ["a/07.png", "a/09.png", "b/08.png", "b/09.png"]


def test_of_one_tree_every_class_keeps_an_image_to_train_on(tmp_path):
    folder = ImageFolder(str(fill(tmp_path, [f"{name}/{number}.png" for name in "abcde" for number in range(2)])))
    assert folder.num_examples() == {"train": 8, "test": 2}
    assert set(folder.load("train").label.tolist()) == {0, 1, 2, 3, 4}


def test_links_are_followed(tmp_path):
    fill(tmp_path / "here", ["train/cat/1.png", "val/cat/1.png", "val/dog/1.png"])
    fill(tmp_path / "there", ["dogs/1.png", "one.png"])
    (tmp_path / "here/train/dog").symlink_to("../../there/dogs")
    (tmp_path / "here/train/cat/2.png").symlink_to(tmp_path / "there/one.png")
    (tmp_path / "link").symlink_to("here")
    found = named(ImageFolder(str(tmp_path / "link")).load("train"))
    assert found == {"train/cat/1.png": 0, "train/cat/2.png": 0, "train/dog/1.png": 1}


def test_places_are_found_from_home_and_from_the_working_directory(tmp_path, monkeypatch):
    fill(tmp_path / "photos", SPLIT)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for place in ("photos", "./photos/", "~/photos", str(tmp_path / "photos")):
        assert ImageFolder(place).load("train").folder == tmp_path / "photos"


def test_unusual_names_are_names(tmp_path):
    classes = ("a b", "cat", "Cat", "日本", "train", "it's, 100 %")
    names = [f"{part}/{each}/a\nb 'ü'.png" for part in ("train", "val") for each in classes]
    folder = ImageFolder(str(fill(tmp_path, names)))
    assert folder.class_names() == tuple(sorted(classes))
    for split, part in (("train", "train"), ("test", "val")):
        assert sorted(names_of(folder.load(split))) == sorted(name for name in names if name.startswith(part))
    assert len(folder.load("train").digest()) == 64


def test_the_data_set(tmp_path):
    name = f"folder:{fill(tmp_path, SPLIT)}"
    dataset = find_dataset(name, NOWHERE)
    assert (dataset.image_shape, dataset.crop_pct, dataset.varied) == ((224, 224, 3), 0.96, True)
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (dataset.num_examples, dataset.class_names) == ({"train": 4, "test": 2}, ("cat", "dog"))
    for size, share, expected in ((128, 0, 0.96), (127, 0, 1.0), (64, 0.9, 0.9), (0, 0.8, 0.8)):
        found = find_dataset(name, NOWHERE, image_size=size, crop_pct=share)
        assert (found.crop_pct, open_split(found, "test", NOWHERE).crop_pct) == (expected, expected)


def test_images_are_read(tmp_path):
    for number, name in enumerate(("train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/dog/d.png")):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 16), (40 * number,) * 3).save(tmp_path / name)
    dataset = find_dataset(f"folder:{tmp_path}", NOWHERE, image_size=8)
    examples = load_split(dataset, "test", NOWHERE)
    assert examples.image.shape == (2, 8, 8, 3)
    assert examples.image.max(axis=(1, 2, 3)).tolist() == examples.image.min(axis=(1, 2, 3)).tolist() == [80, 120]


def test_what_was_recorded_is_not_looked_for(tmp_path):
    known = recorded(fill(tmp_path / "photos", SPLIT))
    shutil.rmtree(tmp_path / "photos/train")
    dataset = find_dataset(f"folder:{tmp_path / 'photos'}", NOWHERE, known=known)
    assert named(open_split(dataset, "test", NOWHERE)) == {"val/cat/1.png": 0, "val/dog/x.gif": 1}
    with pytest.raises(UserError, match="photos has val and no train: "):
        open_split(dataset, "train", NOWHERE)
    shutil.rmtree(tmp_path / "photos")
    dataset = find_dataset(f"folder:{tmp_path / 'photos'}", NOWHERE, known=known)
    assert dataset.class_names == ("cat", "dog")
    with pytest.raises(UserError, match="photos is no folder: name the one that holds train and val"):
        open_split(dataset, "test", NOWHERE)


def test_labels_have_the_order_that_was_recorded(tmp_path):
    fill(tmp_path, SPLIT)
    folder = ImageFolder(str(tmp_path), ("dog", "cat"))
    assert named(folder.load("test")) == {"val/cat/1.png": 1, "val/dog/x.gif": 0}
    assert set(named(folder.load("train")).items()) > {("train/cat/a.png", 1), ("train/dog/2.JPG", 0)}


def test_the_digest_does_not_depend_on_the_place(tmp_path):
    digests = {ImageFolder(str(fill(tmp_path / name, SPLIT))).load("train").digest() for name in ("here", "there")}
    assert len(digests) == 1
    fill(tmp_path / "here", ["train/cat/c.png"])
    assert ImageFolder(str(tmp_path / "here")).load("train").digest() not in digests
