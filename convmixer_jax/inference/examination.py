"""What a model takes the examples of a split for: the counts of every confusion, and the worst mistakes.

    dataset = dataset_of(description, data_dir)
    found = examine(classify, open_split(dataset, "test", data_dir), batch_size=256, keep=24, num_classes=10)

One pass in order; of the images no more are kept than a few batches and the worst mistakes.
"""

import contextlib
import dataclasses
import heapq
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np

from convmixer_jax.data.datasets import DATASETS, Dataset, Facts, find_dataset, is_found
from convmixer_jax.data.examples import Examples, Stored
from convmixer_jax.data.host_batches import HostBatches
from convmixer_jax.data.order import padded_indices
from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import Description
from convmixer_jax.runs.progress import Progress

# From uint8 [B, H, W, C] to float32 logits [B, classes].
Classify = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An example that was taken for another class. index: its place in the split. image: uint8 [H, W, C].

    loss: cross-entropy in nats, minus the logarithm of `probability_of_true`; probability: of the predicted class.
    """

    index: int
    image: np.ndarray
    label: int
    predicted: int
    probability: float
    probability_of_true: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Examination:
    """confusion: int64 [classes, classes], examples by true class (row) and predicted class (column).

    mistakes: those of the highest loss, the worst first.
    """

    confusion: np.ndarray
    mistakes: list[Mistake]

    @property
    def count(self) -> int:
        """The number of examples."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """The fraction of examples that were taken for what they are."""
        return float(np.trace(self.confusion) / self.count)


def dataset_of(description: Description, data_dir: Path) -> Dataset:
    """Returns the data set that the described model is for.

    Where it was trained on what is no row of DATASETS, that; else the row of its classes and image shape. data_dir: the
    folder of the data sets. Raises UserError where there is none.
    """
    if is_found(description.dataset):
        facts = Facts(
            num_examples={},
            image_shape=description.image_shape,
            class_names=description.class_names,
            mean=description.mean,
            std=description.std,
            crop_pct=description.crop_pct,
            varied=True,
        )
        return find_dataset(description.dataset, data_dir, known=facts)
    for dataset in DATASETS.values():
        if not dataset.has_classes(description.class_names):
            continue
        if dataset.image_shape == description.image_shape:
            return dataset
        if dataset.varied:
            # It was trained with config.image_size.
            return dataclasses.replace(dataset, image_shape=description.image_shape, crop_pct=description.crop_pct)
    height, width, channels = description.image_shape
    raise UserError(
        f"{description.source} is a model of {description.num_classes} classes and {height}x{width}x{channels} "
        f"images: no data set ({', '.join(DATASETS)}) has these classes and images, so there is no test split"
    )


def read_in_order(examples: Stored, batch_size: int) -> Generator[np.ndarray, None, None]:
    """Yields the images of all examples, uint8 [batch_size, H, W, C], the last batch filled up with the first one."""
    count = -(-len(examples) // batch_size)

    def indices(number: int) -> np.ndarray:
        return padded_indices(number, batch_size, len(examples))[0]

    if isinstance(examples, Examples):
        yield from (examples.image[indices(number)] for number in range(count))
        return
    with contextlib.closing(HostBatches(examples, indices, range(count))) as batches:
        yield from (batch["image"] for batch in batches)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax of finite logits [N, classes] as float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)


def is_finite(logits: np.ndarray) -> np.ndarray:
    """Returns for logits [N, classes] which examples have finite ones alone, bool [N]."""
    return np.isfinite(logits).all(axis=1)


def check_finite(logits: np.ndarray) -> None:
    """Raises UserError where not all logits [N, classes] are finite."""
    wrong = int((~is_finite(logits)).sum())
    if wrong:
        raise UserError(
            f"the model's logits are NaN or infinite for {wrong} of {len(logits)} images: its weights are damaged, or "
            "those of a training that diverged"
        )


def mistakes_among(logits: np.ndarray, images: np.ndarray, label: np.ndarray, first: int) -> Iterator[Mistake]:
    """Yields the mistakes of a batch, logits [N, classes]. first: the place of its first example in the split."""
    shares, predicted = probabilities(logits), logits.argmax(axis=1)
    for row in np.flatnonzero(predicted != label):
        # Not the logarithm of the share: that of a mistake may be zero.
        values = logits[row].astype(np.float64)
        loss = np.logaddexp.reduce(values) - values[label[row]]
        yield Mistake(
            index=first + int(row),
            image=images[row].copy(),  # a view would keep its whole batch
            label=int(label[row]),
            predicted=int(predicted[row]),
            probability=float(shares[row, predicted[row]]),
            probability_of_true=float(shares[row, label[row]]),
            loss=float(loss),
        )


def examine(classify: Classify, examples: Stored, batch_size: int, keep: int, num_classes: int) -> Examination:
    """Returns what comes of one pass over all examples, with a bar on a terminal. keep: how many mistakes.

    Raises UserError where logits are not finite.
    """
    confusion = np.zeros((num_classes, num_classes), np.int64)
    worst: list[Mistake] = []
    batches = -(-len(examples) // batch_size)
    with Progress(batches, 0, batch_size) as progress, contextlib.closing(read_in_order(examples, batch_size)) as read:
        for number, images in enumerate(read):
            first = number * batch_size
            label = examples.label[first : first + batch_size]
            logits = classify(images)[: len(label)]
            check_finite(logits)
            np.add.at(confusion, (label, logits.argmax(axis=1)), 1)
            found = mistakes_among(logits, images, label, first)
            worst = heapq.nsmallest(keep, (*worst, *found), key=lambda mistake: (-mistake.loss, mistake.index))
            progress.advance(1)
    return Examination(confusion, worst)
