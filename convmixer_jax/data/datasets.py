"""The table of data sets, and the splits that a run sees of them.

    dataset = lookup(DATASETS, "cifar10", "config.dataset")
    examples = load_split(dataset, "train", data_dir, val_fraction=0.1)       # in memory
    stored = open_split(dataset, "train", data_dir, val_fraction=0.1)         # image files stay files

To add a data set, add a row to DATASETS and, where its files are of a new kind, a reader to `sources/`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from convmixer_jax.data.examples import Examples, ImageFiles
from convmixer_jax.data.host_batches import in_memory
from convmixer_jax.data.sources import cifar, digits, imagenet, tiny_imagenet
from convmixer_jax.data.splits import stratified_choice


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a data set before a byte of it is read.

    load: (data_dir, split) to the examples of the published splits "train" and "test".
    num_examples: examples in each published split.
    image_shape: (H, W, C). mean, std: per channel of the training images, on the scale 0-1.
    crop_pct: share of the shorter side of an image of another size that evaluation looks at.
    """

    load: Callable[[Path, str], Examples | ImageFiles]
    num_examples: Mapping[str, int]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0

    @property
    def num_classes(self) -> int:
        """The number of classes; labels are 0 to num_classes - 1."""
        return len(self.class_names)

    def channel_statistics(
        self, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns (mean, std) per channel: those given, the data set's own where they are empty."""
        return tuple(mean) or self.mean, tuple(std) or self.std


DATASETS: dict[str, Dataset] = {
    "cifar10": Dataset(
        load=lambda data_dir, split: Examples(*cifar.load_cifar10(data_dir, split)),
        num_examples={"train": 50_000, "test": 10_000},
        image_shape=(32, 32, 3),
        class_names=cifar.CIFAR10_CLASSES,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
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
        num_examples=imagenet.IMAGENET.num_examples,
        image_shape=imagenet.IMAGENET.image_shape,
        class_names=tuple(imagenet.IMAGENET_CLASSES.values()),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_pct=imagenet.IMAGENET.crop_pct,
    ),
    "tiny_imagenet": Dataset(
        load=tiny_imagenet.load_tiny_imagenet,
        num_examples={"train": 100_000, "test": 10_000},
        image_shape=(64, 64, 3),
        class_names=tiny_imagenet.TINY_IMAGENET_CLASSES,
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2764, 0.2689, 0.2816),
    ),
}


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
) -> Examples | ImageFiles:
    """Returns the examples of "train", "val" or "test" as they are stored, as many as `split_sizes` says.

    "train" and "val" are disjoint parts of the published training split, stratified by class, the same on every
    machine. Raises UserError where the files are missing or damaged.
    """
    sizes = split_sizes(dataset, val_fraction, train_examples)
    published = dataset.load(data_dir, "test" if split == "test" else "train")
    if split == "test":
        return published
    val_indices = stratified_choice(published.label, sizes.get("val", 0), "validation")
    if split == "val":
        return published.take(val_indices)
    train = published.take(np.delete(np.arange(len(published)), val_indices)) if len(val_indices) else published
    if sizes["train"] == len(train):
        return train
    return train.take(stratified_choice(train.label, sizes["train"], "subset"))


def load_split(
    dataset: Dataset, split: str, data_dir: Path, val_fraction: float = 0.0, train_examples: int = 0
) -> Examples:
    """Returns what `open_split` does, in memory: image files are decoded."""
    return in_memory(open_split(dataset, split, data_dir, val_fraction, train_examples))
