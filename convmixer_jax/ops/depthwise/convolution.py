"""The depthwise convolution as XLA's grouped convolution, in either layout: what flax's own layer computes.

    y = NHWC.forward(x, kernel)  # channels last, as everything here
    y = NCHW.forward(x, kernel)  # the same between two transpositions, which XLA may merge with their surroundings

How float32 operands are multiplied is XLA's choice for the platform (bfloat16 on TPU, TF32 on GPU) unless
`jax.default_matmul_precision` says otherwise.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from convmixer_jax.ops.depthwise.contract import Depthwise, lacks_nothing, zeros_before


def correlate(layout: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves x, [B, H, W, C], with the kernel, [k, k, C] of the same dtype, in `layout`, "NHWC" or "NCHW"."""
    k, _, channels = kernel.shape
    before = zeros_before(k)
    y = lax.conv_general_dilated(
        x.transpose(["NHWC".index(axis) for axis in layout]),
        kernel[:, :, None],
        window_strides=(1, 1),
        padding=[(before, k - 1 - before)] * 2,
        dimension_numbers=(layout, "HWIO", layout),
        feature_group_count=channels,
    )
    return y.transpose([layout.index(axis) for axis in "NHWC"])


def forward(layout: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """See Depthwise.forward."""
    return correlate(layout, x, kernel.astype(x.dtype))


def input_grad(layout: str, g: jax.Array, kernel: jax.Array) -> jax.Array:
    """See Depthwise.input_grad."""
    by_input = jax.linear_transpose(lambda x: correlate(layout, x, kernel.astype(g.dtype)), g)
    return by_input(g)[0]


def kernel_grad(layout: str, x: jax.Array, g: jax.Array, k: int) -> jax.Array:
    """See Depthwise.kernel_grad.

    The operands become float32 first: bfloat16 operands with a float32 result are not a convolution of cuDNN, and a
    bfloat16 result would round the sum.
    """
    kernel = jax.ShapeDtypeStruct((k, k, x.shape[-1]), jnp.float32)
    by_kernel = jax.linear_transpose(lambda kernel: correlate(layout, x.astype(jnp.float32), kernel), kernel)
    return by_kernel(g.astype(jnp.float32))[0]


NHWC, NCHW = (
    Depthwise(
        functools.partial(forward, layout),
        functools.partial(input_grad, layout),
        functools.partial(kernel_grad, layout),
        lacks_nothing,
    )
    for layout in ("NHWC", "NCHW")
)
