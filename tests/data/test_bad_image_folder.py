"""Whatever is wrong with a folder of images is told in one line that begins with what is wrong."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from convmixer_jax.data.datasets import find_dataset, open_split
from convmixer_jax.data.sources import class_folders
from convmixer_jax.data.sources.image_folder import ImageFolder
from convmixer_jax.errors import UserError
from tests.data.class_folders import SPLIT, TREE, fill, recorded

NOWHERE = Path("/nonexistent")


def remove(*names: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        for path in (folder / name for name in names):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return spoil


def add(*names: str) -> Callable[[Path], object]:
    return lambda folder: fill(folder, names)


def make(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).mkdir()


def link(name: str, to: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).symlink_to(to)


def only_images(folder: Path) -> None:
    for name in ("train", "val"):
        shutil.rmtree(folder / name)
    fill(folder, ["1.jpg", "2.jpg"])


def one_tree(*names: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        shutil.rmtree(folder)
        fill(folder, names)

    return replace


# What is done to the folder of SPLIT, and what the message says of it, which is its beginning after {}, the folder.
MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no test images": (remove("val"), " has train and no val nor validation nor valid nor test: make that folder"),
    "no training images": (remove("train"), " has val and no train: make that folder, or name "),
    "an empty class": (
        remove("train/cat/a.png", "train/cat/b.png"),
        "/train/cat has no image: put 1 or more there, or remove the folder",
    ),
    "a folder of empty classes": (remove("val/cat/1.png", "val/dog/x.gif"), "/val has no image: put"),
    "a test class that is not trained": (add("val/dogs/1.png"), "/val has dogs, of which training knows nothing (did"),
    "a class in another case": (lambda f: (f / "val/cat").rename(f / "val/Cat"), "/val has Cat, of which training"),
    "a class missing in val": (remove("val/dog"), "/val lacks dog: make an empty folder there if none is meant"),
    "an image without a class": (add("train/1.png"), "/train must hold a folder for each class, and has 1.png beside"),
    "many without a class": (
        add(*[f"val/{n}.png" for n in range(9)]),
        "/val must hold a folder for each class, and has 0.png, 1.png, 2.png and 6 more beside them:",
    ),
    "a text file": (add("train/cat/notes.txt"), "/train/cat has, beside images (.jpg .jpeg .jpe .jfif"),
    "an archive deep below": (add("train/cat/deep/photos.zip"), "/train/cat/deep has, beside images ("),
    "no suffix": (add("val/dog/image"), "/val/dog has, beside images ("),
    "a broken link": (link("train/cat/3.png", "gone.png"), "/train/cat/3.png is a link to nothing: remove it"),
    "a broken link of a class": (link("train/cow", "gone"), "/train/cow is a link to nothing:"),
    "a link to itself": (link("train/cat/3.png", "3.png"), "/train/cat/3.png leads nowhere (Too many levels"),
    "a loop": (link("train/cat/up", ".."), "/train/cat"),
    "a class twice": (link("train/cow", "cat"), "/train/cow and {}/train/cat are one folder, by a link:"),
    "a link into another class": (link("train/dog/x", "../cat"), "/train/dog/x and {}/train/cat are one folder, by"),
    "a pipe": (lambda f: os.mkfifo(f / "train/cat/3.png"), "/train/cat/3.png is neither a file nor a folder:"),
    "a line break in a class": (add("train/a\nb/1.png"), "/train has the class 'a\\nb': rename it,"),
    "classes that look the same": (
        add("train/e\u0301/1.png", "train/\xe9/1.png"),
        "/train has the classes 'e\\u0301' and '\\xe9', which look the same:",
    ),
    "no UTF-8": (add(os.fsdecode(b"train/cat/\xff.png")), "/train/cat has a name that is not UTF-8 (b'\\xff.png'):"),
    "only one class": (one_tree("cat/1.png", "cat/2.png"), " must hold a folder for each of two or more classes,"),
    "the folder above": (one_tree("data/train/cat/1.png", "data/val/cat/1.png"), " must hold a folder for each"),
    "nothing": (one_tree(".keep"), " must hold a folder for each of two or more classes, and has none"),
    "images without folders": (only_images, " must hold a folder for each class, and has 1.jpg, 2.jpg beside them:"),
    "splits under other names": (
        one_tree("Training/cat/1.png", "Training/cat/2.png", "Testing/cat/1.png", "Testing/cat/2.png"),
        " has Testing, Training, which looks like a split",
    ),
    "one image of a class in one tree": (one_tree("a/1.png", "a/2.png", "b/1.png"), "/b has one image: put 2 or more"),
    "an empty class in one tree": (one_tree("a/1.png", "a/2.png", "b/.keep"), "/b has no image: put 2 or more there,"),
}


@pytest.mark.parametrize("spoil, words", MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_named_with_the_way_out(tmp_path, spoil, words):
    folder = fill(tmp_path / "photos", SPLIT)
    spoil(folder)
    with pytest.raises(UserError) as caught:
        find_dataset(f"folder:{folder}", NOWHERE)
    assert str(caught.value).startswith(f"{folder}{words.format(*[folder] * words.count('{}'))}")


@pytest.mark.parametrize(
    "place, words",
    [
        ("", "config.dataset is 'folder:', and that is no folder: name the one that holds train and val, or one that"),
        ("gone", "config.dataset is 'folder:gone', and /"),
        ("file", "config.dataset is 'folder:file', and /"),
        ("~nobody-of-this-name/x", "config.dataset is 'folder:~nobody-of-this-name/x': "),
        ("x" * 300, "/"),
    ],
)
def test_a_place_that_is_no_folder(tmp_path, monkeypatch, place, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        find_dataset(f"folder:{place}", NOWHERE)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("locked", ["train", "train/cat", "val/dog"])
def test_no_right_to_read(tmp_path, monkeypatch, locked):
    folder, scandir = fill(tmp_path, SPLIT), os.scandir

    def refusing(path):  # whoever is root may read everything
        if str(path) == str(folder / locked):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(class_folders.os, "scandir", refusing)
    with pytest.raises(UserError, match="cannot be read .Permission denied.: give yourself the right to") as caught:
        find_dataset(f"folder:{folder}", NOWHERE)
    assert str(caught.value).startswith(f"{folder / locked} ")


def test_a_split_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="split is 'val': choose one of train, test"):
        ImageFolder(str(fill(tmp_path, SPLIT))).load("val")


# What was done to the folder since the run began, the split that is read, and the message.
CHANGES = {
    "a class more": (SPLIT, add("train/cow/1.png"), "train", "/train has cow, of which training knows nothing"),
    "a class less": (SPLIT, remove("train/cat"), "train", "/train lacks cat"),
    "a test class more": (SPLIT, add("val/cow/1.png"), "test", "/val has cow, of which training knows nothing"),
    "a training image more": (SPLIT, add("train/cat/9.png"), "train", " has 5 images for 'train', and the run be"),
    "a test image less": (SPLIT, remove("val/dog/x.gif"), "test", " has 1 images for 'test', and the run began with 2"),
    # The split of one tree would be another one.
    "an image more": (TREE, add(*[f"a/x{n}.png" for n in range(5)]), "test", " has 5 images for 'test', and the run"),
    "one tree that is gone": (TREE, remove("a", "b"), "test", " lacks a, b:"),
}


@pytest.mark.parametrize("names, change, split, words", CHANGES.values(), ids=CHANGES)
def test_what_changed_since_the_run_began_is_told(tmp_path, names, change, split, words):
    known = recorded(fill(tmp_path, names))
    change(tmp_path)
    dataset = find_dataset(f"folder:{tmp_path}", NOWHERE, known=known)
    with pytest.raises(UserError) as caught:
        open_split(dataset, split, NOWHERE)
    assert str(caught.value).startswith(f"{tmp_path}{words}")
