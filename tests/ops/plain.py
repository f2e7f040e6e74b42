"""The operations in NumPy, straight from their definitions and in float64, and gradients by differences.

Maps are [B, H, W, C] and depthwise kernels [k, k, 1, C], whatever the order of a layout that is compared with them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import scipy.special

from convmixer_jax.ops.activations import ACTIVATIONS
from convmixer_jax.ops.channel_major import ChannelMajor
from convmixer_jax.ops.channels_last import ChannelsLast
from convmixer_jax.ops.depthwise.implementations import IMPLEMENTATIONS
from convmixer_jax.ops.layout import Layout
from convmixer_jax.ops.native.layout import Native
from convmixer_jax.ops.native.library import lacking
from convmixer_jax.ops.spatial import Norm, Settings, SpatialParams

EPSILON = 1e-3
VALUES = {"gelu": lambda u: u * scipy.special.ndtr(u), "relu": lambda u: np.maximum(u, 0)}


class Order(NamedTuple):
    """A layout, and the axes of [B, H, W, C] in its order."""

    layout: Layout
    axes: tuple[int, int, int, int]

    def of(self, usual: Any) -> Any:
        """Returns [B, H, W, C] in the layout's order."""
        return usual.transpose(self.axes)

    def usual(self, given: Any) -> Any:
        """Returns a map of the layout as [B, H, W, C]."""
        return given.transpose(np.argsort(self.axes))


CHANNEL_MAJOR = Order(ChannelMajor(), (3, 1, 2, 0))
CHANNELS_LAST = Order(ChannelsLast(IMPLEMENTATIONS["shifted"]), (0, 1, 2, 3))
NATIVE = Order(Native(least_share=0.0), CHANNEL_MAJOR.axes)
ORDERS = {"channel_major": CHANNEL_MAJOR, "channels_last": CHANNELS_LAST, "native": NATIVE}
# The C++ is tested where there is a compiler, which users need not have.
NEEDS_COMPILER = pytest.mark.skipif(lacking() is not None, reason=f"native: {lacking()}")
ORDER_NAMES = [pytest.param(name, marks=NEEDS_COMPILER) if name == "native" else name for name in ORDERS]


def settings(activation: str) -> Settings:
    return Settings(ACTIVATIONS[activation], EPSILON)


@dataclasses.dataclass(frozen=True)
class Case:
    """A spatial operation on random numbers. drops: whether some examples' residual branches are left out."""

    kernel_size: int
    map_size: tuple[int, int]
    batch: int
    activation: str
    drops: bool

    def arrays(self, channels: int) -> tuple[np.ndarray, SpatialParams, np.ndarray | None, np.ndarray]:
        """Returns (v, params, keep, weights): the scalar that is differentiated is sum(weights * result)."""
        rng: Any = np.random.default_rng(0)  # what it draws stands where the package has jax.Array
        shape, k = (self.batch, *self.map_size, channels), self.kernel_size

        def norm() -> Norm:
            return Norm(rng.normal(size=channels), rng.uniform(0.5, 1.5, channels), rng.normal(size=channels))

        params = SpatialParams(norm(), rng.normal(size=(k, k, 1, channels)) / k, norm())
        keep = 2.0 * (np.arange(self.batch) % 2) if self.drops else None
        return rng.normal(size=shape), params, keep, rng.normal(size=shape)


def correlate(x: Any, kernel: Any) -> np.ndarray:
    """Correlates every channel with its own kernel; the odd row and column of zeros come at the end."""
    k = len(kernel)
    before = (k - 1) // 2
    padded = np.pad(x, ((0, 0), (before, k - 1 - before), (before, k - 1 - before), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))
    return np.einsum("bhwcij,ijc->bhwc", windows, kernel[:, :, 0])


def activate_and_norm(v: np.ndarray, norm: Norm, activation: str) -> np.ndarray:
    """Returns BatchNorm(act(v + bias)) with the statistics of the batch."""
    a = VALUES[activation](v + norm.bias_before)
    mean, var = moments(a)
    return (a - mean) / np.sqrt(var + EPSILON) * norm.scale + norm.bias


def moments(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and biased variance of each channel."""
    return a.mean((0, 1, 2)), a.var((0, 1, 2))


def spatial(v: np.ndarray, params: SpatialParams, keep: np.ndarray | None, activation: str) -> np.ndarray:
    """Returns x + keep * norm(act(depthwise(x) + bias)) with x = entry norm of act(v + bias)."""
    x = activate_and_norm(v, params.entry, activation)
    branch = activate_and_norm(correlate(x, params.kernel), params.norm, activation)
    return x + (branch if keep is None else branch * keep[:, None, None, None])


def gradients(function: Callable[..., float], *trees: Any) -> Any:
    """Returns the gradients of a scalar by every number of float64 trees, by central differences.

    They are off by h^2 = 1e-10 times a third derivative, and by rounding, 1e-16 / h = 1e-11 times the scalar.
    """
    h = 1e-5
    leaves, structure = jax.tree.flatten(trees)
    found = []
    for leaf in leaves:
        gradient = np.zeros_like(leaf)
        for place in np.ndindex(leaf.shape):
            old, sides = leaf[place], []
            for step in (h, -h):
                leaf[place] = old + step
                sides.append(function(*jax.tree.unflatten(structure, leaves)))
            leaf[place] = old
            gradient[place] = (sides[0] - sides[1]) / (2 * h)
        found.append(gradient)
    return jax.tree.unflatten(structure, found)
