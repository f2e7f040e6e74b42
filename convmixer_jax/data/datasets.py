"""The tables of data sets, and the splits that a run sees of them.

    dataset = find_dataset("cifar10", data_dir)                               # or "folder:photos", "tfds:beans"
    examples = load_split(dataset, "train", data_dir, val_fraction=0.1)       # in memory
    stored = open_split(dataset, "train", data_dir, val_fraction=0.1)         # encoded images stay where they are

To add a data set, add a row to DATASETS and, where its files are of a new kind, a reader to `sources/`. To add a kind
of place that holds a data set of anybody's, add a row to OPENERS.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.data.examples import EncodedImages, Examples, Stored
from convmixer_jax.data.host_batches import in_memory
from convmixer_jax.data.sources import digits, imagenet, tiny_imagenet
from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.data.sources.cifar_specs import CIFAR10, CIFAR100, CIFAR100_COARSE, CifarSpec
from convmixer_jax.data.sources.image_folder import CROP_PCT, IMAGE_SHAPE, ImageFolder
from convmixer_jax.data.sources.imagenet_spec import IMAGENET, IMAGENET_CLASSES
from convmixer_jax.data.sources.prepared import prefer_prepared
from convmixer_jax.data.sources.tfds_prepared import Prepared, describe_prepared, find_prepared
from convmixer_jax.data.splits import stratified_choice
from convmixer_jax.errors import UserError, suggest

# Of ImageNet, and so of photographs, per channel on the scale 0-1.
PHOTOGRAPHS_MEAN, PHOTOGRAPHS_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SMALL = 128  # pixels of a side: of images that become smaller evaluation looks at all, where config.crop_pct is 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a data set before an image of it is read.

    num_examples: examples in each published split.
    image_shape: (H, W, C). class_names: in the order of the labels. mean, std: per channel of the training images, on
    the scale 0-1. crop_pct: share of the shorter side of an image of another size that evaluation looks at.
    varied: whether the stored images have sizes of their own, so that they are resized to image_shape.
    """

    num_examples: Mapping[str, int]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    varied: bool = False

    @property
    def num_classes(self) -> int:
        """The number of classes; labels are 0 to num_classes - 1."""
        return len(self.class_names)

    def channel_statistics(
        self, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns (mean, std) per channel: those given, the data set's own where they are empty."""
        return tuple(mean) or self.mean, tuple(std) or self.std


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset(Facts):
    """A data set that can be read. load: (data_dir, split) to the examples of the published splits "train" and "test".

    Labels are the places of class_names. other_names: what models of other origin call the classes, in the same order;
    empty where there is but one way.
    """

    load: Callable[[Path, str], Stored]
    other_names: tuple[str, ...] = ()

    def has_classes(self, names: tuple[str, ...]) -> bool:
        """Whether these are names of all classes, in the order of their labels."""
        return bool(names) and names in (self.class_names, self.other_names)


def _cifar(spec: CifarSpec, mean: tuple[float, ...], std: tuple[float, ...]) -> Dataset:
    return Dataset(
        load=lambda data_dir, split: Examples(*load_cifar(data_dir, split, spec)),
        num_examples={split: spec.num_examples(split) for split in spec.files},
        image_shape=(32, 32, 3),
        class_names=spec.target.classes,
        mean=mean,
        std=std,
    )


_CIFAR100_MEAN, _CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

DATASETS: dict[str, Dataset] = {
    "cifar10": _cifar(CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": _cifar(CIFAR100, _CIFAR100_MEAN, _CIFAR100_STD),
    "cifar100_coarse": _cifar(CIFAR100_COARSE, _CIFAR100_MEAN, _CIFAR100_STD),
    "digits": Dataset(
        load=lambda data_dir, split: Examples(*digits.load_digits_split(split)),
        num_examples={"train": 1_437, "test": 360},
        image_shape=(8, 8, 1),
        class_names=tuple("0123456789"),
        mean=(0.3056,),
        std=(0.3759,),
    ),
    "imagenet": Dataset(
        load=imagenet.load_imagenet,
        num_examples=IMAGENET.num_examples,
        image_shape=IMAGENET.image_shape,
        class_names=tuple(IMAGENET_CLASSES.values()),
        other_names=IMAGENET.classes,
        mean=PHOTOGRAPHS_MEAN,
        std=PHOTOGRAPHS_STD,
        crop_pct=IMAGENET.crop_pct,
        varied=True,
    ),
    "tiny_imagenet": Dataset(
        load=prefer_prepared("tiny_imagenet", tiny_imagenet.load_tiny_imagenet, tiny_imagenet.find_tiny_imagenet),
        num_examples={"train": 100_000, "test": 10_000},
        image_shape=(64, 64, 3),
        # All of them are classes of ImageNet, too.
        class_names=tuple(IMAGENET_CLASSES[wnid] for wnid in tiny_imagenet.TINY_IMAGENET_CLASSES),
        other_names=tiny_imagenet.TINY_IMAGENET_CLASSES,
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2764, 0.2689, 0.2816),
    ),
}


def _open_folder(place: str, data_dir: Path, known: Facts | None) -> Dataset:
    folder = ImageFolder(place, known.class_names, known.num_examples) if known else ImageFolder(place)
    facts = known or Facts(
        num_examples=folder.num_examples(),
        image_shape=IMAGE_SHAPE,
        class_names=folder.class_names(),
        mean=PHOTOGRAPHS_MEAN,
        std=PHOTOGRAPHS_STD,
        crop_pct=CROP_PCT,
        varied=True,
    )
    return Dataset(load=lambda data_dir, split: folder.load(split), **vars(facts))


def _open_tfds(place: str, data_dir: Path, known: Facts | None) -> Dataset:
    @functools.cache
    def prepared(data_dir: Path) -> Prepared:
        return describe_prepared(find_prepared(place, data_dir))

    facts = known or _facts_of_tfds(prepared(data_dir))

    def load(data_dir: Path, split: str) -> Stored:
        return prepared(data_dir).images(split, facts.class_names, facts.num_examples)

    return Dataset(load=load, **vars(facts))


def _facts_of_tfds(prepared: Prepared) -> Facts:
    grey = prepared.image_shape[2] == 1
    return Facts(
        num_examples=prepared.num_examples(),
        image_shape=prepared.image_shape,
        class_names=prepared.class_names,
        mean=(round(statistics.mean(PHOTOGRAPHS_MEAN), 3),) if grey else PHOTOGRAPHS_MEAN,
        std=(round(statistics.mean(PHOTOGRAPHS_STD), 3),) if grey else PHOTOGRAPHS_STD,
        crop_pct=CROP_PCT if prepared.varied else 1.0,
        varied=prepared.varied,
    )


# By what stands before the colon: (what stands behind it, data_dir, what a run recorded or None) to the data set.
# What was recorded is not looked for again: an evaluation needs no training data.
OPENERS: dict[str, Callable[[str, Path, Facts | None], Dataset]] = {"folder": _open_folder, "tfds": _open_tfds}


def named_dataset(name: str, field: str) -> Dataset:
    """Returns a row of DATASETS. Raises UserError, naming `field` and every choice, where there is no such row."""
    if name not in DATASETS:
        kinds = "".join(f", or {kind}:..." for kind in OPENERS)
        raise UserError(f"{field} is {name!r}{suggest(name, DATASETS)}: choose one of {', '.join(DATASETS)}{kinds}")
    return DATASETS[name]


def is_found(name: str) -> bool:
    """Whether `name` says where a data set lies, as a row of OPENERS does, and is no row of DATASETS."""
    return name.partition(":")[0] in OPENERS and ":" in name


def find_dataset(
    name: str, data_dir: Path, *, known: Facts | None = None, image_size: int = 0, crop_pct: float = 0.0
) -> Dataset:
    """Returns the data set called `name`: a row of DATASETS, or KIND:PLACE with a row of OPENERS.

    known: what a run that is resumed or evaluated recorded of it. image_size: pixels of a side that images become, and
    crop_pct, both only where the stored images vary in size; 0 for the data set's own, of small images the whole.
    Raises UserError where there is none such, or it is not as it must be.
    """
    kind, _, place = name.partition(":")
    dataset = OPENERS[kind](place, data_dir, known) if is_found(name) else named_dataset(name, "config.dataset")
    for field, value in (("image_size", image_size), ("crop_pct", crop_pct)):
        if value and not dataset.varied:
            raise UserError(
                f"config.{field} is {value:g}: the images of {name} are {dataset.image_shape[1]}x"
                f"{dataset.image_shape[0]} pixels and are taken as they are; leave it at 0"
            )
    side = (image_size, image_size) if image_size else dataset.image_shape[:2]
    own_share = 1.0 if 0 < image_size < _SMALL else dataset.crop_pct
    return dataclasses.replace(
        dataset,
        load=_listed_once(dataset.load),
        image_shape=(*side, dataset.image_shape[2]),
        crop_pct=crop_pct or own_share,
    )


def _listed_once(load: Callable[[Path, str], Stored]) -> Callable[[Path, str], Stored]:
    """Returns a loader that looks only once for encoded images, a million files perhaps. Arrays are not kept."""
    found: dict[tuple[Path, str], EncodedImages] = {}

    def load_once(data_dir: Path, split: str) -> Stored:
        if (data_dir, split) in found:
            return found[data_dir, split]
        stored = load(data_dir, split)
        if isinstance(stored, EncodedImages):
            found[data_dir, split] = stored
        return stored

    return load_once


def to_record(name: str, dataset: Dataset) -> dict[str, Any] | None:
    """Returns what a run records of its data set, a JSON object; None for a row of DATASETS, which stays as it is."""
    if not is_found(name):
        return None
    return {field.name: getattr(dataset, field.name) for field in dataclasses.fields(Facts)}


def from_record(record: Mapping[str, Any] | None, place: str) -> Facts | None:
    """Returns what `to_record` was given, None for None. Raises UserError, naming `place`, for anything else."""
    if record is None:
        return None
    try:
        height, width, channels = (int(side) for side in record["image_shape"])
        return Facts(
            num_examples={str(split): int(count) for split, count in record["num_examples"].items()},
            image_shape=(height, width, channels),
            class_names=tuple(str(name) for name in record["class_names"]),
            mean=tuple(float(value) for value in record["mean"]),
            std=tuple(float(value) for value in record["std"]),
            crop_pct=float(record["crop_pct"]),
            varied=bool(record["varied"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place} does not describe a data set ({error!r}): restore it from a copy") from error


def split_sizes(dataset: Dataset, val_fraction: float, train_examples: int) -> dict[str, int]:
    """Returns the number of examples in "train", "val" (where there is one) and "test", without reading them.

    val_fraction: share of the published training split that is held out for validation, in [0, 1).
    train_examples: size of a fixed, stratified subset of what remains to train on; 0 takes all of it.
    """
    val = round(dataset.num_examples["train"] * val_fraction)
    sizes = {"train": train_examples or dataset.num_examples["train"] - val, "test": dataset.num_examples["test"]}
    return sizes | ({"val": val} if val else {})


def open_split(
    dataset: Dataset, split: str, data_dir: Path, val_fraction: float = 0.0, train_examples: int = 0
) -> Stored:
    """Returns the examples of "train", "val" or "test" as they are stored, as many as `split_sizes` says.

    "train" and "val" are disjoint parts of the published training split, stratified by class, the same on every
    machine. Raises UserError where the files are missing or damaged.
    """
    published = dataset.load(data_dir, "test" if split == "test" else "train")
    if not isinstance(published, Examples):
        published = dataclasses.replace(published, image_shape=dataset.image_shape, crop_pct=dataset.crop_pct)
    if split == "test":
        return published
    val_indices = stratified_choice(published.label, round(len(published) * val_fraction), "validation")
    if split == "val":
        return published.take(val_indices)
    train = published.take(np.delete(np.arange(len(published)), val_indices)) if len(val_indices) else published
    if train_examples in (0, len(train)):
        return train
    return train.take(stratified_choice(train.label, train_examples, "subset"))


def load_split(
    dataset: Dataset, split: str, data_dir: Path, val_fraction: float = 0.0, train_examples: int = 0
) -> Examples:
    """Returns what `open_split` does, in memory: image files are decoded."""
    return in_memory(open_split(dataset, split, data_dir, val_fraction, train_examples))
