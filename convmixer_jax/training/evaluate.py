"""One exact pass over a split: every example counts once, for every batch size and number of devices."""

from typing import Any

import jax

from convmixer_jax.data.resident import ResidentEvaluation
from convmixer_jax.training.metrics import EvalSums, summarise_evaluation
from convmixer_jax.training.step import EvalStep


def evaluate(
    eval_step: EvalStep, params: Any, batch_stats: Any, source: ResidentEvaluation, expected: int
) -> dict[str, Any]:
    """Returns n, top1, top5, loss and per_class of `source`; see `summarise_evaluation`.

    expected: the split's published size. Raises RuntimeError unless exactly so many examples were counted.
    """
    batches: list[EvalSums] = []
    for batch in source.batches():
        batches.append(eval_step(params, batch_stats, source.data, batch))
        if len(batches) > 1:
            jax.block_until_ready(batches[-2])  # two batches in flight keep the device busy and the memory small
    summary = summarise_evaluation(batches)
    if summary["n"] != expected:
        raise RuntimeError(f"evaluation counted {summary['n']} examples of {expected}")
    return summary
