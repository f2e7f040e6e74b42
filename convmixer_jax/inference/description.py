"""What must be known of weights to use them: the architecture, the classes, how an image becomes an input.

    description = Description(model={"dim": 768, ...}, num_classes=1000, ..., source="timm/convmixer_768_32.in1k")
    model = build(description, ops="reference")
    from_record(to_record(description), "runs/converted") == description

A workdir's config.json and a converted directory's model.json both lead to one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from convmixer_jax.config import get_base
from convmixer_jax.config_rules import check_value
from convmixer_jax.data.datasets import Dataset
from convmixer_jax.errors import UserError
from convmixer_jax.models.variants import check_dim, choose_ops, find_variant, make_model
from convmixer_jax.ops.choice import AUTO

# Fields of config.model that say how something is computed, not what: whoever loads weights decides on them. And the
# preset, which only names what other fields hold.
COMPUTED_BY = ("ops", "remat", "preset")
# Fields of config.model that only training reads: weights that were trained otherwise are evaluated just the same.
TRAINED_BY = ("initializer", "norm_momentum", "bn_group_size", "drop_path", "head_dropout")

# Pixels of a side. One image of 4096 x 4096 takes 200 MB as an input and at least as much in each map: more is a slip.
LARGEST_SIDE = 4096


@dataclasses.dataclass(frozen=True)
class Description:
    """model: fields of config.model, all but COMPUTED_BY. class_names: as many as num_classes, or none.

    image_shape: (H, W, C). mean, std: per channel, on the scale 0-1. crop_pct: share of an image's shorter side that
    evaluation looks at, see `Preprocess`. source: where the weights come from, for people. dataset: what config.dataset
    called the one that it was trained on; "" for unknown.
    """

    model: Mapping[str, Any]
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    source: str
    dataset: str = ""


def of_weights(model: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns the fields of config.model that belong to weights; missing ones have the base's value.

    Raises UserError, naming `place`, for what is no such mapping, has a field that this version does not know, or a
    value that config.model does not accept.
    """
    if not isinstance(model, Mapping):
        raise UserError(f"{place} has {model!r} for config.model, no fields: restore it from a copy")
    base = get_base().model.to_dict()
    unknown = model.keys() - base.keys()
    if unknown:
        raise UserError(f"{place} has config.model.{min(unknown)}, which this version does not know: take a newer one")
    for name, value in model.items():
        kind = type(base[name])
        # JSON keeps the types, a hand that edits it may not; and bool is an int to Python, which `check_value` tells.
        if not isinstance(value, (int, float) if kind is float else kind):
            raise UserError(f"{place} has {value!r} for config.model.{name}, no {kind.__name__}: restore a copy")
        check_value(f"model.{name}", value, f"{place}: config.model.{name}")
    return {name: value for name, value in (base | dict(model)).items() if name not in COMPUTED_BY}


def describe(config: Mapping[str, Any], dataset: Dataset, source: str) -> Description:
    """Returns the description of a run's weights.

    config: the fields as nested dicts, as `to_plain` makes them; fields of the model that are missing have the base's
    value. Raises UserError, naming `source`, for those that this version does not know.
    """
    mean, std = dataset.channel_statistics(config["mean"], config["std"])
    return Description(
        model=of_weights(config["model"], source),
        num_classes=dataset.num_classes,
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        mean=mean,
        std=std,
        crop_pct=dataset.crop_pct,
        source=source,
        dataset=config.get("dataset", ""),
    )


def to_record(description: Description) -> dict[str, Any]:
    """Returns the description as a JSON object."""
    return dataclasses.asdict(description)


def from_record(record: Mapping[str, Any], place: str) -> Description:
    """Returns what `to_record` was given. Raises UserError, naming `place`, where that is not what is there."""
    try:
        description = Description(
            model=of_weights(record["model"], place),
            num_classes=int(record["num_classes"]),
            class_names=tuple(str(name) for name in record["class_names"]),
            image_shape=tuple(int(size) for size in record["image_shape"]),  # type: ignore[arg-type]
            mean=tuple(float(value) for value in record["mean"]),
            std=tuple(float(value) for value in record["std"]),
            crop_pct=float(record["crop_pct"]),
            source=str(record["source"]),
            dataset=str(record.get("dataset", "")),
        )
        *sides, channels = description.image_shape
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{place} does not describe weights ({error!r}): convert them again") from error
    named, (means, deviations) = len(description.class_names), map(len, (description.mean, description.std))
    if len(sides) != 2 or named not in (0, description.num_classes) or not means == deviations == channels:
        raise UserError(
            f"{place} does not describe weights ({named} names of {description.num_classes} classes, {means} means and "
            f"{deviations} deviations of {channels} channels): convert them again"
        )
    check_numbers(description, place)
    return description


def check_numbers(description: Description, place: str) -> None:
    """Raises UserError, naming `place`, for a number that no image could be prepared or classified with."""
    for name in ("mean", "std"):
        check_value(name, getattr(description, name), f"{place}: {name}")
    for side in description.image_shape[:2]:
        check_side(description.model, side, f"{place}: image_shape")
    for name, right in (("num_classes", description.num_classes > 0), ("crop_pct", 0 < description.crop_pct <= 1)):
        if not right:
            raise UserError(f"{place}: {name} is {getattr(description, name)}, out of range: convert the weights again")


def check_side(model: Mapping[str, Any], side: int, called: str) -> None:
    """Raises UserError, where `called` is what it calls the number, for images that the model cannot take.

    model: fields of config.model. side: pixels.
    """
    smallest = find_variant(model["variant"]).smallest(model)
    if not smallest <= side <= LARGEST_SIDE:
        raise UserError(f"{called} is {side}: the model takes images of {smallest} to {LARGEST_SIDE} pixels a side")


def summary(description: Description) -> str:
    """Returns the model in a line for people: the sizes that it has, the images, the classes."""
    model = description.model
    read = {name: model[name] for name in model if find_variant(model["variant"]).reads(name)}
    name = model["variant"] + (f"-{read['dim']}" if "dim" in read else "")
    name += f"/{read['depth']}" if "depth" in read else ""
    forms = {"patch_size": "patches of {}", "kernel_size": "kernels of {}", "activation": "{}"}
    parts = [name, *(form.format(read[field]) for field, form in forms.items() if field in read)]
    height, width, _ = description.image_shape
    named = "" if description.class_names else " without names"
    return f"{', '.join(parts)}; images of {height}x{width}, {description.num_classes} classes{named}"


def contradictions(description: Description, model: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns {field: (its value in config.model, the weights' own)} where a model computes something else with them.

    model: the fields of config.model.
    """
    asked = of_weights(dict(model), "the config")
    return {
        name: (asked[name], own)
        for name, own in description.model.items()
        if name not in TRAINED_BY and asked[name] != own
    }


def quickest_ops(description: Description) -> str:
    """Returns the operations, a row of OPS, that are the quickest for the model on this machine in float32."""
    return ops_to_run(description, AUTO)


def ops_to_run(description: Description, ops: str) -> str:
    """Returns the row of OPS that runs in float32 on this machine where `ops` is asked for: a row, or "auto".

    Raises UserError where there is no such row, or not on this machine.
    """
    model = {**description.model, "ops": ops}
    return choose_ops(model, "float32", description.image_shape, jax.default_backend())[0]


def build(description: Description, ops: str) -> nn.Module:
    """Returns the model, computing in float32. ops: a row of OPS; "reference" is plain flax, for export.

    Raises UserError, naming a field of config.model, for a model that there is not.
    """
    check_dim(description.model)
    settings = get_base().model.to_dict() | dict(description.model) | {"ops": ops, "mesh": None}
    return make_model(num_classes=description.num_classes, dtype="float32", **settings)


def abstract_variables(description: Description) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of the model as jax.ShapeDtypeStruct leaves; computes nothing."""
    images = np.zeros((1, *description.image_shape), np.float32)
    shapes = jax.eval_shape(
        lambda key: build(description, "reference").init(key, images, train=False), jax.random.key(0)
    )
    return {name: shapes.get(name, {}) for name in ("params", "batch_stats")}
