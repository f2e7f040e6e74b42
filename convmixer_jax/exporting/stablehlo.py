"""A model as a StableHLO program, by jax.export, with its weights in it; and one as a function of images.

    path.write_bytes(to_stablehlo(function, (32, 32, 3)))
    logits = load_stablehlo(path)(images)

Any JAX of the next half a year at least reads the file: docs.jax.dev/en/latest/export/export.html tells what is kept
compatible. It needs nothing of this package.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import export

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(function: Callable[[jax.Array], jax.Array], image_shape: tuple[int, int, int]) -> bytes:
    """Returns `function`, which maps float32 images [batch, H, W, C] to logits, for any batch and all PLATFORMS."""
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *image_shape), np.float32)
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())


def load_stablehlo(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function of images, float32 [B, H, W, C], to logits [B, classes], which runs the file where JAX is."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))
