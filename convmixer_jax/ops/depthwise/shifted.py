"""The depthwise convolution as a sum of k^2 shifted products, which XLA fuses into one pass over the map.

y = SHIFTED.forward(x, kernel)
"""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from convmixer_jax.ops.depthwise.contract import by_correlation, lacks_nothing, zeros_before

# The kernel's gradient reads g once for each reduction, and a reduction holds a partial sum for each of its offsets:
# two of 41 and 40 offsets were the fastest for k = 9 on a CPU of 32 vector registers.
OFFSETS_PER_REDUCTION = 41


def pad(x: jax.Array, before: int, after: int) -> jax.Array:
    """Puts zeros around the rows and columns of x, [B, H, W, C]."""
    return jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))


def correlate(x: jax.Array, kernel: jax.Array, before: int) -> jax.Array:
    """Correlates x, [B, H, W, C], with the kernel, [k, k, C], after `before` rows and columns of zeros."""
    _, H, W, _ = x.shape
    k = kernel.shape[0]
    kernel = kernel.astype(x.dtype).astype(jnp.float32)
    # Converted once, not in each of k^2 slices: for bfloat16 XLA's TPU compiler then moves a third of the bytes.
    padded = pad(x.astype(jnp.float32), before, k - 1 - before)
    products = (padded[:, i : i + H, j : j + W] * kernel[i, j] for i, j in itertools.product(range(k), repeat=2))
    return functools.reduce(operator.add, products).astype(x.dtype)


def kernel_grad(x: jax.Array, g: jax.Array, k: int) -> jax.Array:
    """See Depthwise.kernel_grad."""
    _, H, W, C = x.shape
    before = zeros_before(k)
    padded = pad(x, before, k - 1 - before)
    g = g.astype(jnp.float32)
    sums: list[jax.Array] = []
    offsets = list(itertools.product(range(k), repeat=2))
    reductions = -(-len(offsets) // OFFSETS_PER_REDUCTION)
    size = -(-len(offsets) // reductions)
    for start in range(0, len(offsets), size):
        # Here a slice is read once, so that its conversion is fused: converted first, twice the bytes would be moved.
        slices = [padded[:, i : i + H, j : j + W] for i, j in offsets[start : start + size]]
        products = [shifted.astype(jnp.float32) * g for shifted in slices]
        zeros = [jnp.float32(0)] * len(products)
        # One reduction of several operands: XLA fuses the products into it and reads x and g once for all of them.
        sums += lax.reduce(products, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (0, 1, 2))
    return jnp.stack(sums).reshape(k, k, C)


SHIFTED = by_correlation(correlate, kernel_grad, lacks_nothing)
