"""Real photographs in small tiles, and what every augmentation is held to on eight devices."""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import sklearn.datasets
from jax.sharding import Mesh
from PIL import Image

from convmixer_jax.training.mesh import over_data, replicated

COLLECTIVE = re.compile(r"\b(all-\w+|ragged-all-to-all|collective-\w+|reduce-scatter)(?:-start)?(?:\.\d+)?\(")
HERE = Path(__file__).parent


def tiles_of(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cuts uint8 [H, W, 3] into tiles [N, side, side, 3], row by row; what is left at the right and below is lost."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    cut = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    return cut.swapaxes(1, 2).reshape(-1, side, side, 3)


@functools.cache
def photographs() -> np.ndarray:
    """Returns 580 photographs uint8 [N, 32, 32, 3]: 520 tiles of scikit-learn's two, then 60 images of CIFAR-10.

    These are the first ten test images of each of airplane, automobile, cat, deer, dog and frog (Krizhevsky, "Learning
    Multiple Layers of Features from Tiny Images", 2009), bit for bit, in one picture of lossless WebP.
    """
    large = [sklearn.datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return np.concatenate([tiles_of(pixels, 32) for pixels in (*large, np.asarray(Image.open(HERE / "cifar10.webp")))])


@functools.cache
def photographs_64() -> np.ndarray:
    """Returns 16 photographs uint8 [16, 64, 64, 3] of Tiny ImageNet.

    The first coloured ones of its validation split (Stanford's course CS231n; photographs of ImageNet, Russakovsky et
    al. 2015), as Pillow decodes them, bit for bit, in one picture of lossless WebP.
    """
    return tiles_of(np.asarray(Image.open(HERE / "tiny_imagenet.webp")), 64)


def assert_needs_no_other_device(apply: Callable, mesh: Callable[[int], Mesh], *batches: np.ndarray) -> None:
    """Asserts that apply(key, *batches) sends nothing between 8 devices and gives what it gives on one, bit for bit."""
    results = {}
    for devices in (1, 8):
        whole, split = replicated(mesh(devices)), over_data(mesh(devices))
        jitted = jax.jit(apply, in_shardings=(whole, *(split for _ in batches)), out_shardings=split)
        # Half the time to compile, and what is sent is decided before the backend.
        quick: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
        program = jitted.lower(jax.random.key(0), *batches).compile(quick)
        assert set(COLLECTIVE.findall(str(program.as_text()))) == set()
        results[devices] = program(jax.device_put(jax.random.key(0), whole), *jax.device_put(batches, split))
    assert all(len(leaf.addressable_shards) == 8 for leaf in jax.tree.leaves(results[8]))
    jax.tree.map(np.testing.assert_array_equal, results[1], results[8])
