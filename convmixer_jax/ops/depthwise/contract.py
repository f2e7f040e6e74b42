"""What every implementation of the depthwise convolution offers, and where its zeros go.

    depthwise = IMPLEMENTATIONS["shifted"]  # a Depthwise
    if depthwise.lacks(9, jnp.bfloat16, (32, 32), "gpu") is None:
        y = depthwise.forward(x, kernel)
        dx, dkernel = depthwise.input_grad(g, kernel), depthwise.kernel_grad(x, g, 9)

y[b, h, w, c] = sum over i, j of x[b, h + i - before, w + j - before, c] * kernel[i, j, c], with zeros outside of the
map: a correlation (the kernel is not flipped) with stride 1 and without a bias, whose result is as large as the map.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.typing import DTypeLike


class Depthwise(NamedTuple):
    """One implementation. B, H, W >= 1 and the kernel may be larger than the map; x and g are float32 or bfloat16.

    The kernel is rounded to the dtype of x or g, as flax rounds it; products are added in float32, and the sum is
    rounded once. All three can be traced by jax.jit and run inside `jax.shard_map(check_vma=False)`, where they see
    one device's examples: the kernel's gradient is then that device's part of the sum. Two runs give the same bits.
    """

    forward: Callable[[jax.Array, jax.Array], jax.Array]
    """(x [B, H, W, C], kernel [k, k, C]) to y [B, H, W, C] of x's dtype."""
    input_grad: Callable[[jax.Array, jax.Array], jax.Array]
    """(g [B, H, W, C], kernel [k, k, C]) to the gradient by x, [B, H, W, C] of g's dtype."""
    kernel_grad: Callable[[jax.Array, jax.Array, int], jax.Array]
    """(x [B, H, W, C], g [B, H, W, C], k) to the gradient by the kernel, float32 [k, k, C], whatever the dtype."""
    lacks: Callable[[int, DTypeLike, tuple[int, int], str], str | None]
    """(k, dtype, (H, W), platform) to None where it can, with any number of channels, else one line on what is lacking.

    platform: "cpu", "gpu" or "tpu", as `jax.default_backend()` names it. The caller then takes the reference."""


def zeros_before(k: int) -> int:
    """Returns how many rows (and columns) of zeros the forward pass puts before the map; k - 1 less these come after.

    The odd one of an even k comes after, as in JAX's "SAME" and PyTorch's "same". The input gradient is the same
    correlation with the flipped kernel and the two numbers exchanged.
    """
    return (k - 1) // 2


def by_correlation(
    correlate: Callable[[jax.Array, jax.Array, int], jax.Array],
    kernel_grad: Callable[[jax.Array, jax.Array, int], jax.Array],
    lacks: Callable[[int, DTypeLike, tuple[int, int], str], str | None],
) -> Depthwise:
    """Returns the implementation whose forward pass and input gradient are both made of `correlate`.

    correlate: (x [B, H, W, C], kernel [k, k, C], rows and columns of zeros before the map) to [B, H, W, C].
    """

    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return correlate(x, kernel, zeros_before(len(kernel)))

    def input_grad(g: jax.Array, kernel: jax.Array) -> jax.Array:
        return correlate(g, kernel[::-1, ::-1], len(kernel) - 1 - zeros_before(len(kernel)))

    return Depthwise(forward, input_grad, kernel_grad, lacks)


def lacks_nothing(k: int, dtype: DTypeLike, size: tuple[int, int], platform: str) -> None:
    """The `lacks` of an implementation that can do everything everywhere."""
