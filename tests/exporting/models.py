"""Small models of every kind, with weights and statistics that leave no term of the arithmetic at 0 or 1."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convmixer_jax.config import get_base
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.exporting.comparison import reference
from convmixer_jax.exporting.formats import Run
from convmixer_jax.inference.description import Description, abstract_variables
from convmixer_jax.inference.loading import Weights
from convmixer_jax.inference.preprocess import make_preprocess

DIGITS = DATASETS["digits"]
NOWHERE = Path("/nonexistent")  # the digits are bundled: their folder is never looked at
SMALL = {"dim": 8, "depth": 2, "patch_size": 2, "kernel_size": 3}
# Fields of config.model beside SMALL, and the side of the images.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "odd kernel, a patch a pixel": ({"patch_size": 1}, 8),
    "even kernel": ({"kernel_size": 4}, 12),
    "pixels beyond the patches": ({"patch_size": 3}, 14),
    "relu": ({"activation": "relu", "depth": 1}, 8),
    "bottleneck": ({"block": "bottleneck", "depth": 1}, 8),
    "layer_scale": ({"layer_scale": 0.5, "depth": 1}, 8),
    "norm=layer": ({"norm": "layer", "depth": 1}, 8),
    "head=representation": ({"head": "representation", "depth": 1}, 8),
    "head=bn_dropout": ({"head": "bn_dropout", "depth": 1}, 8),
    "staged": ({"variant": "staged", "layer_scale": 1.0}, 16),
    "cnn": ({"variant": "cnn"}, 16),
}
BATCHES = (1, 3, 64)


def drawn(path: tuple[Any, ...], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Norms that scale by either sign and shift; biases; kernels that keep values of order one."""
    name = path[-1].key
    if name == "var":
        values = rng.uniform(0.5, 2.0, shape)
    elif name in ("scale", "gamma"):
        values = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
    elif name == "kernel":
        values = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
    else:
        values = rng.normal(0, 0.3, shape)
    return values.astype(np.float32)


def make_weights(fields: dict[str, Any], image_shape: tuple[int, int, int], num_classes: int = 10) -> Weights:
    """Returns the weights of a model with these fields of config.model."""
    model = get_base().model.to_dict() | SMALL | fields
    means, rng = (0.5,) * image_shape[2], np.random.default_rng(0)
    description = Description(model, num_classes, (), image_shape, means, means, crop_pct=1.0, source="a test")
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: drawn(path, leaf.shape, rng), abstract_variables(description)
    )
    return Weights(description, variables)


@functools.cache
def small_weights(name: str) -> Weights:
    """Returns the weights of a row of MODELS."""
    fields, side = MODELS[name]
    return make_weights(fields, (side, side, 3))


def compiled(weights: Weights) -> Run:
    """Returns the model as published, as a function of images."""
    call = jax.jit(reference(weights))
    return lambda images: np.asarray(call(images))


@functools.cache
def expected(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns 64 images and a row's logits of them, by the reference operations."""
    weights = small_weights(name)
    images = np.random.default_rng(1).normal(size=(64, *weights.description.image_shape)).astype(np.float32)
    return images, compiled(weights)(images)


FEATURES = 96


@functools.cache
def digits_weights() -> Weights:
    """Returns a model that tells digits: its features are drawn, its classifier is the least-squares one.

    Patches of half a side make features that differ enough; a ridge of a thousandth keeps the classifier small, as
    training does, so that int8 and zeros do not turn it over.
    """
    fields = {"dim": FEATURES, "depth": 1, "patch_size": 4}
    wide = make_weights(fields, DIGITS.image_shape, num_classes=FEATURES)
    params = wide.variables["params"]
    params["head"] = {"kernel": np.eye(FEATURES, dtype="float32"), "bias": np.zeros(FEATURES, "float32")}
    description = dataclasses.replace(
        wide.description, num_classes=10, class_names=DIGITS.class_names, mean=DIGITS.mean, std=DIGITS.std
    )
    train = load_split(DIGITS, "train", NOWHERE)
    features = compiled(wide)(make_preprocess(description).normalise(train.image))
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    products = rows.T @ rows
    ridge = 1e-3 * np.trace(products) / len(products) * np.eye(len(products))
    solved = np.linalg.solve(products + ridge, rows.T @ np.eye(10)[train.label]).astype(np.float32)
    head = {"kernel": solved[:-1], "bias": solved[-1]}
    return Weights(description, wide.variables | {"params": params | {"head": head}})
