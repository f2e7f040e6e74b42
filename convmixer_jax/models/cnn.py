"""The small convolutional network that report A compares a ConvMixer with.

    model = CNN(num_classes=10)

For 32 x 32 x 3 images and 10 classes it has 620,362 parameters; no norm, so no statistics either.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from convmixer_jax.models.layers import Layers

CHANNELS = (32, 64, 128)  # of each convolution
HIDDEN = 256
SMALLEST = 2 ** len(CHANNELS)  # pixels of a side, which each pool halves


class CNN(nn.Module):
    """Three times a 3x3 convolution, ReLU and a 2x2 max-pool, then a layer of 256 with ReLU and the classifier."""

    num_classes: int
    initializer: str = "pytorch"
    head_dropout: float = 0.0  # share of the 256 features set to zero before the classifier
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images [B, H, W, C] to logits [B, num_classes].

        H, W: at least SMALLEST; what does not fill a window of the pools is cut off. Give a key "dropout" in training
        where head_dropout is above 0.
        """
        layers = Layers("relu", self.initializer, dtype=self.dtype, param_dtype=self.param_dtype)
        x = images.astype(self.dtype)
        for i, channels in enumerate(CHANNELS):
            x = layers.activate(layers.conv(x, channels, (3, 3), name=f"conv_{i}"))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)  # of an export the batch is a symbol, which has no len
        x = layers.activate(layers.dense(x, HIDDEN, name="hidden"))
        x = layers.drop(x, self.head_dropout, train, axes=(), name="head_drop")
        return layers.dense(x, self.num_classes, name="head")
