"""The table of input paths: how training and evaluation batches reach the compiled step.

    path = lookup(INPUTS, "resident", "config.input")
    source = path.train(examples, replicated, over_data, seed, batch_size)
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

# (training examples, (H, W, C), batch size, layout of what is whole, layout of a batch) to shapes of (data, batch)
Abstract = Callable[[int, tuple[int, ...], int, Sharding, Sharding], tuple[Any, Any]]


class TrainInput(Protocol):
    """Training batches. `data` lies on the devices all the time; `batch(n)` is what comes with update n."""

    data: Batch

    def batch(self, step: int) -> Batch:
        """Returns batch `step`, counted from 0 over the whole run: a function of seed and step."""

    def close(self) -> None:
        """Ends what works in the background."""


class EvalInput(Protocol):
    """Evaluation batches, in order, each with `mask`, False on padding."""

    data: Batch

    def batches(self) -> Iterator[Batch]:
        """Yields batches that hold each example exactly once."""


@dataclasses.dataclass(frozen=True)
class InputPath:
    """train, evaluation: (examples, replicated, over_data, ...) to an input. take: (data, batch) to examples.

    stack: (source, step, count, capacity) to the batches from `step` on, every leaf with a first axis [capacity, ...]
    of which the first `count` are filled; None where batches are too large to be sent several at a time.
    """

    train: Callable[..., TrainInput]
    evaluation: Callable[..., EvalInput]
    take: Callable[[Batch, Batch], Batch]
    abstract: Abstract
    stack: Callable[..., Batch] | None


INPUTS: dict[str, InputPath] = {
    "resident": InputPath(
        resident.ResidentInput,
        resident.ResidentEvaluation,
        resident.take,
        resident.abstract_inputs,
        stack=resident.ResidentInput.batches,
    ),
    "stream": InputPath(stream.StreamInput, stream.StreamEvaluation, stream.take, stream.abstract_inputs, stack=None),
}
