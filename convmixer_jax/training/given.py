"""Weights that come from elsewhere: what config.init_from names, and a converted directory that is evaluated.

given = read_initial(experiment)                    # before data are read: what does not fit is told at once
state = begin_with(experiment, state, given)
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convmixer_jax.data.datasets import DATASETS, Dataset
from convmixer_jax.data.placing import put
from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import Description, contradictions
from convmixer_jax.inference.loading import Asked, check_variables, read_place, shapes_of
from convmixer_jax.training.assembly import Experiment, channel_statistics
from convmixer_jax.training.state import TrainState
from convmixer_jax.weights.converted import is_converted
from convmixer_jax.weights.names import flat

# How the names of modules behind the pooled features begin; the last one, which tells the classes, is called so.
HEAD = "head"


@dataclasses.dataclass(frozen=True)
class Given:
    """arrays: by name, such as "params/stem_conv/kernel"; what is not among them stays fresh. told: for people."""

    arrays: dict[str, np.ndarray]
    told: list[str]


def wanted_variables(experiment: Experiment) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of the run as jax.ShapeDtypeStruct leaves with their shardings."""
    return experiment.abstract_state.variables("raw")


def read_initial(experiment: Experiment) -> Given | None:
    """Returns the weights that config.init_from names, None where it names none.

    Layers of the head that have another shape there, or are not there, stay fresh, as does its last one where it tells
    other classes. Raises UserError, naming both shapes, where anything else does not fit.
    """
    config = experiment.config
    if not config.init_from:
        return None
    place, wanted = f"config.init_from {config.init_from}", wanted_variables(experiment)
    named = config.dataset if config.dataset in DATASETS else ""
    weights = read_place(config.init_from, Asked(default_dataset=named))
    shapes, expected = shapes_of(weights.variables), shapes_of(wanted)
    odd = {name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name)}
    classes = other_classes(weights.description, experiment.dataset)
    unfit = {module(name) for name in odd if module(name).startswith(HEAD)}
    fresh = sorted(unfit | ({HEAD} if classes else set()))
    other = contradictions(weights.description, config.model)
    hint = "; ".join(f"config.model.{name} is {mine!r}, there {own!r}" for name, (mine, own) in other.items())
    kept = {kind: _without(tree, fresh) for kind, tree in weights.variables.items()}
    rest = {kind: _without(tree, fresh) for kind, tree in wanted.items()}
    check_variables(
        dataclasses.replace(weights, variables=kept), rest, place, f"the run's model ({hint})" if hint else "the run"
    )
    told = [f"warning: trained with another model: {hint}"] if hint else []
    if fresh:
        told.append(f"fresh weights for {', '.join(fresh)}{f' ({classes})' if classes else ''}")
    return Given(flat(kept), [f"{place}: {line}" for line in told])


def other_classes(description: Description, dataset: Dataset) -> str:
    """Returns how the weights' classes are others than the data set's, in a few words; "" where nothing says so."""
    there, here = description.class_names, dataset.class_names
    if dataset.has_classes(there):
        return ""
    if description.num_classes != dataset.num_classes:
        return f"{description.num_classes} classes there, {dataset.num_classes} here"
    for number, (theirs, ours) in enumerate(zip(there, here, strict=False)):  # weights may have no names
        if theirs != ours:
            return f"class {number} is {theirs!r} there, {ours!r} here"
    return ""


def module(name: str) -> str:
    """Returns the module of the variable "params/MODULE/..."."""
    return name.split("/")[1]


def _without(tree: Any, modules: list[str]) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name not in modules}


def place_variables(experiment: Experiment, given: Given, beside: dict[str, Any]) -> dict[str, Any]:
    """Returns {"params", "batch_stats"}, laid out as the run wants them; the leaves of `beside` where none is given."""

    def choose(path: Any, wanted: jax.ShapeDtypeStruct, fresh: Any) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return put(given.arrays[name].astype(wanted.dtype), wanted.sharding) if name in given.arrays else fresh

    return jax.tree_util.tree_map_with_path(choose, wanted_variables(experiment), beside)


def begin_with(experiment: Experiment, state: TrainState, given: Given) -> TrainState:
    """Returns a fresh state with the given weights, moving averages included."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, experiment.abstract_state)
    replaced = state.replace(**place_variables(experiment, given, state.variables("raw")))
    if state.ema:
        replaced = replaced.replace(ema=replaced.variables("raw"))
    # Copies: a donated state may name no buffer twice, nor one that NumPy owns.
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=layout)(replaced)


def refuse_converted(workdir: Path) -> None:
    """Raises UserError where a run is to be kept in a converted directory."""
    if is_converted(workdir):
        raise UserError(
            f"--workdir {workdir} is a converted directory, whose weights can be evaluated (--mode eval); to fine-tune "
            f"them give --config.init_from={workdir} and another --workdir"
        )


def converted_state(experiment: Experiment, workdir: Path, step: int | None) -> tuple[TrainState, list[str]]:
    """Returns a state whose variables are those of a converted directory, and lines for people.

    Its other leaves are shapes. Raises UserError where the config is not the weights' own.
    """
    if step is not None:
        raise UserError(f"--step is {step}: {workdir} is a converted directory, which has no steps; leave it out")
    weights = read_place(workdir, Asked())
    check_description(experiment, weights.description, workdir)
    wanted = wanted_variables(experiment)
    check_variables(weights, wanted, f"--workdir {workdir}", "the config's model")
    given = Given(flat(weights.variables), other_images(experiment, weights.description, workdir))
    placed = place_variables(experiment, given, wanted)
    return experiment.abstract_state.replace(**placed, ema={}), given.told


def check_description(experiment: Experiment, description: Description, workdir: Path) -> None:
    """Raises UserError, naming fields and values, where the config's model or classes are not the weights' own."""
    other = contradictions(description, experiment.config.model)
    if other:
        told = "; ".join(f"config.model.{name} is {mine!r}, there {own!r}" for name, (mine, own) in other.items())
        flags = " ".join(f"--config.model.{name}={own}" for name, (_, own) in other.items())
        raise UserError(f"--workdir {workdir} holds another model ({told}): give {flags}, or the recipe it is of")
    if description.num_classes != experiment.dataset.num_classes:
        raise UserError(
            f"--workdir {workdir} has weights for {description.num_classes} classes, config.dataset is "
            f"{experiment.config.dataset!r}, which has {experiment.dataset.num_classes}: name the data set they are for"
        )


def other_images(experiment: Experiment, description: Description, workdir: Path) -> list[str]:
    """Returns a line for each way in which the evaluation's images are other than the weights were converted for."""
    dataset = experiment.dataset
    mean, std = channel_statistics(experiment.config, dataset)
    here = {"mean": mean, "std": std, "crop_pct": dataset.crop_pct, "image_shape": dataset.image_shape}
    there = dataclasses.asdict(description)
    return [
        f"warning: {name} is {value} here, {there[name]} in {workdir}"
        for name, value in here.items()
        if value != there[name]
    ]
