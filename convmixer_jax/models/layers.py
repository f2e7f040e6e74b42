"""The layers that the variants are made of, with a model's settings.

    layers = Layers(activation="gelu", initializer="pytorch")
    x = layers.conv(x, 256, (1, 1), name="block_0_pointwise")     # inside of a module's compact method
    x = layers.activate_and_norm(x, train, "block_0_pointwise_norm")

Each call makes a linen module, a child of the module whose method is running: variables get the `name` below it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from convmixer_jax.models.initializers import INITIALIZERS
from convmixer_jax.models.norms import NORMS

PLAIN_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    # PyTorch's nn.GELU is the exact one; flax's default is the tanh approximation.
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}


class LayerScale(nn.Module):
    """Multiplies each channel of [B, ..., C] with a learnt factor that begins as `start` (arXiv 2103.17239)."""

    start: float
    dtype: Dtype
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x * gamma in `dtype`; params: gamma [C]."""
        gamma = self.param("gamma", nn.initializers.constant(self.start), (x.shape[-1],), self.param_dtype)
        return x * gamma.astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class Layers:
    """What all layers of a model have in common: rows of the tables, the norms' settings and the dtypes."""

    activation: str
    initializer: str
    norm: str = "batch"
    norm_momentum: float = 0.1
    norm_epsilon: float = 1e-5
    bn_group_size: int = 0
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    def conv(
        self,
        x: jax.Array,
        features: int,
        kernel_size: tuple[int, int],
        *,
        name: str,
        groups: int = 1,
        stride: int = 1,
        padding: str = "SAME",
        use_bias: bool = True,
    ) -> jax.Array:
        """Convolves [B, H, W, C] to [B, H', W', features], initialised for its fan-in.

        "SAME" puts the odd row and column at the end, as PyTorch's padding="same" does for even kernels, and Keras for
        strides.
        """
        kernel_init, bias_init = INITIALIZERS[self.initializer](math.prod(kernel_size) * x.shape[-1] // groups)
        return nn.Conv(
            features,
            kernel_size,
            strides=stride,
            padding=padding,
            feature_group_count=groups,
            use_bias=use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name=name,
        )(x)

    def depthwise(self, x: jax.Array, kernel_size: tuple[int, int], *, name: str, use_bias: bool = True) -> jax.Array:
        """Convolves each channel of [B, H, W, C] with a kernel of its own; the size stays."""
        channels = x.shape[-1]
        return self.conv(x, channels, kernel_size, groups=channels, use_bias=use_bias, name=name)

    def dense(self, x: jax.Array, features: int, *, name: str) -> jax.Array:
        """Maps [B, C] to [B, features], with a bias."""
        kernel_init, bias_init = INITIALIZERS[self.initializer](x.shape[-1])
        return nn.Dense(
            features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name=name,
        )(x)

    def activate(self, x: jax.Array) -> jax.Array:
        """Applies the activation."""
        return PLAIN_ACTIVATIONS[self.activation](x)

    def normalise(self, x: jax.Array, train: bool, name: str, norm: str | None = None) -> jax.Array:
        """Applies the norm, or another row of NORMS, to [B, ..., C]."""
        return NORMS[norm or self.norm](
            x,
            train,
            name=name,
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
            group_size=self.bn_group_size,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

    def activate_and_norm(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Applies the activation, then the norm, in this order, as published."""
        return self.normalise(self.activate(x), train, name)

    def scale(self, x: jax.Array, start: float, *, name: str) -> jax.Array:
        """Multiplies each channel with a learnt factor that begins as `start`; 0 leaves x alone."""
        return LayerScale(start, self.dtype, self.param_dtype, name=name)(x) if start else x

    def drop(self, x: jax.Array, rate: float, train: bool, *, axes: tuple[int, ...], name: str) -> jax.Array:
        """Sets a share `rate` of values to zero and scales the rest up; along `axes` one draw counts for all.

        Over a residual branch with one draw per example that is stochastic depth (arXiv 1603.09382).
        """
        return nn.Dropout(rate, broadcast_dims=axes, name=name)(x, deterministic=not train) if rate else x
