"""Trained weights from wherever they are: a run's workdir, a converted directory, a file of PyTorch weights.

    loaded = load_weights("runs/cifar10")
    logits = loaded.model.apply(loaded.variables, images, train=False)

"hub:ORGANISATION/REPOSITORY" is a file on the Hugging Face hub. To add a kind of place, add a row to PLACES.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from convmixer_jax.config import get_base, to_plain
from convmixer_jax.config_record import CONFIG_FILE, read_record
from convmixer_jax.data.datasets import Dataset, find_dataset, is_found
from convmixer_jax.data.datasets import from_record as from_data_record
from convmixer_jax.errors import UserError, lookup
from convmixer_jax.inference.description import (
    Description,
    abstract_variables,
    build,
    check_side,
    describe,
    from_record,
    ops_to_run,
)
from convmixer_jax.inference.torch_weights import describe_torch_file, file_description
from convmixer_jax.ops.choice import AUTO, OPS
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.progress import tell
from convmixer_jax.weights.converted import DESCRIPTION_FILE, is_converted, read_converted
from convmixer_jax.weights.hub import download, is_hub
from convmixer_jax.weights.names import flat, from_tensors, nested, tensor_names
from convmixer_jax.weights.reading import SUFFIXES, is_torch_file, read_torch_file
from convmixer_jax.weights.recognition import check_tensors, read_counters, recognise


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the caller decides where a place leaves it open; empty for what is usual.

    dataset: a row of DATASETS that a file's classes, mean, std and image size are of. activation: of a file's model.
    ema: the moving average's variables, of a file or a workdir that has both. default_dataset: as dataset, but only of
    a file that does not say itself.
    """

    dataset: str = ""
    activation: str = ""
    ema: bool = False
    default_dataset: str = ""


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a place holds. variables: {"params", "batch_stats"}.

    counters: training batches that each norm has seen, as far as the place says. names: of each variable, in a file of
    PyTorch weights. has_ema: whether there is a moving average, too, that was not asked for.
    """

    description: Description
    variables: dict[str, Any]
    counters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    has_ema: bool = False


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Weights ready for use. variables: {"params", "batch_stats"} of float32 arrays on the first device.

    ops: the row of OPS that the model is computed by.
    """

    description: Description
    model: nn.Module
    ops: str
    variables: dict[str, Any]


def from_workdir(path: Path, asked: Asked) -> Weights:
    """Returns the variables of a run's newest good checkpoint: those that config.eval_params names, or `asked`."""
    record = read_record(path)
    assert record is not None  # a place without it is no workdir
    config = to_plain(get_base()) | record["config"]
    dataset = run_dataset(path, record, config)
    average = asked.ema or config["eval_params"] == "ema"
    with contextlib.closing(Checkpoints(path / "checkpoints", read_only=True)) as checkpoints:

        def read(step: int) -> tuple[Description, bool, dict[str, Any]]:
            description = describe(config, dataset, source=f"{path}, step {step}")
            has_ema = "ema" in checkpoints.groups(step)
            if average and not has_ema:
                raise UserError(f"{path} has no moving average (its config.ema_decay is 0): leave --ema out")
            if average:
                return description, has_ema, checkpoints.restore_groups(step, ["ema"])["ema"]
            return description, has_ema, checkpoints.restore_groups(step, ["params", "batch_stats"])

        found = checkpoints.read_newest(read)
    if found is None:
        raise UserError(f"{path} has no checkpoint yet: train first, or name another folder")
    _, (description, has_ema, variables), told = found
    for line in told:
        tell(f"{path}: {line}")
    return Weights(description, variables, has_ema=has_ema and not average)


def run_dataset(path: Path, record: Mapping[str, Any], config: Mapping[str, Any]) -> Dataset:
    """Returns the data set of the run at `path`; where it is no row of DATASETS, as the run recorded it.

    Raises UserError where it did not.
    """
    place = str(path / CONFIG_FILE)
    known = from_data_record(record.get("dataset"), place)
    if is_found(config["dataset"]) and known is None:
        raise UserError(f"{place} does not say which classes {config['dataset']} has: restore it from a copy")
    # What is recorded is not looked for, so the folder of all data sets does not matter.
    return find_dataset(
        config["dataset"], Path(), known=known, image_size=config["image_size"], crop_pct=config["crop_pct"]
    )


def from_converted(path: Path, asked: Asked) -> Weights:
    """Returns what `python -m convmixer_jax.convert` wrote."""
    if asked.ema:
        raise UserError(f"{path} is a converted directory, which has one set of variables: leave --ema out")
    content = read_converted(path)
    description = from_record(content.description, str(path / DESCRIPTION_FILE))
    return Weights(description, nested(content.variables), content.counters)


def from_torch_file(path: Path, asked: Asked) -> Weights:
    """Returns a file's tensors as our variables."""
    file = read_torch_file(path, asked.ema)
    found = recognise(file)
    check_tensors(file, found)
    dataset = asked.dataset or ("" if file_description(file) else asked.default_dataset)
    description = describe_torch_file(file, found, dataset, asked.activation)
    variables = nested(from_tensors(file.tensors, found.style, found.depth))
    names = {ours: file.prefix + theirs for ours, theirs in tensor_names(found.style, found.depth).items()}
    return Weights(description, variables, read_counters(file, found), names, file.has_ema)


@dataclasses.dataclass(frozen=True)
class Place:
    """A kind of place: what it is for people, how it is recognised, and read."""

    what: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Asked], Weights]


PLACES: dict[str, Place] = {
    "workdir": Place(
        f"a run's workdir (with {CONFIG_FILE})", lambda path: (path / CONFIG_FILE).is_file(), from_workdir
    ),
    "converted directory": Place(f"a converted directory (with {DESCRIPTION_FILE})", is_converted, from_converted),
    "weights file": Place(f"a file of PyTorch weights ({', '.join(SUFFIXES)})", is_torch_file, from_torch_file),
}


def find_place(path: str | Path) -> tuple[str, Path]:
    """Returns the row of PLACES and where it lies on this machine, downloading what is on the hub. Raises UserError."""
    try:
        place = download(str(path)) if is_hub(str(path)) else Path(path).expanduser()
    except RuntimeError as error:  # ~user, who is not known here
        raise UserError(f"{path}: {error}; give the path itself") from error
    for name, row in PLACES.items():
        if row.recognises(place):
            return name, place
    what = "holds no weights" if place.exists() else "does not exist"
    accepted = "; ".join(row.what for row in PLACES.values())
    raise UserError(f"{path} {what}: weights are in {accepted}; or on the hub, hub:ORGANISATION/REPOSITORY")


def read_place(path: str | Path, asked: Asked) -> Weights:
    """Returns what a place holds.

    Raises UserError where it is none, or its weights do not fit their description, or are not finite.
    """
    name, place = find_place(path)
    weights = PLACES[name].read(place, asked)
    check_variables(weights, abstract_variables(weights.description), str(path), "the model that it describes")
    check_finite(weights, str(path))
    if is_hub(str(path)):
        return dataclasses.replace(weights, description=dataclasses.replace(weights.description, source=str(path)))
    return weights


def read_weights(path: str | Path) -> tuple[Description, dict[str, Any]]:
    """Returns (description, variables) of a place. Raises UserError where it is none, or its weights do not fit."""
    weights = read_place(path, Asked())
    return weights.description, weights.variables


def shapes_of(variables: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every variable by its path, joined by slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


def check_variables(weights: Weights, wanted: Any, place: str, who: str) -> None:
    """Raises UserError, naming both shapes, for the first variable that is missing, additional or of another shape.

    wanted: variables or their shapes. place, who: what a message calls the weights' place and whoever wants them.
    """
    there, expected = shapes_of(weights.variables), shapes_of(wanted)
    for name in sorted(there.keys() | expected.keys()):
        if there.get(name) != expected.get(name):
            own = f" (there {weights.names[name]})" if name in weights.names else ""
            found, asked = (shapes.get(name, "nothing") for shapes in (there, expected))
            raise UserError(f"{place} has {found} for {name}{own}, {who} wants {asked}")


def check_finite(weights: Weights, place: str) -> None:
    """Raises UserError for the first variable that holds NaN or infinity: every logit would be NaN.

    place: what the message calls the weights' place.
    """
    for name, array in flat(weights.variables).items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{place} has NaN or infinity in {weights.names.get(name, name)}: its training diverged, or the file "
                "is damaged; take weights of before that, or of another run"
            )


def resized(weights: Weights, size: int) -> Weights:
    """Returns the weights, described for images of `size` pixels a side. Raises UserError where they do not fit those.

    Only a variant without a layer over all positions has the same weights for images of any size.
    """
    model, channels = weights.description.model, weights.description.image_shape[2]
    check_side(model, size, "--image_size")
    description = dataclasses.replace(weights.description, image_shape=(size, size, channels))
    place = f"--image_size is {size}: {description.source}"
    check_variables(weights, abstract_variables(description), place, "a model of that size")
    return dataclasses.replace(weights, description=description)


def load_weights(path: str | Path, ops: str | None = None) -> Loaded:
    """Returns the weights at `path`, ready for use. Raises UserError.

    ops: a row of OPS; None, or "auto", takes the quickest on this machine.
    """
    lookup({AUTO: None, **OPS}, ops or AUTO, "ops")
    description, variables = read_weights(path)
    ops = ops_to_run(description, ops or AUTO)
    return Loaded(description, build(description, ops), ops, jax.device_put(variables))
