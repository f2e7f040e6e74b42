"""ConvMixer exactly as published: "Patches Are All You Need?", Trockman & Kolter, arXiv 2201.09792.

    model = ConvMixer(dim=256, depth=8, patch_size=2, kernel_size=5, num_classes=10)
    variables = model.init(jax.random.key(0), images, train=False)
    logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])

Trainable parameters for c input channels: c p^2 h + 3h + d (k^2 h + h^2 + 6h) + h n + n.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax.sharding import Mesh

from convmixer_jax.models.batch_norm import BatchNorm, updated_statistics
from convmixer_jax.models.initializers import INITIALIZERS
from convmixer_jax.ops.activations import ACTIVATIONS
from convmixer_jax.ops.choice import OPS
from convmixer_jax.ops.features import Block, Trunk, TrunkParams
from convmixer_jax.ops.layout import Layout
from convmixer_jax.ops.spatial import Moments, Norm, Settings

PLAIN_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    # PyTorch's nn.GELU is the exact one; flax's default is the tanh approximation.
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}


def norm_names(depth: int) -> list[str]:
    """Returns the names of the norms in the order of the network."""
    blocks = [f"block_{i}_{part}_norm" for i in range(depth) for part in ("depthwise", "pointwise")]
    return ["stem_norm", *blocks]


def trunk_params(params: Mapping[str, Any], depth: int) -> TrunkParams:
    """Returns the model's parameters, but for the classifier's, as the operations want them."""

    def norm(convolution: str, name: str) -> Norm:
        return Norm(params[convolution]["bias"], params[name]["scale"], params[name]["bias"])

    entries, blocks = [norm("stem_conv", "stem_norm")], []
    for i in range(depth):
        depthwise, pointwise = f"block_{i}_depthwise", f"block_{i}_pointwise"
        blocks.append(
            Block(params[depthwise]["kernel"], norm(depthwise, f"{depthwise}_norm"), params[pointwise]["kernel"])
        )
        entries.append(norm(pointwise, f"{pointwise}_norm"))
    return TrunkParams(params["stem_conv"]["kernel"], entries, blocks)


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
    ops: str = "reference"  # a row of OPS: how all but the classifier is computed
    remat: bool = False  # keep one map per block for the backward pass, compute the others again
    mesh: Mesh | None = None  # over whose axes the batch is split, for other operations than the reference
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes].

        With `train`, BatchNorm uses the batch's statistics; make "batch_stats" mutable to keep the running ones, and
        give a key "dropout" where drop_path or head_dropout is above 0.
        Rows and columns beyond a whole number of patches are cut off, as PyTorch's strided convolution does.
        """
        layout = OPS[self.ops]
        if layout is None or self.is_initializing():
            # Initial weights come from the reference always: they are the same whichever operations run.
            x = self.features(images, train)
        else:
            x = self.fast_features(layout, images, train)
        x = self.drop(x.astype(self.dtype), self.head_dropout, train, axes=(), name="head_drop")
        kernel_init, bias_init = INITIALIZERS[self.initializer](self.dim)
        return nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name="head",
        )(x)

    def features(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns the pooled features [B, dim]: the network as published, layer by layer. The reference."""
        x = images.astype(self.dtype)
        x = self.conv(x, self.patch_size, stride=self.patch_size, padding="VALID", name="stem_conv")
        x = self.activate_and_norm(x, train, "stem_norm")
        block = nn.remat(ConvMixer.block, static_argnums=(2, 3)) if self.remat else ConvMixer.block
        for i in range(self.depth):
            x = block(self, x, i, train)
        return x.mean(axis=(1, 2))

    def block(self, x: jax.Array, i: int, train: bool) -> jax.Array:
        """Applies block i to a map [B, H, W, dim]."""
        # "SAME" puts the odd row and column of an even kernel at the end, as PyTorch's padding="same" does.
        y = self.conv(x, self.kernel_size, groups=self.dim, name=f"block_{i}_depthwise")
        y = self.activate_and_norm(y, train, f"block_{i}_depthwise_norm")
        x = x + self.drop(y, self.drop_rate(i), train, axes=(1, 2, 3), name=f"block_{i}_drop")
        x = self.conv(x, 1, name=f"block_{i}_pointwise")
        return self.activate_and_norm(x, train, f"block_{i}_pointwise_norm")

    def drop_rate(self, i: int) -> float:
        """Returns the share of residual branches that block i leaves out."""
        return self.drop_path * (i + 1) / self.depth

    def fast_features(self, layout: Layout, images: jax.Array, train: bool) -> jax.Array:
        """Returns the pooled features [B, dim] by other operations, of the same variables, and updates statistics."""
        params, statistics = (self.variables[kind] for kind in ("params", "batch_stats"))
        settings = Settings(ACTIVATIONS[self.activation], self.norm_epsilon)
        trunk = Trunk(layout, settings, self.dtype, self.remat, self.mesh)
        names = norm_names(self.depth)
        running = [Moments(statistics[name]["mean"], statistics[name]["var"]) for name in names]
        if not train:
            return trunk(trunk_params(params, self.depth), images, running, None)[0]
        keep = self.kept_branches(len(images)) if self.drop_path else None
        features, moments = trunk(trunk_params(params, self.depth), images, None, keep)
        if self.is_mutable_collection("batch_stats"):
            positions = len(images) * (images.shape[1] // self.patch_size) * (images.shape[2] // self.patch_size)
            for name, old, new in zip(names, running, moments, strict=True):
                updated = updated_statistics(old.mean, old.var, new.mean, new.var, positions, self.norm_momentum)
                # Each in its norm's place, though no norm was called: whatever runs, the variables are the same.
                self.put_variable("batch_stats", name, {"mean": updated[0], "var": updated[1]})
        return features

    def kept_branches(self, examples: int) -> jax.Array:
        """Returns [depth, examples], what each residual branch is multiplied with: the draws of the reference."""
        ones = jnp.ones((examples, 1, 1, 1))
        kept = [
            self.drop(ones, self.drop_rate(i), True, axes=(1, 2, 3), name=f"block_{i}_drop") for i in range(self.depth)
        ]
        return jnp.stack(kept).reshape(self.depth, examples)

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
        x = PLAIN_ACTIVATIONS[self.activation](x)
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
