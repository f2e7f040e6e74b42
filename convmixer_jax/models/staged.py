"""The three-stage ConvMixer of report E, for Tiny ImageNet: fewer positions and more channels from stage to stage.

    model = Staged(dim=128, num_classes=200, layer_scale=1.0, norm_momentum=0.01, norm_epsilon=1e-3)

With these settings it has 2,628,584 trainable parameters and 16,128 statistics. Convolutions have no biases.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from convmixer_jax.models.blocks import close_block
from convmixer_jax.models.heads import HEADS
from convmixer_jax.models.layers import Layers

GROUPS = 8  # of the convolutions between stages
SQUEEZE = 8  # a squeeze-excite has this many times fewer channels inside


def squeeze_excite(layers: Layers, x: jax.Array, block: str) -> jax.Array:
    """Multiplies each channel of [B, H, W, C] with a share that the means of all channels decide (arXiv 1709.01507)."""
    channels = x.shape[-1]
    y = layers.activate(layers.dense(x.mean(axis=(1, 2)), channels // SQUEEZE, name=f"{block}_squeeze"))
    return x * nn.sigmoid(layers.dense(y, channels, name=f"{block}_excite"))[:, None, None]


def wide_branch(layers: Layers, x: jax.Array, train: bool, block: str) -> jax.Array:
    """Depthwise 9 x 9, activation, norm."""
    y = layers.depthwise(x, (9, 9), use_bias=False, name=f"{block}_depthwise")
    return layers.activate_and_norm(y, train, f"{block}_norm")


def strips(layers: Layers, x: jax.Array, length: int, block: str) -> jax.Array:
    """Depthwise 1 x length, then length x 1, then the activation."""
    y = layers.depthwise(x, (1, length), use_bias=False, name=f"{block}_row")
    return layers.activate(layers.depthwise(y, (length, 1), use_bias=False, name=f"{block}_column"))


def strips_and_square_branch(layers: Layers, x: jax.Array, train: bool, block: str) -> jax.Array:
    """Depthwise 1 x 7, 7 x 1, activation, depthwise 3 x 3, norm, squeeze-excite."""
    y = layers.depthwise(strips(layers, x, 7, block), (3, 3), use_bias=False, name=f"{block}_depthwise")
    return squeeze_excite(layers, layers.normalise(y, train, f"{block}_norm"), block)


def strips_branch(layers: Layers, x: jax.Array, train: bool, block: str) -> jax.Array:
    """Depthwise 1 x 5, 5 x 1, activation, norm, squeeze-excite."""
    y = layers.normalise(strips(layers, x, 5, block), train, f"{block}_norm")
    return squeeze_excite(layers, y, block)


@dataclasses.dataclass(frozen=True)
class Stage:
    """blocks: how many; branch: their residual branch."""

    blocks: int
    branch: Callable[[Layers, jax.Array, bool, str], jax.Array]


STAGES = (Stage(2, wide_branch), Stage(3, strips_and_square_branch), Stage(5, strips_branch))
DEPTH = sum(stage.blocks for stage in STAGES)


class Staged(nn.Module):
    """A stem that halves the sides, three stages with convolutions between them that do so again, pool, head.

    Stages have `dim`, 2 `dim` and 4 `dim` channels; `dim` is a multiple of 8. Other fields as ConvMixer's.
    """

    dim: int
    num_classes: int
    activation: str = "gelu"
    initializer: str = "pytorch"
    norm: str = "batch"
    norm_momentum: float = 0.1
    norm_epsilon: float = 1e-5
    bn_group_size: int = 0
    layer_scale: float = 0.0
    drop_path: float = 0.0
    head: str = "linear"
    head_dropout: float = 0.0
    remat: bool = False
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes]. Keys and statistics as ConvMixer's."""
        layers = self.layers()
        x = layers.conv(images.astype(self.dtype), self.dim, (5, 5), stride=2, use_bias=False, name="stem_conv")
        x = layers.activate_and_norm(x, train, "stem_norm")
        block = nn.remat(Staged.block, static_argnums=(2, 3, 4)) if self.remat else Staged.block
        i = 0
        for number, stage in enumerate(STAGES):
            if number:
                x = self.down(x, number, train)
            for _ in range(stage.blocks):
                x = block(self, x, stage, i, train)
                i += 1
        x = layers.drop(x.mean(axis=(1, 2)), self.head_dropout, train, axes=(), name="head_drop")
        return HEADS[self.head](layers, x, train, num_classes=self.num_classes)

    def layers(self) -> Layers:
        """Returns the layers with the model's settings."""
        norm = (self.norm, self.norm_momentum, self.norm_epsilon, self.bn_group_size)
        return Layers(self.activation, self.initializer, *norm, dtype=self.dtype, param_dtype=self.param_dtype)

    def down(self, x: jax.Array, stage: int, train: bool) -> jax.Array:
        """Halves the sides of [B, H, W, C] and doubles the channels, on the way into a stage."""
        layers, name = self.layers(), f"down_{stage}"
        channels = 2 * x.shape[-1]
        x = layers.conv(x, channels, (5, 5), stride=2, groups=GROUPS, use_bias=False, name=f"{name}_conv")
        return layers.activate_and_norm(x, train, f"{name}_norm")

    def block(self, x: jax.Array, stage: Stage, i: int, train: bool) -> jax.Array:
        """Applies block i of all to a map [B, H, W, C]."""
        layers, name = self.layers(), f"block_{i}"
        y = stage.branch(layers, x, train, name)
        settings = {"layer_scale": self.layer_scale, "drop_rate": self.drop_path * (i + 1) / DEPTH}
        return close_block(layers, x, y, train, name, **settings, use_bias=False)
