"""A model for use by hand, in a notebook: what `convmixer_jax.load` returns.

model, variables, preprocess = load("runs/cifar10")
logits = model.apply(variables, preprocess(["cat.jpg"]), train=False)
"""

import dataclasses
from pathlib import Path
from typing import Any

from flax import linen as nn

from convmixer_jax.inference.loading import load_weights
from convmixer_jax.inference.preprocess import Preprocess, make_preprocess


def compiled(model: nn.Module) -> nn.Module:
    """Returns the same model, whose `apply` is compiled at the first call for each shape of images.

    Operation by operation, as flax applies a model outside of jax.jit, the quickest ones are many times as slow.
    """
    settings = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    settings = {name: value for name, value in settings.items() if name not in ("parent", "name")}
    # `train`, by its position or its name, decides what is computed. Compiler options, as `compile_model` gives them,
    # are not to be had: flax's jit takes none, and JAX refuses them inside of the jax.jit that a user may put round it.
    return nn.jit(type(model), static_argnums=(2,), static_argnames=("train",))(**settings)


def load(path: str | Path, ops: str | None) -> tuple[nn.Module, dict[str, Any], Preprocess]:
    """See `convmixer_jax.load`."""
    loaded = load_weights(path, ops)
    return compiled(loaded.model), loaded.variables, make_preprocess(loaded.description)
