"""The table of input paths: how training and evaluation batches reach the compiled step.

    path = lookup(INPUTS, "resident", "config.input")
    source = path.train(examples, replicated, over_data, seed, batch_size)
    state, watch = train_step(state, seed, source.data, source.batch(n))       # the step calls path.take

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
    """train, evaluation: (examples, replicated, over_data, ...) to an input. take: (data, batch) to examples."""

    train: Callable[..., TrainInput]
    evaluation: Callable[..., EvalInput]
    take: Callable[[Batch, Batch], Batch]
    abstract: Abstract


INPUTS: dict[str, InputPath] = {
    "resident": InputPath(resident.ResidentInput, resident.ResidentEvaluation, resident.take, resident.abstract_inputs),
    "stream": InputPath(stream.StreamInput, stream.StreamEvaluation, stream.take, stream.abstract_inputs),
}
