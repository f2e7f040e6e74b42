"""The table of residual branches, and what surrounds a branch in every block.

    y = BLOCKS["bottleneck"](layers, x, train, "block_0", kernel_size=9, bottleneck_factor=2)
    x = close_block(layers, x, y, train, "block_0", layer_scale=0.0, drop_rate=0.1)

To add one, write a function of these arguments and give it a row in BLOCKS.
"""

from collections.abc import Callable

import jax

from convmixer_jax.models.layers import Layers

Branch = Callable[..., jax.Array]


def plain(
    layers: Layers, x: jax.Array, train: bool, block: str, *, kernel_size: int, bottleneck_factor: int
) -> jax.Array:
    """Depthwise k x k, activation, norm: the published one. Maps [B, H, W, C] to the same shape."""
    del bottleneck_factor  # it has none
    y = layers.depthwise(x, (kernel_size, kernel_size), name=f"{block}_depthwise")
    return layers.activate_and_norm(y, train, f"{block}_depthwise_norm")


def bottleneck(
    layers: Layers, x: jax.Array, train: bool, block: str, *, kernel_size: int, bottleneck_factor: int
) -> jax.Array:
    """1 x 1 to C / factor channels, depthwise k x k, 1 x 1 back to C; after each the activation and the norm."""
    channels = x.shape[-1]
    y = layers.conv(x, channels // bottleneck_factor, (1, 1), name=f"{block}_reduce")
    y = layers.activate_and_norm(y, train, f"{block}_reduce_norm")
    y = plain(layers, y, train, block, kernel_size=kernel_size, bottleneck_factor=1)
    y = layers.conv(y, channels, (1, 1), name=f"{block}_expand")
    return layers.activate_and_norm(y, train, f"{block}_expand_norm")


BLOCKS: dict[str, Branch] = {"plain": plain, "bottleneck": bottleneck}


def close_block(
    layers: Layers,
    x: jax.Array,
    y: jax.Array,
    train: bool,
    block: str,
    *,
    layer_scale: float,
    drop_rate: float,
    use_bias: bool = True,
) -> jax.Array:
    """Adds the branch y to x, [B, H, W, C], then pointwise, activation, norm.

    layer_scale: start of y's learnt factors, 0 = none. drop_rate: share of examples whose branch is left out.
    use_bias: of the pointwise convolution.
    """
    y = layers.scale(y, layer_scale, name=f"{block}_layer_scale")
    x = x + layers.drop(y, drop_rate, train, axes=(1, 2, 3), name=f"{block}_drop")
    x = layers.conv(x, x.shape[-1], (1, 1), use_bias=use_bias, name=f"{block}_pointwise")
    return layers.activate_and_norm(x, train, f"{block}_pointwise_norm")
