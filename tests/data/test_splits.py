"""Fixed, stratified parts of a set, and the splits of the data sets that are made of them."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.datasets import DATASETS, Dataset, load_split, split_sizes
from convmixer_jax.data.splits import class_quotas, held_out_count, stratified_choice, train_and_test

NOWHERE = Path("/nonexistent")  # the digits are bundled: their folder is never looked at


def uneven_labels() -> np.ndarray:
    """1,000 labels: 600 of class 0, 299 of class 1, 100 of class 2, none of class 3, 1 of class 4; shuffled."""
    labels = np.repeat([0, 1, 2, 4], [600, 299, 100, 1])
    return labels[np.random.Generator(np.random.PCG64(0)).permutation(1000)]


@pytest.mark.parametrize(
    "sizes, count, quotas",
    [
        ([5, 5], 4, [2, 2]),
        ([5, 5], 5, [3, 2]),  # a tie goes to the lower class
        ([1, 2, 7], 5, [1, 1, 3]),  # shares 0.5, 1, 3.5: floors 0, 1, 3, and the tie goes to class 0
        ([600, 299, 100, 0, 1], 100, [60, 30, 10, 0, 0]),  # shares 60, 29.9, 10, 0, 0.1
        ([3, 3, 3], 0, [0, 0, 0]),
        ([3, 2], 5, [3, 2]),
    ],
)
def test_quotas_by_hand(sizes, count, quotas):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert class_quotas(labels, count).tolist() == quotas


@pytest.mark.parametrize("count", [0, 1, 7, 10, 333, 999, 1000])
def test_a_choice_is_stratified(count):
    labels = uneven_labels()
    chosen = stratified_choice(labels, count, "a purpose")
    assert len(chosen) == count
    assert np.all(np.diff(chosen) > 0), "sorted, each at most once"
    assert chosen.dtype == np.int64
    for label in range(5):
        exact = count * np.sum(labels == label) / len(labels)
        assert abs(np.sum(labels[chosen] == label) - exact) < 1


def test_pinned():
    # Written down once: whoever trained with a validation split must find the same one in later versions.
    labels = np.arange(100) % 5
    assert stratified_choice(labels, 10, "validation").tolist() == [6, 10, 13, 14, 15, 29, 33, 37, 77, 96]
    assert stratified_choice(labels, 10, "subset").tolist() == [4, 18, 19, 40, 45, 62, 76, 86, 88, 92]


def test_purposes_are_independent():
    labels = np.zeros(1000, int)
    chosen = [set(stratified_choice(labels, 500, f"purpose {n}").tolist()) for n in range(5)]
    overlaps = [len(chosen[a] & chosen[b]) for a in range(5) for b in range(a)]
    # Two independent halves of 1,000 share 250, with a standard deviation of sqrt(500 * 1/4 * 500/999) = 7.9
    # (hypergeometric). Ten pairs: four deviations are passed once in 1,600 good generators, and the seeds are fixed.
    assert all(abs(overlap - 250) < 4 * 7.9 for overlap in overlaps)


@pytest.mark.parametrize("count", [-1, 11])
def test_a_count_that_cannot_be_chosen(count):
    with pytest.raises(ValueError, match=f"cannot choose {count} of 10 examples"):
        stratified_choice(np.zeros(10, int), count, "a purpose")


def rows(examples) -> list[bytes]:
    return [image.tobytes() + bytes([label]) for image, label in zip(examples.image, examples.label, strict=True)]


@pytest.mark.parametrize("val_fraction, train_examples", [(0.0, 0), (0.1, 0), (0.25, 0), (0.0, 500), (0.1, 640)])
def test_digits_splits(val_fraction, train_examples):
    dataset = DATASETS["digits"]
    sizes = split_sizes(dataset, val_fraction, train_examples)
    assert sizes.keys() == ({"train", "val", "test"} if val_fraction else {"train", "test"})
    splits = {name: load_split(dataset, name, NOWHERE, val_fraction, train_examples) for name in sizes}
    assert {name: len(split) for name, split in splits.items()} == sizes
    assert sizes["test"] == 360
    # 1,437 * 0.1 = 143.7 and 1,437 * 0.25 = 359.25
    assert sizes.get("val", 0) == {0.0: 0, 0.1: 144, 0.25: 359}[val_fraction]
    assert sizes["train"] == (train_examples or 1437 - sizes.get("val", 0))

    published = Counter(rows(load_split(dataset, "train", NOWHERE)))
    held_out = Counter(rows(splits["val"])) if val_fraction else Counter()
    used = Counter(rows(splits["train"])) + held_out
    # As multisets, since a few digits occur twice: nothing is used more often than it is there, so the two are
    # disjoint; and where no subset is asked for, everything is used.
    assert used <= published
    if not train_examples:
        assert used == published
    for split in splits.values():
        share = np.bincount(split.label, minlength=10) / len(split)
        whole = np.bincount(load_split(dataset, "train", NOWHERE).label, minlength=10) / 1437
        # Each quota is within one example of its exact share; a second choice out of a first one adds its own, and
        # the test split is a choice out of all 1,797, so its share differs from the rest's by up to 1/360 + 1/1437.
        assert np.all(np.abs(share - whole) < 2 / len(split) + 1 / 1437)


def test_the_validation_split_does_not_depend_on_the_subset():
    dataset = DATASETS["digits"]
    with_subset = load_split(dataset, "val", NOWHERE, 0.1, 500)
    without = load_split(dataset, "val", NOWHERE, 0.1, 0)
    assert with_subset.digest() == without.digest()


def test_digest_sees_pixels_labels_and_order():
    examples = load_split(DATASETS["digits"], "test", NOWHERE)
    assert examples.digest() == load_split(DATASETS["digits"], "test", NOWHERE).digest()
    other_pixel, other_label = examples.take(np.arange(360)), examples.take(np.arange(360))
    other_pixel.image[0, 0, 0, 0] += 1
    other_label.label[0] += 1
    other_order = examples.take(np.arange(360)[::-1])
    assert len({each.digest() for each in (examples, other_pixel, other_label, other_order)}) == 4


def test_a_fifth_to_test_with():
    # Of classes of 5, 10 and 1 a fifth is 1, 2 and 0.2: three of sixteen.
    labels = np.array([0] * 5 + [1] * 10 + [2])
    train, test = train_and_test(labels)
    assert np.bincount(labels[test], minlength=3).tolist() == [1, 2, 0]
    assert sorted([*train, *test]) == list(range(16))
    assert len(test) == held_out_count(16)
    assert [(each == np.sort(each)).all() for each in (train, test)] == [True, True]


def datasets_at_hand() -> dict[str, tuple[Dataset, Path]]:
    """The bundled digits always; CIFAR-10 wherever $CONVMIXER_DATA_DIR has it."""
    found = {"digits": (DATASETS["digits"], NOWHERE)}
    data_dir = Path(os.environ.get("CONVMIXER_DATA_DIR", NOWHERE))
    if (data_dir / "cifar-10-batches-py").is_dir():
        found["cifar10"] = (DATASETS["cifar10"], data_dir)
    return found


@pytest.mark.parametrize("dataset, data_dir", datasets_at_hand().values(), ids=datasets_at_hand())
def test_rows_agree_with_the_data(dataset, data_dir):
    for split, count in dataset.num_examples.items():
        examples = load_split(dataset, split, data_dir)
        assert examples.image.shape == (count, *dataset.image_shape)
        assert sorted(set(examples.label.tolist())) == list(range(dataset.num_classes))
    images = load_split(dataset, "train", data_dir).image
    for channel in range(dataset.image_shape[2]):
        # The rows have four digits: half a unit of the last. Whole numbers are counted, so this sum is exact.
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        levels = np.arange(256) / 255
        mean = np.sum(counts * levels) / counts.sum()
        std = np.sqrt(np.sum(counts * (levels - mean) ** 2) / counts.sum())
        assert dataset.mean[channel] == pytest.approx(mean, abs=5e-5)
        assert dataset.std[channel] == pytest.approx(std, abs=5e-5)
