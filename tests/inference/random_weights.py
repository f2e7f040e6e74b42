"""Small models with random weights and random statistics, described as if they had been trained on the digits."""

from typing import Any

import jax
import numpy as np

from convmixer_jax.config import get_base, to_plain
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.inference.description import Description, abstract_variables, describe


def random_weights(dataset: str = "digits", seed: int = 0, **model: Any) -> tuple[Description, dict[str, Any]]:
    """Returns (description, variables). model: fields of config.model that differ from a tiny ConvMixer's."""
    config = to_plain(get_base())
    config["model"] |= {"dim": 8, "depth": 1, "patch_size": 1, "kernel_size": 3} | model
    description = describe(config, DATASETS[dataset], source="random weights")
    generator = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return generator.uniform(0.1, 1.0, leaf.shape).astype(np.float32) * generator.choice([-1, 1], leaf.shape)

    variables = jax.tree.map(draw, abstract_variables(description))
    # Variances are positive.
    return description, variables | {"batch_stats": jax.tree.map(np.abs, variables["batch_stats"])}
