"""ImageNet from its folders: every image with its label, and a clear message for everything that is wrong."""

import dataclasses
import hashlib
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data.datasets import DATASETS, Dataset, load_split, open_split
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.sources.imagenet import load_imagenet
from convmixer_jax.data.sources.imagenet_spec import IMAGENET, IMAGENET_CLASSES
from convmixer_jax.errors import UserError

WNIDS = ("n01", "n02", "n03")
TRAIN = {"n01": (7, 10, 2), "n02": (3,), "n03": (5, 1)}  # numbers, as unlike each other as the published ones
VAL = ("n02", "n01", "n03", "n03", "n01", "n02")  # image n + 1 is of class VAL[n]
SPEC = dataclasses.replace(
    IMAGENET,
    classes=WNIDS,
    num_examples={"train": 6, "test": 6},
    val_digest=hashlib.sha256(b"n02\nn01\nn03\nn03\nn01\nn02\n").hexdigest(),
    image_shape=(8, 8, 3),
    crop_pct=0.5,
)
DATASET = Dataset(
    load=lambda data_dir, split: load_imagenet(data_dir, split, SPEC),
    num_examples=SPEC.num_examples,
    image_shape=SPEC.image_shape,
    class_names=("tench", "goldfish", "white shark"),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    crop_pct=SPEC.crop_pct,
)


def save(path: Path, level: int) -> None:
    """A grey image of 20 x 16 whose middle 8 x 8 have that level, with a frame, black or white, around it.

    It is resized to 20 x 16, so left as it is. Every other one is a PNG under the name of a JPEG, as there are some.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((16, 20, 3), 255 * (level < 128), np.uint8)
    pixels[4:12, 6:14] = level
    if level % 2:
        Image.fromarray(pixels).save(path, "PNG")
    else:
        Image.fromarray(pixels).save(path, "JPEG", quality=100, subsampling=0)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A data_dir: the training image of class c with number k has the level 40 c + k, validation image n 200 + n."""
    data_dir = tmp_path_factory.mktemp("imagenet")
    folder = data_dir / SPEC.folder
    for label, wnid in enumerate(WNIDS):
        for k in TRAIN[wnid]:
            save(folder / f"train/{wnid}/{wnid}_{k}.JPEG", 40 * label + k)
    for n, wnid in enumerate(VAL, start=1):
        save(folder / f"val/{wnid}/ILSVRC2012_val_{n:08}.JPEG", 200 + n)
    return data_dir


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy of the folder, to be spoilt."""
    return shutil.copytree(original / SPEC.folder, tmp_path / SPEC.folder)


def test_training_images_are_in_order_of_class_and_name(original):
    files = load_imagenet(original, "train", SPEC)
    assert files.label.tolist() == [0, 0, 0, 1, 2, 2]
    assert files.label.dtype == np.int32
    assert files.name.astype(str).tolist() == [
        "train/n01/n01_10.JPEG",
        "train/n01/n01_2.JPEG",
        "train/n01/n01_7.JPEG",
        "train/n02/n02_3.JPEG",
        "train/n03/n03_1.JPEG",
        "train/n03/n03_5.JPEG",
    ]


@pytest.mark.parametrize("split, levels", [("train", [10, 2, 7, 43, 81, 85]), ("test", [202, 205, 201, 206, 203, 204])])
def test_evaluation_looks_at_the_middle(original, split, levels):
    images = load_split(DATASET, split, original).image.astype(int)
    assert images.shape == (6, 8, 8, 3)
    # JPEG lets the frame ring into the outermost rows and columns, and is a level off within; the PNGs are exact.
    middle = images[:, 2:6, 2:6]
    assert np.abs(middle - np.reshape(levels, (6, 1, 1, 1))).max() <= 2
    for image, level in zip(images, levels, strict=True):
        assert level % 2 == 0 or set(image.ravel()) == {level}


def test_the_published_validation_split_is_our_test_split(original):
    files = load_imagenet(original, "test", SPEC)
    assert files.label.tolist() == [0, 0, 1, 1, 2, 2]
    assert files.name[:3].astype(str).tolist() == [
        "val/n01/ILSVRC2012_val_00000002.JPEG",
        "val/n01/ILSVRC2012_val_00000005.JPEG",
        "val/n02/ILSVRC2012_val_00000001.JPEG",
    ]


def test_a_split_needs_only_its_own_files(folder):
    shutil.rmtree(folder / "train")
    assert len(load_imagenet(folder.parent, "test", SPEC)) == 6
    with pytest.raises(UserError, match=r"looked for the folder imagenet/train, shards imagenet/train-00000-of-"):
        load_imagenet(folder.parent, "train", SPEC)


def test_parts_keep_how_they_are_read(original):
    part = open_split(DATASET, "val", original, 0.5)
    assert isinstance(part, ImageFiles)
    assert (len(part), part.crop_pct, part.image_shape) == (3, 0.5, (8, 8, 3))


def move(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def make_it_a_file(folder: Path) -> None:
    shutil.rmtree(folder / "train/n02")
    (folder / "train/n02").write_text("")


def swap(folder: Path) -> None:
    """Two validation images change places, so that each class has as many as before."""
    first, second = "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"
    move(f"val/n02/{first}", f"val/n01/{first}")(folder)
    move(f"val/n01/{second}", f"val/n02/{second}")(folder)


# For each: the split that is read, what is done to the folder, and what the message says.
MISTAKES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a class folder missing": ("train", lambda f: shutil.rmtree(f / "train/n02"), "train lacks n02:"),
    "a stray class": ("test", lambda f: (f / "val/n99").mkdir(), "val has, beside what belongs there, n99:"),
    "a file for a class": (
        "train",
        make_it_a_file,
        "train/n02 cannot be read (Not a directory):",
    ),
    "archives left behind": (
        "train",
        lambda f: (f / "train/n01.tar").write_text(""),
        "train has, beside what belongs there, n01.tar:",
    ),
    "validation not sorted into classes": (
        "test",
        lambda f: [path.rename(f / "val" / path.name) for path in (f / "val").glob("*/*")],
        "val has, beside what belongs there, ILSVRC2012_val_00000001.JPEG, ILSVRC2012_val_00000002.JPEG, ",
    ),
    "a training image missing": (
        "train",
        lambda f: (f / "train/n01/n01_10.JPEG").unlink(),
        "train has 5 images, not 6:",
    ),
    "a training image too many": (
        "train",
        lambda f: save(f / "train/n02/n02_77.JPEG", 0),
        "train has 7 images, not 6:",
    ),
    "a stray training file": (
        "train",
        lambda f: (f / "train/n02/.DS_Store").write_text(""),
        "train/n02 has, beside what belongs there, .DS_Store:",
    ),
    "a training image of another class": (
        "train",
        move("train/n02/n02_3.JPEG", "train/n03/n02_3.JPEG"),
        "train/n03 has, beside what belongs there, n02_3.JPEG:",
    ),
    "another suffix": (
        "train",
        move("train/n02/n02_3.JPEG", "train/n02/n02_3.jpg"),
        "train/n02 has, beside what belongs there, n02_3.jpg:",
    ),
    "a stray validation file": (
        "test",
        lambda f: save(f / "val/n02/n02_3.JPEG", 0),
        "val/n02 has, beside what belongs there, n02_3.JPEG:",
    ),
    "a validation image missing": (
        "test",
        lambda f: (f / "val/n01/ILSVRC2012_val_00000005.JPEG").unlink(),
        "val lacks ILSVRC2012_val_00000005.JPEG:",
    ),
    "a validation image too many": (
        "test",
        lambda f: save(f / "val/n01/ILSVRC2012_val_00000007.JPEG", 0),
        "val has, beside what belongs there, ILSVRC2012_val_00000007.JPEG:",
    ),
    "a validation image in two classes": (
        "test",
        lambda f: save(f / "val/n03/ILSVRC2012_val_00000005.JPEG", 0),
        "val has twice ILSVRC2012_val_00000005.JPEG:",
    ),
    "validation images that changed places": (
        "test",
        swap,
        "val has images in the folders of other classes than their own:",
    ),
}


@pytest.mark.parametrize("split, spoil, words", MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_named_with_the_way_out(folder, split, spoil, words):
    spoil(folder)
    with pytest.raises(UserError) as caught:
        load_imagenet(folder.parent, split, SPEC)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "unpack that part of imagenet anew from https://www.image-net.org/download.php" in str(caught.value)


def test_without_the_folder_one_line_says_what_to_do(tmp_path):
    with pytest.raises(UserError) as caught:
        load_imagenet(tmp_path, "test")
    assert str(caught.value) == (
        f"ImageNet is not in {tmp_path} (looked for the folder imagenet/val, shards imagenet/validation-00000-of-..., "
        "and imagenet2012/VERSION): put its images there, those of a class into a folder of its WordNet identifier "
        "(n01440764); the archives are at "
        "https://www.image-net.org/download.php; or set --data_dir or $CONVMIXER_DATA_DIR to the folder that holds it"
    )


def test_an_unknown_split_is_a_user_error(original):
    with pytest.raises(UserError, match="split is 'val': choose one of train, test"):
        load_imagenet(original, "val", SPEC)


def published(name: str) -> bytes:
    """A list that tensorflow_datasets has, without importing it: that takes TensorFlow along."""
    package = importlib.util.find_spec("tensorflow_datasets")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0], "datasets/imagenet2012", name).read_bytes()


def test_the_classes_are_the_published_ones_in_the_usual_order():
    assert "\n".join(IMAGENET.classes) == published("labels.txt").decode().strip()
    assert list(IMAGENET.classes) == sorted(IMAGENET.classes)
    assert hashlib.sha256(published("validation_labels.txt")).hexdigest() == IMAGENET.val_digest


def test_the_names_are_for_people():
    names = DATASETS["imagenet"].class_names
    assert len({name.lower() for name in names}) == len(names) == 1000
    assert [names[index] for index in (0, 1, 207, 281, 817, 999)] == [
        "tench",
        "goldfish",
        "golden retriever",
        "tabby",
        "sports car",
        "toilet tissue",
    ]
    # Those which share their first word, an animal each where there is one.
    assert [names[index] for index in (134, 517)] == ["crane (bird)", "crane (machine)"]
    assert [names[index] for index in (264, 474)] == ["Cardigan, Cardigan Welsh corgi", "cardigan"]
    assert [names[index] for index in (638, 639)] == ["maillot", "maillot, tank suit"]
    assert all(name == name.strip() for name in names)
    assert IMAGENET_CLASSES["n02012849"] == "crane (bird)"


def test_the_row_is_that_of_the_released_models():
    dataset = DATASETS["imagenet"]
    assert dataset.num_examples == {"train": 1_281_167, "test": 50_000}
    assert (dataset.image_shape, dataset.crop_pct) == (IMAGENET.image_shape, IMAGENET.crop_pct) == ((224, 224, 3), 0.96)
    assert (dataset.mean, dataset.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
