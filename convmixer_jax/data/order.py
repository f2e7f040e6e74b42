"""Which example comes n-th: a pure function of seed and position.

    indices = batch_indices(seed=0, step=1234, batch_size=64, num_examples=50_000)

Nothing here has a state, so a run that resumes at step n repeats and skips nothing, and the order does not know
how many devices or processes read it.
"""

import functools

import numpy as np


def permutation(num_examples: int, *path: int) -> np.ndarray:
    """Returns a permutation of range(num_examples), int64 [num_examples], that `path` alone decides.

    It sorts raw Philox words: NumPy keeps the words of a bit generator the same across its versions, which it does
    not promise for `Generator.permutation`. `path` is one or more non-negative integers.
    """
    words = np.random.Philox(np.random.SeedSequence(path)).random_raw(num_examples)
    return np.argsort(words, kind="stable")


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the order of the examples in one epoch (from 0), int64 [num_examples], fresh for every epoch."""
    return permutation(num_examples, seed, epoch)


def batch_indices(seed: int, step: int, batch_size: int, num_examples: int) -> np.ndarray:
    """Returns the examples of batch `step` (from 0), int32 [batch_size].

    An epoch has num_examples // batch_size batches; the tail of its permutation is left out.
    Raises ValueError where not even one batch fits.
    """
    if batch_size > num_examples:
        raise ValueError(f"a batch of {batch_size} does not fit into {num_examples} examples")
    epoch, position = divmod(step, num_examples // batch_size)
    order = epoch_order(seed, epoch, num_examples)
    return order[position * batch_size : (position + 1) * batch_size].astype(np.int32)


def padded_indices(number: int, batch_size: int, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (indices int32, mask bool), both [batch_size], of batch `number` (from 0) of one pass in order.

    Where the last batch is longer than what is left, its mask is False and its index 0: padding is a real example.
    """
    position = np.arange(number * batch_size, (number + 1) * batch_size)
    mask = position < num_examples
    return np.where(mask, position, 0).astype(np.int32), mask
