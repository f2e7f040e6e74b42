"""A folder of anybody's images in which each class has a folder of its own.

    folder = ImageFolder("~/photos")
    folder.class_names()               # ("cat", "dog"): the names of the folders, sorted by code point
    files = folder.load("train")       # every image of train/cat and train/dog, however deep

In it stand either `train` and one of TEST_FOLDERS, of which the first that is there is the split "test" (nothing else
is looked at), or the folders of the classes: then the split "test" is a fixed fifth of their images, by class.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.sources.class_folders import images_by_class
from convmixer_jax.data.sources.folders import listed
from convmixer_jax.data.splits import train_and_test
from convmixer_jax.errors import UserError, lookup, suggest

TRAIN_FOLDER = "train"
TEST_FOLDERS = ("val", "validation", "valid", "test")
# What else splits are called, in lower case: taken for classes, they would train without a word.
LIKE_SPLITS = frozenset((TRAIN_FOLDER, *TEST_FOLDERS, "training", "testing", "trainset", "testset", "dev", "eval"))
IMAGE_SHAPE = (224, 224, 3)
CROP_PCT = 0.96  # the paper's

# Names of the images as seen from the folder, bytes [N] in UTF-8, and their labels, int32 [N].
_Images = tuple[np.ndarray, np.ndarray]


class ImageFolder:
    """Nothing is looked for before it is asked for, and nothing twice.

    place: the folder; "~" and paths from the working directory are understood. class_names: in the order of the labels,
    where they are known; the folders must then be these. num_examples: of the splits, where it is known.
    Every method raises UserError, naming the file or folder, where it is not as it must be.
    """

    def __init__(self, place: str, class_names: Sequence[str] = (), num_examples: Mapping[str, int] | None = None):
        self._place = place
        self._classes = tuple(class_names)
        self._known = dict(num_examples or {})
        self._found: dict[str, _Images] = {}

    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the classes in the order of their labels."""
        if not self._classes:
            self._images("train")
        return self._classes

    def num_examples(self) -> dict[str, int]:
        """Returns the number of images in the splits "train" and "test"."""
        return {split: len(self._images(split)[0]) for split in ("train", "test")}

    def load(self, split: str) -> ImageFiles:
        """Returns the images of "train" or "test", in order of class and name. The other one need not be there."""
        names, labels = self._images(split)
        expected = self._known.get(split, len(names))
        if len(names) != expected:
            raise UserError(
                f"{self._path} has {len(names):,} images for {split!r}, and the run began with {expected:,}: give it "
                "what it had, or begin another run"
            )
        # Anybody's files may be called and sized alike (BMP files always are), and be exchanged.
        return ImageFiles(
            self._path, names, label=labels, image_shape=IMAGE_SHAPE, crop_pct=CROP_PCT, digest_looks_inside=True
        )

    def _images(self, split: str) -> _Images:
        part = lookup({"train": TRAIN_FOLDER, "test": self._test_folder}, split, "split")
        if split not in self._found:
            self._found |= self._one_tree() if self._is_one_tree else {split: self._part(split, part)}
        return self._found[split]

    @functools.cached_property
    def _path(self) -> Path:
        field = f"config.dataset is 'folder:{self._place}'"
        try:
            path = Path(self._place).expanduser().absolute()
        except RuntimeError as error:  # there is no such user
            raise UserError(f"{field}: {error}") from error
        if not self._place or not _is_folder(path):
            raise UserError(
                f"{field}, and {path if self._place else 'that'} is no folder: name the one that holds {TRAIN_FOLDER} "
                f"and {TEST_FOLDERS[0]}, or one that holds a folder for each class"
            )
        return path

    @functools.cached_property
    def _test_folder(self) -> str:
        return next((name for name in TEST_FOLDERS if _is_folder(self._path / name)), "")

    @property
    def _is_one_tree(self) -> bool:
        return not self._test_folder and not _is_folder(self._path / TRAIN_FOLDER)

    def _part(self, split: str, part: str) -> _Images:
        """Returns the images in the folder `part`, that of a split."""
        if not part or not _is_folder(self._path / part):
            there = self._test_folder or TRAIN_FOLDER
            raise UserError(
                f"{self._path} has {there} and no {part or ' nor '.join(TEST_FOLDERS)}: make that folder, or name "
                f"{self._path / there}, of which a fixed fifth is then the test split"
            )
        if split == "test":
            self.class_names()
        by_class = self._listed(part, fewest=1 if split == "train" else 0)
        if not any(by_class.values()):
            raise UserError(f"{self._path / part} has no image: put the images of a class into its folder")
        return _in_order(by_class)

    def _one_tree(self) -> dict[str, _Images]:
        """Returns both splits, where one tree holds them."""
        # One of two stays for training: a class's share of the test split is at most its fifth, rounded up.
        by_class = self._listed("", fewest=2)
        splits_perhaps = [name for name in by_class if name.lower() in LIKE_SPLITS]
        if splits_perhaps:
            raise UserError(
                f"{self._path} has {listed(splits_perhaps)}, which looks like a split and not like a class: call the "
                f"splits {TRAIN_FOLDER} and {TEST_FOLDERS[0]}, or the class something else"
            )
        names, labels = _in_order(by_class)
        splits = zip(("train", "test"), train_and_test(labels), strict=True)
        return {split: (names[chosen], labels[chosen]) for split, chosen in splits}

    def _listed(self, part: str, fewest: int) -> dict[str, list[str]]:
        """Returns the images of each class, in the order of the labels. fewest: how many each must have."""
        by_class = images_by_class(self._path, part)
        folder = self._path / part
        if not self._classes:
            if len(by_class) < 2:
                raise UserError(
                    f"{folder} must hold a folder for each of two or more classes, and has {listed(by_class) or 'none'}"
                )
            self._classes = tuple(by_class)
        self._check_classes(folder, by_class)
        for name, images in by_class.items():
            if len(images) < fewest:
                raise UserError(
                    f"{folder / name} has {'one image' if images else 'no image'}: put {fewest} or more there, or "
                    "remove the folder"
                )
        return {name: by_class[name] for name in self._classes}

    def _check_classes(self, folder: Path, found: Mapping[str, list[str]]) -> None:
        """Raises UserError unless the folders are those of the classes that are trained."""
        more = [name for name in found if name not in self._classes]
        if more:
            raise UserError(
                f"{folder} has {listed(more)}, of which training knows nothing{suggest(more[0], self._classes)}: "
                f"remove it, or train with it in another run (the classes are {listed(self._classes)})"
            )
        missing = [name for name in self._classes if name not in found]
        if missing:
            raise UserError(f"{folder} lacks {listed(missing)}: make an empty folder there if none is meant")


def _is_folder(path: Path) -> bool:
    """Returns whether a folder is there; raises UserError where that cannot be known."""
    try:
        return path.is_dir()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give yourself the right to") from error


def _in_order(by_class: Mapping[str, list[str]]) -> _Images:
    names = [name for images in by_class.values() for name in images]
    labels = np.repeat(np.arange(len(by_class), dtype=np.int32), [len(images) for images in by_class.values()])
    return np.array([name.encode() for name in names], np.bytes_), labels
