"""Files beside the model that they were made of: which program computes it, and how far their logits are apart.

run = quickest(weights.description)(weights.variables)
difference(FORMATS["onnx"].load(path), run, weights.description.image_shape)
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convmixer_jax.exporting.formats import Run
from convmixer_jax.inference.description import Description, build
from convmixer_jax.inference.examination import check_finite
from convmixer_jax.inference.loading import Weights
from convmixer_jax.inference.program import quickest_program
from convmixer_jax.ops.choice import REFERENCE

# Of the logits, times the largest of them where that is above 1: what a file may differ by before it counts as wrong.
TOLERANCE = 1e-4


def reference(weights: Weights) -> Callable[[jax.Array], jax.Array]:
    """Returns the model as published, plain flax, as a function of images; not compiled."""
    model = build(weights.description, REFERENCE)

    def logits(images: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply(weights.variables, images, train=False))

    return logits


def quickest(description: Description) -> Callable[[Mapping[str, Any]], Run]:
    """Returns a function of variables to their model as the quickest program that JAX has here, compiled but once."""
    program = quickest_program(description)

    def with_variables(variables: Mapping[str, Any]) -> Run:
        on_device = jax.device_put(variables)
        return lambda images: np.asarray(program(on_device, images))

    return with_variables


def difference(run: Run, expected: Run, image_shape: tuple[int, int, int]) -> float:
    """Returns the largest difference between logits of a file and of the model, over two batches of noise.

    Raises RuntimeError where it is above TOLERANCE: the file is wrong. Raises UserError where the model's logits are
    not finite.
    """
    rng = np.random.default_rng(0)
    largest = 0.0
    for batch in (1, 3):
        images = rng.standard_normal((batch, *image_shape), np.float32)
        wanted = expected(images)
        check_finite(wanted)  # the model's: no file could agree
        found = float(np.abs(run(images) - wanted).max())
        if not found <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise RuntimeError(f"the file's logits differ by {found:g} from the model's")
        largest = max(largest, found)
    return largest
