"""Tiny ImageNet from its folder: every image with its label, and a clear message for everything that is wrong."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data.datasets import DATASETS, Dataset, load_split, open_split
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.sources.tiny_imagenet import TINY_IMAGENET, TINY_IMAGENET_CLASSES, load_tiny_imagenet
from convmixer_jax.errors import UserError

# Not in the order of the alphabet, as the published ones.
WNIDS = ("n03", "n01", "n02")
SPEC = dataclasses.replace(TINY_IMAGENET, classes=WNIDS, per_class={"train": 4, "test": 2}, image_shape=(8, 8, 3))
# val_n is of class VAL[n]: two of each, in no order.
VAL = (2, 0, 1, 1, 2, 0)
DATASET = Dataset(
    load=lambda data_dir, split: load_tiny_imagenet(data_dir, split, SPEC),
    num_examples={"train": 12, "test": 6},
    image_shape=(8, 8, 3),
    class_names=WNIDS,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def save(path: Path, level: int) -> None:
    """A grey image of one level, which JPEG keeps exactly; every other one is stored as greyscale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(*(("L", (8, 8), level) if level % 2 else ("RGB", (8, 8), (level,) * 3))).save(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A data_dir: training image k of class c has the level 40 c + 10 k + c, validation image n 200 + n."""
    data_dir = tmp_path_factory.mktemp("tiny")
    folder = data_dir / SPEC.folder
    for label, wnid in enumerate(WNIDS):
        for k in range(4):
            save(folder / f"train/{wnid}/images/{wnid}_{k}.JPEG", 40 * label + 10 * k + label)
        (folder / f"train/{wnid}/{wnid}_boxes.txt").write_text("boxes are not read\n")
    for n in range(6):
        save(folder / f"val/images/val_{n}.JPEG", 200 + n)
    rows = [f"val_{n}.JPEG\t{WNIDS[label]}\t0\t0\t7\t7\n" for n, label in enumerate(VAL)]
    (folder / "val/val_annotations.txt").write_text("".join(rows))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\n")
    (folder / "test/images").mkdir(parents=True)  # unlabelled: not looked at
    return data_dir


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy of the folder, to be spoilt."""
    return shutil.copytree(original / SPEC.folder, tmp_path / SPEC.folder)


def test_training_labels_are_lines_of_wnids(original):
    files = load_tiny_imagenet(original, "train", SPEC)
    assert files.label.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert files.label.dtype == np.int32
    assert files.name[0] == b"train/n03/images/n03_0.JPEG"
    assert files.name[5] == b"train/n01/images/n01_1.JPEG"
    images = load_split(DATASET, "train", original).image
    assert images.shape == (12, 8, 8, 3)
    levels = [40 * label + 10 * k + label for label in range(3) for k in range(4)]
    np.testing.assert_array_equal(images, np.broadcast_to(np.reshape(levels, (12, 1, 1, 1)), images.shape))


def test_the_published_validation_split_is_our_test_split(original):
    examples = load_split(DATASET, "test", original)
    assert examples.image[:, 0, 0, 0].tolist() == [200, 201, 202, 203, 204, 205]
    assert examples.label.tolist() == list(VAL)


def test_the_order_is_that_of_the_numbers_whatever_the_annotations_have(folder):
    path = folder / "val/val_annotations.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert load_tiny_imagenet(folder.parent, "test", SPEC).label.tolist() == list(VAL)


def test_a_split_needs_only_its_own_files(folder):
    shutil.rmtree(folder / "val")
    assert len(load_tiny_imagenet(folder.parent, "train", SPEC)) == 12
    with pytest.raises(UserError, match=r"val/images cannot be read \(No such file or directory\)"):
        load_tiny_imagenet(folder.parent, "test", SPEC)


def test_parts_of_the_training_split_are_stratified_files(original):
    parts = {split: open_split(DATASET, split, original, 0.25, 6) for split in ("train", "val", "test")}
    assert all(isinstance(part, ImageFiles) for part in parts.values())
    assert np.bincount(parts["val"].label).tolist() == [1, 1, 1]
    assert np.bincount(parts["train"].label).tolist() == [2, 2, 2]
    names = [set(part.name.tolist()) for part in parts.values()]
    assert not names[0] & names[1]
    for part in parts.values():
        for name, label in zip(part.name.astype(str), part.label, strict=True):
            assert WNIDS[label] in name or name.startswith("val/")


def test_the_digest_is_the_same_in_every_folder(original, folder):
    first, second = (load_tiny_imagenet(data_dir, "train", SPEC) for data_dir in (original, folder.parent))
    assert first.digest() == second.digest() != load_tiny_imagenet(original, "test", SPEC).digest()


def rewrite(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


def remove_images_of_n01(folder: Path) -> None:
    for path in (folder / "train/n01/images").iterdir():
        path.unlink()


# For each: the split that is read, what is done to the folder, and what the message says.
MISTAKES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no wnids.txt": ("test", lambda f: (f / "wnids.txt").unlink(), "wnids.txt cannot be read (No such file"),
    "wnids.txt in another order": (
        "train",
        lambda f: (f / "wnids.txt").write_text("n01\nn02\nn03\n"),
        "wnids.txt is not the published list of 3 classes, in its order: the order is another one",
    ),
    "a class too few": ("test", rewrite("wnids.txt", "n01\n", ""), "in its order: lacks n01;"),
    "another class": ("test", rewrite("wnids.txt", "n01", "n77"), "lacks n01 and has, beside what belongs there, n77;"),
    "a class twice": ("test", rewrite("wnids.txt", "n01", "n03"), "lacks n01 and has twice n03;"),
    "a class folder missing": ("train", lambda f: shutil.rmtree(f / "train/n02"), "train lacks n02:"),
    "a stray class": ("train", lambda f: (f / "train/n99").mkdir(), "train has, beside what belongs there, n99:"),
    "a training image missing": (
        "train",
        lambda f: (f / "train/n01/images/n01_2.JPEG").unlink(),
        "train/n01/images lacks n01_2.JPEG:",
    ),
    "all of a class missing": (
        "train",
        remove_images_of_n01,
        "train/n01/images lacks n01_0.JPEG, n01_1.JPEG, n01_2.JPEG and 1 more:",
    ),
    "no images folder": (
        "train",
        lambda f: shutil.rmtree(f / "train/n01/images"),
        "train/n01/images cannot be read (No such file or directory):",
    ),
    "a stray training image": (
        "train",
        lambda f: (f / "train/n01/images/.DS_Store").write_text(""),
        "train/n01/images has, beside what belongs there, .DS_Store:",
    ),
    "one too many": (
        "train",
        lambda f: save(f / "train/n01/images/n01_4.JPEG", 0),
        "train/n01/images has, beside what belongs there, n01_4.JPEG:",
    ),
    "an image of another class": (
        "train",
        lambda f: (f / "train/n01/images/n01_0.JPEG").rename(f / "train/n01/images/n03_0.JPEG"),
        "lacks n01_0.JPEG and has, beside what belongs there, n03_0.JPEG:",
    ),
    "a validation image missing": (
        "test",
        lambda f: (f / "val/images/val_5.JPEG").unlink(),
        "val/images lacks val_5.JPEG:",
    ),
    "validation sorted into classes": (
        "test",
        lambda f: (f / "val/images").rename(f / "val/n01"),
        "val/images cannot be read (No such file or directory):",
    ),
    "no annotations": (
        "test",
        lambda f: (f / "val/val_annotations.txt").unlink(),
        "val_annotations.txt cannot be read",
    ),
    "annotations without a line": (
        "test",
        rewrite("val/val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t7\t7\n", ""),
        "val_annotations.txt lacks val_0.JPEG:",
    ),
    "annotations with spaces": (
        "test",
        rewrite("val/val_annotations.txt", "val_1.JPEG\tn03", "val_1.JPEG n03"),
        "val_annotations.txt has no image and class of wnids.txt in line 2:",
    ),
    "an unknown class": (
        "test",
        rewrite("val/val_annotations.txt", "n03", "n99"),
        "val_annotations.txt has no image and class of wnids.txt in line 2:",
    ),
    "an image named twice": (
        "test",
        rewrite("val/val_annotations.txt", "val_1.JPEG", "val_5.JPEG"),
        "val_annotations.txt lacks val_1.JPEG and has twice val_5.JPEG:",
    ),
    "a wrong label": (
        "test",
        rewrite("val/val_annotations.txt", "n03", "n01"),
        "val_annotations.txt has 1 images of n03, not 2:",
    ),
    "no text": (
        "test",
        lambda f: (f / "val/val_annotations.txt").write_bytes(b"\xff\xfe\x00"),
        "val_annotations.txt cannot be read (",
    ),
}


@pytest.mark.parametrize("split, spoil, words", MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_named_with_the_way_out(folder, split, spoil, words):
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_tiny_imagenet(folder.parent, split, SPEC)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "unpack that part of tiny-imagenet-200 anew from http://cs231n.stanford.edu/tiny-imagenet-200.zip" in str(
        caught.value
    )


def test_without_the_folder_one_line_says_what_to_do(tmp_path):
    with pytest.raises(UserError) as caught:
        load_tiny_imagenet(tmp_path, "train")
    assert str(caught.value) == (
        f"Tiny ImageNet is not in {tmp_path} (looked for the folder tiny-imagenet-200 and for tiny-imagenet-200.zip): "
        "`python -m convmixer_jax.prepare tiny_imagenet` downloads it, or set --data_dir or $CONVMIXER_DATA_DIR to the "
        "folder that holds it; configs/digits.py runs without any data"
    )


def test_an_unknown_split_is_a_user_error(original):
    with pytest.raises(UserError, match="split is 'val': choose one of train, test"):
        load_tiny_imagenet(original, "val", SPEC)


def test_the_published_numbers():
    dataset = DATASETS["tiny_imagenet"]
    assert len(set(TINY_IMAGENET_CLASSES)) == len(TINY_IMAGENET_CLASSES) == dataset.num_classes == 200
    assert all(wnid[0] == "n" and wnid[1:].isdecimal() and len(wnid) == 9 for wnid in TINY_IMAGENET_CLASSES)
    assert dataset.num_examples == {split: 200 * count for split, count in TINY_IMAGENET.per_class.items()}
    assert dataset.image_shape == TINY_IMAGENET.image_shape


def test_the_names_are_for_people():
    names = dict(zip(TINY_IMAGENET_CLASSES, DATASETS["tiny_imagenet"].class_names, strict=True))
    assert len({name.lower() for name in names.values()}) == 200
    assert [names[wnid] for wnid in ("n02124075", "n04067472", "n03126707", "n02504458")] == [
        "Egyptian cat",
        "reel",
        "crane (machine)",
        "African elephant",
    ]


def data_dirs() -> list[str]:
    """The made-up folder always; the real one as well wherever $CONVMIXER_DATA_DIR has it."""
    data_dir = Path(os.environ.get("CONVMIXER_DATA_DIR", "/nonexistent"))
    return ["made up", *([str(data_dir)] if (data_dir / TINY_IMAGENET.folder).is_dir() else [])]


@pytest.mark.parametrize("data_dir", data_dirs())
def test_a_row_agrees_with_its_data(original, data_dir):
    made_up = data_dir == "made up"
    dataset, data_dir = (DATASET, original) if made_up else (DATASETS["tiny_imagenet"], Path(data_dir))
    for split, count in dataset.num_examples.items():
        files = open_split(dataset, split, data_dir)
        assert len(files) == count
        assert np.bincount(files.label).tolist() == [count // dataset.num_classes] * dataset.num_classes
    if made_up:
        return
    words = dict(line.split("\t") for line in (data_dir / "tiny-imagenet-200/words.txt").read_text().splitlines())
    for wnid, name in zip(TINY_IMAGENET_CLASSES, dataset.class_names, strict=True):
        assert name.removesuffix(" (machine)") == words[wnid].split(",")[0]
    assert files.label[:3].tolist() == [163, 1, 132]  # n03444034, n04067472, n04070727 in val_annotations.txt
    images = load_split(dataset, "train", data_dir).image
    levels = np.arange(256) / 255
    for channel in range(3):
        # Whole numbers are counted, so this sum is exact.
        counts = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean = np.sum(counts * levels)
        assert dataset.mean[channel] == pytest.approx(mean, abs=5e-5)
        assert dataset.std[channel] == pytest.approx(np.sqrt(np.sum(counts * (levels - mean) ** 2)), abs=5e-5)
