"""Fixed, stratified parts of a set of examples: the same members on every machine, whatever the run's seed.

    held_out = stratified_choice(labels, count=5_000, purpose="validation")
    train, test = train_and_test(labels)

Stratified: every class has its share, to within one example.
"""

import zlib

import numpy as np

from convmixer_jax.data.order import permutation

_TEST_SHARE = 0.2


def class_quotas(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns how many of `count` examples each class gets, int64 [classes], by largest remainder.

    Every quota is within one of the class's exact share; ties go to the lower class.
    """
    sizes = np.bincount(labels)
    share = count * sizes / len(labels)
    quotas = np.floor(share).astype(np.int64)
    by_remainder = np.argsort(quotas - share, kind="stable")
    quotas[by_remainder[: count - quotas.sum()]] += 1
    return quotas


def stratified_choice(labels: np.ndarray, count: int, purpose: str) -> np.ndarray:
    """Returns the sorted indices of a fixed, stratified choice of `count` examples, int64 [count].

    labels: integers [N] from 0. purpose: names the choice, so that choices for different purposes are independent.
    Raises ValueError unless 0 <= count <= N.
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"cannot choose {count} of {len(labels)} examples")
    chosen = []
    for label, quota in enumerate(class_quotas(labels, count)):
        members = np.flatnonzero(labels == label)
        chosen.append(members[permutation(len(members), zlib.crc32(purpose.encode()), label)[:quota]])
    return np.sort(np.concatenate(chosen))


def held_out_count(count: int) -> int:
    """Returns how many of `count` examples `train_and_test` gives to the test split."""
    return round(count * _TEST_SHARE)


def train_and_test(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted indices of both splits of a data set that has none to test with: a fixed fifth is that.

    labels: integers [N] from 0. A class's share of the test split is at most its fifth, rounded up.
    """
    chosen = np.zeros(len(labels), bool)
    chosen[stratified_choice(labels, held_out_count(len(labels)), "folder test split")] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
