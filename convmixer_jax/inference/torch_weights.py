"""What must be known of PyTorch's weights to use them, and our weights as PyTorch's.

description = describe_torch_file(file, recognise(file), dataset="imagenet", activation="")
tensors, counters = to_timm(description, variables, counters={})
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from convmixer_jax.data.datasets import DATASETS, Dataset
from convmixer_jax.errors import UserError, lookup
from convmixer_jax.inference.description import Description, describe, from_record
from convmixer_jax.weights.converted import DESCRIPTION_KEY
from convmixer_jax.weights.names import STYLES, Arrays, counter_names, flat, to_tensors
from convmixer_jax.weights.reading import TorchFile
from convmixer_jax.weights.recognition import Architecture

IMAGENET_SIZE = 1000  # classes
# Fields of config.model that decide which variables there are, and what they are in timm's ConvMixer.
TIMM_FIELDS = {"variant": "convmixer", "block": "plain", "norm": "batch", "layer_scale": 0.0, "head": "linear"}


def describe_torch_file(file: TorchFile, found: Architecture, dataset: str, activation: str) -> Description:
    """Returns the description of a file's weights. Raises UserError where the file and the arguments leave it open.

    dataset: a row of DATASETS that classes, mean, std and image size are of; empty for the file's own or, of 1000
    classes, ImageNet's. activation: empty for the file's own or the one that goes with its sizes.
    """
    own = file_description(file)
    if own is None or dataset:
        description = describe_by_dataset(file, found, dataset)
    else:
        description = own
    model = {"activation": found.activation, **(own.model if own else {}), **found.model_fields()}
    if activation:
        model["activation"] = activation
    # A file of ours whose head PyTorch's users replaced still carries its description.
    # And fine-tuned on something else than the data set, images are as there, classes have no names.
    names = description.class_names if len(description.class_names) == found.num_classes else ()
    return dataclasses.replace(
        description, model={**description.model, **model}, num_classes=found.num_classes, class_names=names
    )


def file_description(file: TorchFile) -> Description | None:
    """Returns the description that a file of ours carries, None of others."""
    text = file.metadata.get(DESCRIPTION_KEY)
    if text is None:
        return None
    place = f"the metadata of {file.path}"
    try:
        record = json.loads(text)
    except ValueError as error:
        raise UserError(f"{place} are damaged ({error}): convert the weights again") from error
    return from_record(record, place)


def describe_by_dataset(file: TorchFile, found: Architecture, name: str) -> Description:
    """Returns a description that has its classes and images from a data set; the model's fields are the base's."""
    if not name and found.num_classes != IMAGENET_SIZE:
        raise UserError(
            f"{file.path} has {found.num_classes} classes and does not say of what: convert it with the data set that "
            f"it was trained on (python -m convmixer_jax.convert --from {file.path} --to DIR --dataset NAME; "
            f"{', '.join(DATASETS)})"
        )
    dataset: Dataset = lookup(DATASETS, name or "imagenet", "--dataset")
    if found.channels != dataset.image_shape[2]:
        raise UserError(
            f"{file.path} has images of {found.channels} channels, those of {name or 'imagenet'} have "
            f"{dataset.image_shape[2]}: name the data set that it was trained on ({', '.join(DATASETS)})"
        )
    return describe({"model": {}, "mean": (), "std": ()}, dataset, source=str(file.path))


def to_timm(
    description: Description, variables: Mapping[str, Any], counters: Mapping[str, int]
) -> tuple[Arrays, dict[str, int]]:
    """Returns PyTorch's tensors, with timm's names and layouts, and the counter of every norm; 0 where unknown.

    counters: by our names of the norms. Raises UserError, naming a field of config.model, where timm's ConvMixer has
    other variables.
    """
    for name, timms in TIMM_FIELDS.items():
        if description.model[name] != timms:
            raise UserError(
                f"{description.source} cannot be written with timm's names: config.model.{name} is "
                f"{description.model[name]!r}, timm's ConvMixer has {timms!r} (other models: --to DIR)"
            )
    arrays, style, depth = flat(variables), STYLES["timm"], description.model["depth"]
    names = counter_names(style, depth)
    return to_tensors(arrays, style, depth), {theirs: counters.get(ours, 0) for ours, theirs in names.items()}


def torch_differences(description: Description) -> list[str]:
    """Returns what whoever builds the model in PyTorch must set, a line each: timm's ConvMixer has GELU and 1e-5."""
    model, lines = description.model, []
    if model["activation"] != "gelu":
        lines.append(f"act_layer: {model['activation']} (timm's ConvMixer has GELU unless it is told)")
    if model["norm_epsilon"] != 1e-5:
        lines.append(f"BatchNorm2d's eps: {model['norm_epsilon']:g} (PyTorch has 1e-5 unless it is told)")
    return lines
