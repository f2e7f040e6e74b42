"""Batches that travel to the devices in each step, prepared by a tf.data pipeline: for data that do not fit on them.

    source = StreamInput(examples, replicated, over_data, seed=0, batch_size=64)
    step_fn(state, source.data, source.batch(n))      # and in the step: stream.take(data, batch)

The same parts as resident.py has, made from the same arguments, with the same examples in the same order. Nothing is
laid out by `replicated` here.
"""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Sharding

from convmixer_jax.data.examples import Stored
from convmixer_jax.data.host_batches import AS_STORED, Crops, HostBatches, Reading
from convmixer_jax.data.host_crops import crop_draws
from convmixer_jax.data.order import batch_indices, padded_indices
from convmixer_jax.data.placing import Batch, Shapes, put
from convmixer_jax.data.tensorflow_cpu import load_tensorflow

_NO_END = np.iinfo(np.int64).max


def take(data: Batch, batch: Batch) -> Batch:
    """Returns `batch`, {image uint8 [B, H, W, C], label int32 [B]} and, in evaluation, mask bool [B]."""
    return batch


def local_rows(sharding: Sharding, batch_size: int) -> np.ndarray:
    """Returns the rows of a global batch that devices of this process hold, int64, ascending, each once."""
    held = np.zeros(batch_size, bool)
    for (rows,) in sharding.addressable_devices_indices_map((batch_size,)).values():  # type: ignore[misc]
        held[rows] = True
    return np.flatnonzero(held)


def put_rows(local: np.ndarray, rows: np.ndarray, batch_size: int, sharding: Sharding) -> jax.Array:
    """Returns the global array [batch_size, ...] whose `rows` are `local`; other processes give the other rows."""

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        of_rows, *of_pixels = index or (slice(None),)
        wanted = np.arange(batch_size)[of_rows]
        # What is contiguous in the batch is contiguous in `rows` too: they are ascending, and hold all of `wanted`.
        first = np.searchsorted(rows, wanted[0])
        return local[(slice(first, first + len(wanted)), *of_pixels)]

    return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, part)


def abstract_inputs(
    num_examples: int, image_shape: tuple[int, ...], batch_size: int, replicated: Sharding, over_data: Sharding
) -> tuple[Shapes, Shapes]:
    """Returns the shapes of (data, batch) as jax.ShapeDtypeStruct leaves."""
    image = jax.ShapeDtypeStruct((batch_size, *image_shape), np.uint8, sharding=over_data)
    return {}, {"image": image, "label": jax.ShapeDtypeStruct((batch_size,), np.int32, sharding=over_data)}


class StreamedSplit:
    """One split that stays on the host; `data` is empty."""

    def __init__(
        self, examples: Stored, replicated: Sharding, over_data: Sharding, batch_size: int, reading: Reading = AS_STORED
    ):
        load_tensorflow()  # seconds, which belong to the start and not to the first batch
        self.examples, self.over_data, self.batch_size = examples, over_data, batch_size
        self.num_examples = len(examples)
        self.data: Batch = {}
        self._rows = local_rows(over_data, batch_size)
        self._replacements = reading.replacements(examples)

    def _put(self, local: dict[str, np.ndarray]) -> Batch:
        return {name: put_rows(values, self._rows, self.batch_size, self.over_data) for name, values in local.items()}


class StreamInput(StreamedSplit):
    """Training batches: `batch(n)` is {image uint8 [B, H, W, C], label int32 [B]}, laid out by `over_data`.

    The examples are those of `batch_indices`, as in ResidentInput; this process reads only its own rows of them.
    """

    def __init__(
        self,
        examples: Stored,
        replicated: Sharding,
        over_data: Sharding,
        seed: int,
        batch_size: int,
        reading: Reading = AS_STORED,
    ):
        super().__init__(examples, replicated, over_data, batch_size, reading)
        self.seed = seed
        self._crops = None if reading.crop is None else Crops(reading.crop, self._draws)
        self._batches: HostBatches | None = None
        self._last: tuple[int, Batch] | None = None

    def batch(self, step: int) -> Batch:
        """Returns batch `step`, counted from 0 over the whole run.

        The batches after it are prepared meanwhile, and the last one is kept: asking for it again costs nothing.
        Asking for any other starts anew there, which costs the time of one batch. Raises UserError, naming the file,
        where one cannot be read.
        """
        if self._last is None or step != self._last[0]:
            follows = self._last is not None and step == self._last[0] + 1
            self._last = None  # its memory goes before the next batch comes
            self._last = step, self._read(step, follows)
        return self._last[1]

    def _read(self, step: int, follows: bool) -> Batch:
        """Returns batch `step`; follows: the pipeline is open and this is its next."""
        if self._batches is None or not follows:
            self.close()
            steps = range(step, _NO_END)
            self._batches = HostBatches(self.examples, self._indices, steps, self._crops, self._replacements)
        try:
            return self._put(next(self._batches))
        except Exception:
            self.close()
            raise

    def replaced(self, steps: range) -> int:
        """Returns how often a bad example was replaced in this process's rows of these batches; of the rows of other
        processes it knows nothing.
        """
        return sum(self._replacements.count(self._indices(step)) for step in steps) if self._replacements else 0

    def _indices(self, step: int) -> np.ndarray:
        return batch_indices(self.seed, step, self.batch_size, self.num_examples)[self._rows]

    def _draws(self, step: int) -> np.ndarray:
        # Those of the whole batch, of which a process takes its own: so they do not know how many processes there are.
        return crop_draws(self.seed, step, self.batch_size)[self._rows]

    def close(self) -> None:
        """Ends the threads that prepare batches and lets the last one go; `batch` starts them again."""
        self._last = None
        if self._batches is not None:
            self._batches.close()
            self._batches = None


class StreamEvaluation(StreamedSplit):
    """Evaluation batches in order, the last one padded: {image, label, mask bool [B]}, mask False on padding."""

    def batches(self) -> Iterator[Batch]:
        """Yields batches that hold each example exactly once; raises UserError where a file cannot be read."""
        count = -(-self.num_examples // self.batch_size)
        batches = HostBatches(
            self.examples,
            lambda number: self._padded(number)[0][self._rows],
            range(count),
            replacements=self._replacements,
        )
        try:
            for number, local in enumerate(batches):
                yield self._put(local) | {"mask": put(self._padded(number)[1], self.over_data)}
        finally:
            batches.close()

    def _padded(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return padded_indices(number, self.batch_size, self.num_examples)
