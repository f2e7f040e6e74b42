"""Magnitude pruning: the smallest weights of all kernels together become zero (arXiv 1506.02626, without retraining).

params = pruned(params, 0.5)
"""

from typing import Any

import jax
import numpy as np


def is_kernel(path: tuple[Any, ...]) -> bool:
    """Whether a parameter is a kernel, of a convolution or a dense layer; biases and norms are few, and stay."""
    return path[-1].key == "kernel"


def pruned(params: dict[str, Any], fraction: float) -> dict[str, Any]:
    """Returns params with `fraction` of the kernels' weights, in [0, 1), set to zero: those of the least magnitude."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    arrays = [np.array(leaf) for _, leaf in leaves]
    kernels = [array for (path, _), array in zip(leaves, arrays, strict=True) if is_kernel(path)]
    magnitudes = np.concatenate([np.abs(kernel).ravel() for kernel in kernels])
    # By place, not by a threshold: of equal ones exactly as many go as are wanted.
    kept = np.ones(len(magnitudes), bool)
    kept[np.argsort(magnitudes, kind="stable")[: round(fraction * len(magnitudes))]] = False
    ends = np.cumsum([kernel.size for kernel in kernels])
    for kernel, mask in zip(kernels, np.split(kept, ends[:-1]), strict=True):
        kernel *= mask.reshape(kernel.shape)
    return jax.tree_util.tree_unflatten(structure, arrays)
