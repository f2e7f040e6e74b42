"""ConvMixer exactly as published: "Patches Are All You Need?", Trockman & Kolter, arXiv 2201.09792.

    model = ConvMixer(dim=256, depth=8, patch_size=2, kernel_size=5, num_classes=10)
    variables = model.init(jax.random.key(0), images, train=False)
    logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])

Trainable parameters for c input channels: c p^2 h + 3h + d (k^2 h + h^2 + 6h) + h n + n.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from convmixer_jax.models.batch_norm import BatchNorm
from convmixer_jax.models.initializers import INITIALIZERS

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    # PyTorch's nn.GELU is the exact one; flax's default is the tanh approximation.
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}


class ConvMixer(nn.Module):
    """Patch embedding, `depth` blocks of depthwise and pointwise convolution, mean pool, linear classifier.

    Parameters are float32 (`param_dtype`) and computation runs in `dtype`; the logits are in `dtype` too.
    """

    dim: int  # h: channels of every block
    depth: int  # d: number of blocks
    patch_size: int  # p: the image is cut into p x p patches
    kernel_size: int  # k: of the depthwise convolutions; may be even
    num_classes: int
    activation: str = "gelu"
    initializer: str = "pytorch"
    norm_momentum: float = 0.1
    norm_epsilon: float = 1e-5
    drop_path: float = 0.0  # share of examples whose residual branch is left out in the last block; linear in depth
    head_dropout: float = 0.0  # share of the pooled features set to zero before the classifier
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes].

        With `train`, BatchNorm uses the batch's statistics; make "batch_stats" mutable to keep the running ones, and
        give a key "dropout" where drop_path or head_dropout is above 0.
        Rows and columns beyond a whole number of patches are cut off, as PyTorch's strided convolution does.
        """
        x = images.astype(self.dtype)
        x = self.conv(x, self.patch_size, stride=self.patch_size, padding="VALID", name="stem_conv")
        x = self.activate_and_norm(x, train, "stem_norm")
        for i in range(self.depth):
            # "SAME" puts the odd row and column of an even kernel at the end, as PyTorch's padding="same" does.
            y = self.conv(x, self.kernel_size, groups=self.dim, name=f"block_{i}_depthwise")
            y = self.activate_and_norm(y, train, f"block_{i}_depthwise_norm")
            x = x + self.drop(y, self.drop_path * (i + 1) / self.depth, train, axes=(1, 2, 3), name=f"block_{i}_drop")
            x = self.conv(x, 1, name=f"block_{i}_pointwise")
            x = self.activate_and_norm(x, train, f"block_{i}_pointwise_norm")
        x = self.drop(x.mean(axis=(1, 2)), self.head_dropout, train, axes=(), name="head_drop")
        kernel_init, bias_init = INITIALIZERS[self.initializer](self.dim)
        return nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name="head",
        )(x)

    def conv(
        self, x: jax.Array, kernel_size: int, *, name: str, groups: int = 1, stride: int = 1, padding: str = "SAME"
    ) -> jax.Array:
        """Convolves [B, H, W, C] to [B, H', W', dim], with a bias, initialised for its fan-in."""
        kernel_init, bias_init = INITIALIZERS[self.initializer](kernel_size**2 * x.shape[-1] // groups)
        return nn.Conv(
            self.dim,
            (kernel_size, kernel_size),
            strides=stride,
            padding=padding,
            feature_group_count=groups,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name=name,
        )(x)

    def activate_and_norm(self, x: jax.Array, train: bool, name: str) -> jax.Array:
        """Applies the activation, then BatchNorm, in this order, as published."""
        x = ACTIVATIONS[self.activation](x)
        return BatchNorm(
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(x, train)

    def drop(self, x: jax.Array, rate: float, train: bool, *, axes: tuple[int, ...], name: str) -> jax.Array:
        """Sets a share `rate` of values to zero and scales the rest up; along `axes` one draw counts for all.

        Over a residual branch with one draw per example that is stochastic depth (arXiv 1603.09382).
        """
        return nn.Dropout(rate, broadcast_dims=axes, name=name)(x, deterministic=not train) if rate else x
