"""One exact pass over a split: every example counts once, for every batch size and number of devices."""

from collections.abc import Callable
from typing import Any

import jax

from convmixer_jax.data.inputs import EvalInput
from convmixer_jax.training.metrics import EvalSums, summarise_evaluation
from convmixer_jax.training.state import TrainState
from convmixer_jax.training.step import EvalStep

BeforeBatch = Callable[[int], None]


def at_once(number: int) -> None:
    """Evaluates batch `number` without a look at anything else."""


def evaluate(
    eval_step: EvalStep,
    params: Any,
    batch_stats: Any,
    source: EvalInput,
    expected: int,
    before_batch: BeforeBatch = at_once,
) -> dict[str, Any]:
    """Returns n, top1, top5, loss and per_class of `source`; see `summarise_evaluation`.

    expected: the split's published size. before_batch: called with the number of each batch that is to be handed to
    the devices; what it raises ends the evaluation. Raises RuntimeError unless exactly so many examples were counted.
    """
    batches: list[EvalSums] = []
    for number, batch in enumerate(source.batches()):
        before_batch(number)
        batches.append(eval_step(params, batch_stats, source.data, batch))
        if len(batches) > 1:
            jax.block_until_ready(batches[-2])  # two batches in flight keep the device busy and the memory small
    summary = summarise_evaluation(batches)
    if summary["n"] != expected:
        raise RuntimeError(f"evaluation counted {summary['n']} examples of {expected}")
    return summary


def evaluate_state(
    eval_step: EvalStep,
    state: TrainState,
    which: str,
    source: EvalInput,
    expected: int,
    before_batch: BeforeBatch = at_once,
) -> dict[str, Any]:
    """Returns what `evaluate` does of the variables `which`, "raw" or "ema".

    Where the state has both, top1_raw or top1_ema is what the other ones score.
    """
    result = evaluate(eval_step, **state.variables(which), source=source, expected=expected, before_batch=before_batch)
    if state.ema:
        other = "raw" if which == "ema" else "ema"
        compared = evaluate(
            eval_step, **state.variables(other), source=source, expected=expected, before_batch=before_batch
        )
        result[f"top1_{other}"] = compared["top1"]
    return result
