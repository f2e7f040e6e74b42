"""ConvMixer exactly as published: "Patches Are All You Need?", Trockman & Kolter, arXiv 2201.09792.

    model = ConvMixer(dim=256, depth=8, patch_size=2, kernel_size=5, num_classes=10)
    variables = model.init(jax.random.key(0), images, train=False)
    logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])

Trainable parameters for c input channels: c p^2 h + 3h + d (k^2 h + h^2 + 6h) + h n + n. Other residual branches, norms
and heads, and layer scale, are choices beside it; the defaults are the published model.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax.sharding import Mesh

from convmixer_jax.models.batch_norm import updated_statistics
from convmixer_jax.models.blocks import BLOCKS, close_block
from convmixer_jax.models.heads import HEADS
from convmixer_jax.models.layers import Layers
from convmixer_jax.ops.activations import ACTIVATIONS
from convmixer_jax.ops.choice import OPS
from convmixer_jax.ops.features import Block, Trunk, TrunkParams
from convmixer_jax.ops.layout import Layout
from convmixer_jax.ops.spatial import Moments, Norm, Settings


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


def beyond_fast(block: str, norm: str, layer_scale: float) -> str | None:
    """Returns what other operations than the reference do not know of a model with these settings, or None."""
    if block != "plain":
        return f"it does not know the block {block!r}"
    if norm != "batch":
        return f"it does not know the norm {norm!r}"
    return "it does not know layer_scale" if layer_scale else None


class ConvMixer(nn.Module):
    """Patch embedding, `depth` blocks of depthwise and pointwise convolution, mean pool, head.

    Parameters are float32 (`param_dtype`) and computation runs in `dtype`; the logits are in `dtype` too. Where
    other operations than the reference do not know the blocks or the norm (see `beyond_fast`), the reference runs.
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
    bn_group_size: int = 0  # consecutive examples of a training batch that share statistics; 0 = all
    drop_path: float = 0.0  # share of examples whose residual branch is left out in the last block; linear in depth
    head_dropout: float = 0.0  # share of the pooled features set to zero before the head
    head: str = "linear"  # a row of HEADS
    block: str = "plain"  # a row of BLOCKS: the residual branch
    bottleneck_factor: int = 2  # of the bottleneck: dim is a multiple of it
    norm: str = "batch"  # a row of NORMS
    layer_scale: float = 0.0  # start of learnt factors of each branch's channels; 0 = none
    ops: str = "reference"  # a row of OPS: how all but the head is computed
    remat: bool = False  # keep one map per block for the backward pass, compute the others again
    mesh: Mesh | None = None  # over whose axes the batch is split, for other operations than the reference
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes].

        With `train`, BatchNorm uses the batch's statistics; make "batch_stats" mutable to keep the running ones, and
        give a key "dropout" where something is dropped.
        Rows and columns beyond a whole number of patches are cut off, as PyTorch's strided convolution does.
        """
        layout = None if beyond_fast(self.block, self.norm, self.layer_scale) else OPS[self.ops]
        if layout is None or self.is_initializing():
            # Initial weights come from the reference always: they are the same whichever operations run.
            x = self.features(images, train)
        else:
            x = self.fast_features(layout, images, train)
        layers = self.layers()
        x = layers.drop(x.astype(self.dtype), self.head_dropout, train, axes=(), name="head_drop")
        return HEADS[self.head](layers, x, train, num_classes=self.num_classes)

    def layers(self) -> Layers:
        """Returns the layers with the model's settings."""
        norm = (self.norm, self.norm_momentum, self.norm_epsilon, self.bn_group_size)
        return Layers(self.activation, self.initializer, *norm, dtype=self.dtype, param_dtype=self.param_dtype)

    def features(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns the pooled features [B, dim]: the network as published, layer by layer. The reference."""
        layers, p = self.layers(), self.patch_size
        x = layers.conv(images.astype(self.dtype), self.dim, (p, p), stride=p, padding="VALID", name="stem_conv")
        x = layers.activate_and_norm(x, train, "stem_norm")
        mix = nn.remat(ConvMixer.mix, static_argnums=(2, 3)) if self.remat else ConvMixer.mix
        for i in range(self.depth):
            x = mix(self, x, i, train)
        return x.mean(axis=(1, 2))

    def mix(self, x: jax.Array, i: int, train: bool) -> jax.Array:
        """Applies block i to a map [B, H, W, dim]."""
        layers, name = self.layers(), f"block_{i}"
        sizes = {"kernel_size": self.kernel_size, "bottleneck_factor": self.bottleneck_factor}
        y = BLOCKS[self.block](layers, x, train, name, **sizes)
        return close_block(layers, x, y, train, name, layer_scale=self.layer_scale, drop_rate=self.drop_rate(i))

    def drop_rate(self, i: int) -> float:
        """Returns the share of residual branches that block i leaves out."""
        return self.drop_path * (i + 1) / self.depth

    def fast_features(self, layout: Layout, images: jax.Array, train: bool) -> jax.Array:
        """Returns the pooled features [B, dim] by other operations, of the same variables, and updates statistics."""
        params, statistics = (self.variables[kind] for kind in ("params", "batch_stats"))
        settings = Settings(ACTIVATIONS[self.activation], self.norm_epsilon)
        trunk = Trunk(layout, settings, self.dtype, self.remat, self.mesh, self.bn_group_size)
        names = norm_names(self.depth)
        running = [Moments(statistics[name]["mean"], statistics[name]["var"]) for name in names]
        if not train:
            return trunk(trunk_params(params, self.depth), images, running, None)[0]
        keep = self.kept_branches(len(images)) if self.drop_path else None
        features, moments = trunk(trunk_params(params, self.depth), images, None, keep)
        if self.is_mutable_collection("batch_stats"):
            positions = (
                (self.bn_group_size or len(images))
                * (images.shape[1] // self.patch_size)
                * (images.shape[2] // self.patch_size)
            )
            for name, old, new in zip(names, running, moments, strict=True):
                updated = updated_statistics(old.mean, old.var, new.mean, new.var, positions, self.norm_momentum)
                # Each in its norm's place, though no norm was called: whatever runs, the variables are the same.
                self.put_variable("batch_stats", name, {"mean": updated[0], "var": updated[1]})
        return features

    def kept_branches(self, examples: int) -> jax.Array:
        """Returns [depth, examples], what each residual branch is multiplied with: the draws of the reference."""
        ones = jnp.ones((examples, 1, 1, 1))
        layers = self.layers()
        kept = [
            layers.drop(ones, self.drop_rate(i), True, axes=(1, 2, 3), name=f"block_{i}_drop")
            for i in range(self.depth)
        ]
        return jnp.stack(kept).reshape(self.depth, examples)
