"""A whole data set as uint8 on the devices; batches are taken by index inside the compiled step.

    source = ResidentInput(examples, replicated, over_data, seed=0, batch_size=64)
    step_fn(state, source.data, source.batch(n))      # and in the step: resident.take(data, batch)

Only the indices of a batch travel to the devices in each step, so that those of several can go together (`batches`).
A streaming input has the same three parts (`data`, `batch`, `take`): there `data` is empty, `batch` holds the images
themselves and `take` hands them through.
TensorFlow is imported only where the examples are image files, which are decoded once, at the start.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding

from convmixer_jax.data.examples import Stored
from convmixer_jax.data.host_batches import AS_STORED, Reading, in_memory
from convmixer_jax.data.order import batch_indices, padded_indices
from convmixer_jax.data.placing import Batch, Shapes, put, stacked


def take(data: Batch, batch: Batch) -> Batch:
    """Returns {image uint8 [B, H, W, C], label int32 [B]}, and `mask` [B] where the batch has one."""
    index = batch["index"]
    # The indices come from `batch_indices`, so the bounds check that jnp.take would compile in has nothing to find.
    taken = {name: jnp.take(values, index, axis=0, mode="clip") for name, values in data.items()}
    return taken | {name: values for name, values in batch.items() if name != "index"}


def abstract_inputs(
    num_examples: int, image_shape: tuple[int, ...], batch_size: int, replicated: Sharding, over_data: Sharding
) -> tuple[Shapes, Shapes]:
    """Returns the shapes of (data, batch) as jax.ShapeDtypeStruct leaves."""
    data = {
        "image": jax.ShapeDtypeStruct((num_examples, *image_shape), np.uint8, sharding=replicated),
        "label": jax.ShapeDtypeStruct((num_examples,), np.int32, sharding=replicated),
    }
    return data, {"index": jax.ShapeDtypeStruct((batch_size,), np.int32, sharding=over_data)}


class ResidentSplit:
    """One split on the devices: `data` is {image uint8 [N, H, W, C], label int32 [N]}, whole on each device."""

    def __init__(self, examples: Stored, replicated: Sharding, over_data: Sharding, reading: Reading = AS_STORED):
        if reading.crop is not None:
            raise ValueError("crops of whole images come anew with each update: they cannot lie on the devices")
        self._replacements = reading.replacements(examples)
        examples = in_memory(examples, self._replacements)
        self.num_examples = len(examples)
        self.over_data = over_data
        self.data = {"image": put(examples.image, replicated), "label": put(examples.label, replicated)}


class ResidentInput(ResidentSplit):
    """Training batches: `batch(n)` is {index int32 [B]}, a function of seed, n, batch size and data set alone."""

    def __init__(
        self,
        examples: Stored,
        replicated: Sharding,
        over_data: NamedSharding,
        seed: int,
        batch_size: int,
        reading: Reading = AS_STORED,
    ):
        super().__init__(examples, replicated, over_data, reading)
        self.seed, self.batch_size = seed, batch_size
        self.stacked = stacked(over_data)

    def batch(self, step: int) -> Batch:
        """Returns batch `step`, counted from 0 over the whole run."""
        return {"index": put(self._indices(step), self.over_data)}

    def batches(self, step: int, count: int, capacity: int) -> Batch:
        """Returns the `count` batches from `step` on as {index int32 [capacity, B]}; the rows after them are 0."""
        index = np.zeros((capacity, self.batch_size), np.int32)
        index[:count] = [self._indices(step + n) for n in range(count)]
        return {"index": put(index, self.stacked)}

    def replaced(self, steps: range) -> int:
        """Returns how often a bad example was replaced in these batches, those of all processes together."""
        return sum(self._replacements.count(self._indices(step)) for step in steps) if self._replacements else 0

    def _indices(self, step: int) -> np.ndarray:
        return batch_indices(self.seed, step, self.batch_size, self.num_examples)

    def close(self) -> None:
        """Does nothing: nothing works in the background."""


class ResidentEvaluation(ResidentSplit):
    """Evaluation batches in order, the last one padded: {index int32 [B], mask bool [B]}, mask False on padding."""

    def __init__(
        self, examples: Stored, replicated: Sharding, over_data: Sharding, batch_size: int, reading: Reading = AS_STORED
    ):
        super().__init__(examples, replicated, over_data, reading)
        self.batch_size = batch_size

    def batches(self) -> Iterator[Batch]:
        """Yields batches that hold each example exactly once."""
        for number in range(-(-self.num_examples // self.batch_size)):
            index, mask = padded_indices(number, self.batch_size, self.num_examples)
            yield {"index": put(index, self.over_data), "mask": put(mask, self.over_data)}
