"""The table of data sets, and the splits that a run sees of them.

    dataset = lookup(DATASETS, "cifar10", "config.dataset")
    examples = load_split(dataset, "train", data_dir, val_fraction=0.1)

To add a data set, add a row to DATASETS and, where its files are of a new kind, a reader to `sources/`.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from convmixer_jax.data.sources import cifar, digits
from convmixer_jax.data.splits import stratified_choice


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a data set before a byte of it is read.

    load: (data_dir, split) to (uint8 [N, H, W, C], int32 [N]) for the published splits "train" and "test".
    num_examples: examples in each published split.
    image_shape: (H, W, C). mean, std: per channel of the training images, on the scale 0-1.
    """

    load: Callable[[Path, str], tuple[np.ndarray, np.ndarray]]
    num_examples: Mapping[str, int]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes; labels are 0 to num_classes - 1."""
        return len(self.class_names)


DATASETS: dict[str, Dataset] = {
    "cifar10": Dataset(
        load=cifar.load_cifar10,
        num_examples={"train": 50_000, "test": 10_000},
        image_shape=(32, 32, 3),
        class_names=cifar.CIFAR10_CLASSES,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "digits": Dataset(
        load=lambda data_dir, split: digits.load_digits_split(split),
        num_examples={"train": 1_437, "test": 360},
        image_shape=(8, 8, 1),
        class_names=tuple("0123456789"),
        mean=(0.3056,),
        std=(0.3759,),
    ),
}


@dataclasses.dataclass(frozen=True)
class Examples:
    """A split in memory: image uint8 [N, H, W, C], label int32 [N]."""

    image: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, indices: np.ndarray) -> "Examples":
        """Returns the examples at `indices`, copied."""
        return Examples(self.image[indices], self.label[indices])

    def digest(self) -> str:
        """Returns the SHA-256 of all pixels and labels in their order, in hexadecimal."""
        sha = hashlib.sha256(np.ascontiguousarray(self.image).data)
        sha.update(np.ascontiguousarray(self.label, dtype="<i4").data)
        return sha.hexdigest()


def split_sizes(dataset: Dataset, val_fraction: float, train_examples: int) -> dict[str, int]:
    """Returns the number of examples in "train", "val" (where there is one) and "test", without reading them.

    val_fraction: share of the published training split that is held out for validation, in [0, 1).
    train_examples: size of a fixed, stratified subset of what remains to train on; 0 takes all of it.
    """
    val = round(dataset.num_examples["train"] * val_fraction)
    sizes = {"train": train_examples or dataset.num_examples["train"] - val, "test": dataset.num_examples["test"]}
    return sizes | ({"val": val} if val else {})


def load_split(
    dataset: Dataset, split: str, data_dir: Path, val_fraction: float = 0.0, train_examples: int = 0
) -> Examples:
    """Returns the examples of "train", "val" or "test", of exactly the size that `split_sizes` gives.

    "train" and "val" are disjoint parts of the published training split, stratified by class, the same on every
    machine. Raises UserError where the files are missing or damaged.
    """
    sizes = split_sizes(dataset, val_fraction, train_examples)
    published = Examples(*dataset.load(data_dir, "test" if split == "test" else "train"))
    if split == "test":
        return published
    val_indices = stratified_choice(published.label, sizes.get("val", 0), "validation")
    if split == "val":
        return published.take(val_indices)
    train = published.take(np.delete(np.arange(len(published)), val_indices)) if len(val_indices) else published
    if sizes["train"] == len(train):
        return train
    return train.take(stratified_choice(train.label, sizes["train"], "subset"))
