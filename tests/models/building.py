"""Models from plain settings, their variables as shapes or drawn by NumPy, and their sizes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convmixer_jax.config import get_base
from convmixer_jax.models.variants import make_model


def build(variant: str = "convmixer", **settings: Any) -> Any:
    """Returns a tiny model of 10 classes; settings are fields of config.model, and num_classes, dtype or mesh."""
    small: dict[str, Any] = {"dim": 8, "depth": 1, "patch_size": 2, "kernel_size": 3, "ops": "reference"}
    others: dict[str, Any] = {"num_classes": 10, "dtype": "float32", "mesh": None}
    return make_model(**(get_base().model.to_dict() | small | others | {"variant": variant} | settings))


def variable_shapes(model: Any, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns the variables as shapes and dtypes; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)


def random_variables(model: Any, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns variables drawn by NumPy around one, which is quicker than to compile the model's own."""
    rng = np.random.default_rng(0)
    shapes = variable_shapes(model, image_shape)
    return jax.tree.map(lambda leaf: rng.normal(1, 0.3, leaf.shape).astype(leaf.dtype), shapes)


def count(model: Any, image_shape: tuple[int, ...], kind: str = "params") -> int:
    """Returns the number of trainable parameters, or of another kind of variables."""
    return sum(leaf.size for leaf in jax.tree.leaves(variable_shapes(model, image_shape).get(kind, {})))
