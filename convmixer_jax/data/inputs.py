"""The table of input paths: how training and evaluation batches reach the compiled step.

    path = lookup(INPUTS, "resident", "config.input")
    source = path.train(examples, replicated, over_data, seed, batch_size, Reading(crop=None, skip_bad=True))
    state, watch = train_step(state, seed, source.data, source.batch(n))       # the step calls path.take
    path.stack(source, n, count=3, capacity=8)    # batches n to n + 2 in one, where path.stack is not None

Every path gives the same examples in the same order for a seed, so a run may change over when it is resumed.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from jax.sharding import Sharding

from convmixer_jax.data import resident, stream
from convmixer_jax.data.placing import Batch
from convmixer_jax.errors import lookup

# (training examples, (H, W, C), batch size, layout of what is whole, layout of a batch) to shapes of (data, batch)
Abstract = Callable[[int, tuple[int, ...], int, Sharding, Sharding], tuple[Any, Any]]


class TrainInput(Protocol):
    """Training batches. `data` lies on the devices all the time; `batch(n)` is what comes with update n."""

    data: Batch

    def batch(self, step: int) -> Batch:
        """Returns batch `step`, counted from 0 over the whole run: a function of seed and step."""

    def replaced(self, steps: range) -> int:
        """Returns how often a bad example was replaced in these batches, all of which were taken.

        Counted are those that this process reads: of data on the devices all, of a stream its own rows of each batch.
        """

    def close(self) -> None:
        """Ends what works in the background."""


class EvalInput(Protocol):
    """Evaluation batches, in order, each with `mask`, False on padding."""

    data: Batch

    def batches(self) -> Iterator[Batch]:
        """Yields batches that hold each example exactly once."""


@dataclasses.dataclass(frozen=True)
class InputPath:
    """train, evaluation: (examples, replicated, over_data, ..., reading) to an input. take: (data, batch) to examples.

    stack: (source, step, count, capacity) to the batches from `step` on, every leaf with a first axis [capacity, ...]
    of which the first `count` are filled; None where batches are too large to be sent several at a time.
    """

    train: Callable[..., TrainInput]
    evaluation: Callable[..., EvalInput]
    take: Callable[[Batch, Batch], Batch]
    abstract: Abstract
    stack: Callable[..., Batch] | None


STREAM = "stream"  # the row with which no data lie on the devices

INPUTS: dict[str, InputPath] = {
    "resident": InputPath(
        resident.ResidentInput,
        resident.ResidentEvaluation,
        resident.take,
        resident.abstract_inputs,
        stack=resident.ResidentInput.batches,
    ),
    STREAM: InputPath(stream.StreamInput, stream.StreamEvaluation, stream.take, stream.abstract_inputs, stack=None),
}


def choose_input(asked: str, data_bytes: int, limit: int | None, crop_on_host: bool) -> tuple[str, str | None]:
    """Returns the row of INPUTS that can be taken, and why it is not the one asked for, or None.

    data_bytes: of all splits as uint8 pixels. limit: bytes that a device has, None for unknown. crop_on_host: whether
    each update sees other pixels of an image, chosen on the host. Raises UserError where `asked` is no row.
    """
    lookup(INPUTS, asked, "config.input")
    if asked == STREAM:
        return asked, None
    if crop_on_host:
        return STREAM, "random_resized_crop chooses from whole images of any size, which cannot lie on a device"
    if limit is not None and data_bytes > limit:
        return STREAM, f"the data need {data_bytes / 1e9:.2f} GB on each device and there are {limit / 1e9:.2f} GB"
    return asked, None
