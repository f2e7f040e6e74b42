"""What an implementation of the operations is: where a map's axes lie, and how its convolutions are computed.

    layout = ChannelsLast(depthwise)            # or ChannelMajor()
    u, x = layout.depthwise(x, kernel)

A map is [B, H, W, C] with its axes in an order of the layout's own; its dtype is that of the computation, float32 or
bfloat16. Sums, products and whatever belongs to a channel alone are float32 (wider where the map is).
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
from jax.typing import DTypeLike


class Fused(Protocol):
    """What `spatial.spatial` computes in one piece; arguments and results are those of spatial.py."""

    def forward(self, v: jax.Array, params: Any, given: Any, keep: jax.Array | None, with_u: bool) -> Any:
        """Returns (y, u, (moments of the entry, moments after the convolution)); u: [0] where it is not asked for."""

    def backward(
        self, grad: jax.Array, v: jax.Array, u: jax.Array, params: Any, moments: Any, keep: jax.Array | None
    ) -> Any:
        """Returns the gradients of v and of params."""


class Layout(Protocol):
    """A frozen, hashable object: it is a static argument of operations.

    platform: cpu, gpu or tpu, everywhere.
    """

    def lacks(self, kernel_size: int, dtype: DTypeLike, map_size: tuple[int, int], platform: str) -> str | None:
        """Returns what keeps it from maps (H, W) of a dtype on a platform, in a few words, or None."""

    def compiler_options(self, platform: str) -> dict[str, bool | int]:
        """Returns XLA's options that a program with it is compiled with."""

    def loops_well(self, platform: str) -> bool:
        """Whether an update is as fast inside of a loop of several updates as outside."""

    def across_devices(self) -> "Layout":
        """Returns the layout for a part of a batch, where sums are made over devices, too."""

    def unfused(self, examples: int, sharing: Any) -> str | None:
        """Returns why `fused` is None for so many examples of a device, though not for others, in a few words, or None.

        sharing: a Sharing of ops/sharing.py.
        """

    def fused(self, v: jax.Array, params: Any, settings: Any) -> Fused | None:
        """Returns how `spatial` is computed in one piece; None: by its formulas, of what follows here."""

    def embed(self, images: jax.Array, kernel: jax.Array) -> jax.Array:
        """Returns the map of non-overlapping patches times kernel.

        images: [B, H, W, c]; kernel: [p, p, c, C]. Rows and columns beyond a whole number of patches are cut off.
        """

    def pool(self, x: jax.Array) -> jax.Array:
        """Returns the mean over height and width: [B, C] of x's dtype, or [C, B] where channels come first."""

    def spread(self, pooled: jax.Array, like: jax.Array) -> jax.Array:
        """Returns what `pool` gave, repeated to the shape of the map `like`."""

    def examples_first(self, pooled: jax.Array) -> jax.Array:
        """Returns what `pool` gave as [B, C]."""

    def kernel(self, kernel: jax.Array) -> jax.Array:
        """Returns a depthwise kernel [k, k, 1, C] in the layout's own order of axes."""

    def channels(self, vector: jax.Array) -> jax.Array:
        """Returns [C], or [C, B] that differs between examples, so that it broadcasts against a map."""

    def examples(self, vector: jax.Array) -> jax.Array:
        """Returns [B] so that it broadcasts against a map."""

    def size(self, x: jax.Array) -> int:
        """Returns how many values of a map share a channel."""

    def sample(self, x: jax.Array) -> jax.Array:
        """Returns one position of all examples of a map, on which sums cost next to nothing."""

    def sums(self, values: list[jax.Array], each_example: bool = False) -> list[jax.Array]:
        """Returns the sum of each map over all but channels, [C], in one pass over what they share.

        each_example: over height and width alone, [C, B].
        """

    def store(self, x: jax.Array, after: jax.Array) -> jax.Array:
        """Returns x, in memory from here on: what uses it does not compute it again. after: any float array."""

    def by_groups(self, function: Callable[..., Any], *trees: Any) -> Any:
        """Returns function(*trees), computed for some channels after the other where that is quicker.

        Every leaf, of arguments and results, belongs to a channel each; function treats channels alike.
        """

    def depthwise(self, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns x correlated with the kernel, float32, and x again, as it is best read from now on.

        Zeros around x keep its size; of an even kernel, the extra row and column of zeros come at the end, as in
        PyTorch's padding="same" and JAX's "SAME".
        """

    def depthwise_grads(
        self, x: jax.Array, kernel: jax.Array, grad: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the gradients of x, the kernel and a bias per channel, all float32."""

    def product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Returns x times kernel, [C in, C out], over channels; of x's dtype."""

    def product_grads(self, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the gradients of x, of its dtype, and of the kernel, float32."""
