"""Optuna's samplers and pruners by name, and how a point is sampled from the axes of a study.

study.sampler = SAMPLERS["tpe"](seed)
parameters = suggest(trial, {"schedule.learning_rate": Range(1e-3, 0.1, log=True)})
"""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler

from convmixer_jax.studying.study import Axis, Range, encode, rounded

# Of three runs that reach a rung one goes on: the papers' choice (arXiv 1810.05934, 1603.06560).
KEPT = 3

# From a seed. A grid asks for nothing.
SAMPLERS: dict[str, Callable[[int], Any]] = {
    "grid": lambda seed: RandomSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
}


def first_rung(epochs: int) -> int:
    """Returns the epochs after which a run is judged first, a ninth of all; then a third. Before, it is noise."""
    return max(1, epochs // KEPT**2)


# From the epochs of a run.
PRUNERS: dict[str, Callable[[int], Any]] = {
    "none": lambda epochs: NopPruner(),
    "asha": lambda epochs: SuccessiveHalvingPruner(min_resource=first_rung(epochs), reduction_factor=KEPT),
    "hyperband": lambda epochs: HyperbandPruner(
        min_resource=first_rung(epochs), max_resource=epochs, reduction_factor=KEPT
    ),
}


def suggest(trial: optuna.Trial, axes: Mapping[str, Axis]) -> dict[str, Any]:
    """Returns a value for each field of the axes: those that the trial was given, else sampled ones."""
    return {field: _suggest(trial, field, axis) for field, axis in axes.items()}


def _suggest(trial: optuna.Trial, field: str, axis: Axis) -> Any:
    if not isinstance(axis, Range):
        values = {encode(value): value for value in axis}
        return values[trial.suggest_categorical(field, list(values))]
    if axis.whole:
        return trial.suggest_int(field, int(axis.low), int(axis.high), step=int(axis.step) or 1, log=axis.log)
    return rounded(trial.suggest_float(field, axis.low, axis.high, step=axis.step or None, log=axis.log))
