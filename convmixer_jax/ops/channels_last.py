"""Maps as [B, H, W, C], the usual order, with any implementation of the depthwise convolution: for accelerators.

layout = ChannelsLast(IMPLEMENTATIONS["pallas"])
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from convmixer_jax.ops.activations import wide
from convmixer_jax.ops.depthwise.contract import Depthwise
from convmixer_jax.ops.layout import Fused

ALL_BUT_CHANNELS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class ChannelsLast:
    """A Layout of maps [B, H, W, C]. convolution: how the depthwise convolutions are computed."""

    convolution: Depthwise

    def lacks(self, kernel_size: int, dtype: DTypeLike, map_size: tuple[int, int], platform: str) -> str | None:
        """See Layout."""
        return self.convolution.lacks(kernel_size, dtype, map_size, platform)

    def compiler_options(self, platform: str) -> dict[str, bool | int]:
        """See Layout."""
        return {}

    def loops_well(self, platform: str) -> bool:
        """See Layout: XLA's CPU backend has no quick convolutions in a loop."""
        return platform != "cpu"

    def across_devices(self) -> "ChannelsLast":
        """See Layout."""
        return self

    def unfused(self, examples: int, sharing: Any) -> str | None:
        """See Layout: it always is."""
        return None

    def fused(self, v: jax.Array, params: Any, settings: Any) -> Fused | None:
        """See Layout: by the formulas."""
        return None

    def embed(self, images: jax.Array, kernel: jax.Array) -> jax.Array:
        """See Layout."""
        p, channels = len(kernel), kernel.shape[-1]
        size, height, width = len(images), images.shape[1] // p, images.shape[2] // p
        cut = images[:, : height * p, : width * p].reshape(size, height, p, width, p, -1)
        rows = cut.transpose(0, 1, 3, 2, 4, 5).reshape(size, height, width, -1)
        return self.product(rows, kernel.reshape(-1, channels))

    def pool(self, x: jax.Array) -> jax.Array:
        """See Layout."""
        return x.mean((1, 2))

    def spread(self, pooled: jax.Array, like: jax.Array) -> jax.Array:
        """See Layout."""
        return jnp.broadcast_to(pooled[:, None, None, :], like.shape)

    def examples_first(self, pooled: jax.Array) -> jax.Array:
        """See Layout."""
        return pooled

    def kernel(self, kernel: jax.Array) -> jax.Array:
        """See Layout: [k, k, C]."""
        return kernel[:, :, 0]

    def channels(self, vector: jax.Array) -> jax.Array:
        """See Layout."""
        return vector if vector.ndim == 1 else vector.T[:, None, None]

    def examples(self, vector: jax.Array) -> jax.Array:
        """See Layout."""
        return vector[:, None, None, None]

    def size(self, x: jax.Array) -> int:
        """See Layout."""
        return x.size // x.shape[-1]

    def sample(self, x: jax.Array) -> jax.Array:
        """See Layout: the middle."""
        row, column = x.shape[1] // 2, x.shape[2] // 2
        return x[:, row : row + 1, column : column + 1]

    def sums(self, values: list[jax.Array], each_example: bool = False) -> list[jax.Array]:
        """See Layout; the compiler makes one pass of them."""
        if each_example:
            return [wide(value).sum((1, 2)).T for value in values]
        return [wide(value).sum(ALL_BUT_CHANNELS) for value in values]

    def store(self, x: jax.Array, after: jax.Array) -> jax.Array:
        """See Layout: a convolution's or a product's result is in memory without a word."""
        del after
        return x

    def by_groups(self, function: Callable[..., Any], *trees: Any) -> Any:
        """See Layout: all channels at once."""
        return function(*trees)

    def depthwise(self, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See Layout."""
        return wide(self.convolution.forward(x, kernel)), x

    def depthwise_grads(
        self, x: jax.Array, kernel: jax.Array, grad: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """See Layout."""
        (bias_grad,) = self.sums([grad])
        x_grad = self.convolution.input_grad(grad, kernel)
        return wide(x_grad), self.convolution.kernel_grad(x, grad, len(kernel)), bias_grad

    def product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """See Layout."""
        dimensions = (((3,), (0,)), ((), ()))
        weights = kernel.astype(x.dtype)
        return lax.dot_general(x, weights, dimensions, preferred_element_type=wide(kernel).dtype).astype(x.dtype)

    def product_grads(self, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See Layout."""
        sums = wide(kernel).dtype
        over_positions = (ALL_BUT_CHANNELS, ALL_BUT_CHANNELS)
        kernel_grad = lax.dot_general(x, grad, (over_positions, ((), ())), preferred_element_type=sums)
        back = (((3,), (1,)), ((), ()))
        x_grad = lax.dot_general(grad, kernel.astype(x.dtype), back, preferred_element_type=sums)
        return x_grad.astype(x.dtype), kernel_grad
