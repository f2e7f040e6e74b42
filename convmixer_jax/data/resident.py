"""A whole data set as uint8 on the devices; batches are taken by index inside the compiled step. No TensorFlow.

    source = ResidentInput(examples, replicated, over_data, seed=0, batch_size=64)
    step_fn(state, source.data, source.batch(n))      # and in the step: resident.take(data, batch)

Only the indices of a batch travel to the devices in each step. A streaming input has the same three parts (`data`,
`batch`, `take`): there `data` is empty, `batch` holds the images themselves and `take` hands them through.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from convmixer_jax.data.datasets import Examples
from convmixer_jax.data.order import batch_indices

Batch = dict[str, jax.Array]


def put(array: np.ndarray, sharding: Sharding) -> jax.Array:
    """Returns `array` laid out by `sharding`; every process holds the whole array and gives its own part."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def take(data: Batch, batch: Batch) -> Batch:
    """Returns {image uint8 [B, H, W, C], label int32 [B]}, and `mask` [B] where the batch has one."""
    index = batch["index"]
    # The indices come from `batch_indices`, so the bounds check that jnp.take would compile in has nothing to find.
    taken = {name: jnp.take(values, index, axis=0, mode="clip") for name, values in data.items()}
    return taken | {name: values for name, values in batch.items() if name != "index"}


class ResidentSplit:
    """One split on the devices: `data` is {image uint8 [N, H, W, C], label int32 [N]}, whole on each device."""

    def __init__(self, examples: Examples, replicated: Sharding, over_data: Sharding):
        self.num_examples = len(examples)
        self.over_data = over_data
        self.data = {"image": put(examples.image, replicated), "label": put(examples.label, replicated)}


class ResidentInput(ResidentSplit):
    """Training batches: `batch(n)` is {index int32 [B]}, a function of seed, n, batch size and data set alone."""

    def __init__(self, examples: Examples, replicated: Sharding, over_data: Sharding, seed: int, batch_size: int):
        super().__init__(examples, replicated, over_data)
        self.seed, self.batch_size = seed, batch_size

    def batch(self, step: int) -> Batch:
        """Returns batch `step`, counted from 0 over the whole run."""
        return {"index": put(batch_indices(self.seed, step, self.batch_size, self.num_examples), self.over_data)}


class ResidentEvaluation(ResidentSplit):
    """Evaluation batches in order, the last one padded: {index int32 [B], mask bool [B]}, mask False on padding."""

    def __init__(self, examples: Examples, replicated: Sharding, over_data: Sharding, batch_size: int):
        super().__init__(examples, replicated, over_data)
        self.batch_size = batch_size

    def batches(self) -> Iterator[Batch]:
        """Yields batches that hold each example exactly once."""
        for start in range(0, self.num_examples, self.batch_size):
            position = np.arange(start, start + self.batch_size, dtype=np.int32)
            mask = position < self.num_examples
            yield {
                "index": put(np.where(mask, position, 0).astype(np.int32), self.over_data),
                "mask": put(mask, self.over_data),
            }
