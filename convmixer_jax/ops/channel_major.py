"""Maps as [C, H, W, B], channels first and examples last: what XLA's CPU backend is quick at.

Its convolutions with one channel per group take a hundred times as long as the arithmetic needs. A sum of k^2 shifted
products with examples in the vector's lanes does not, nor does the kernel's gradient as few reductions with an output
per offset; products over channels as [C', C] @ [C, H W B] run at the speed of a large matrix product. All but these
concerns each channel alone, so some channels are taken through all of it while they lie in the cache.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout as MemoryLayout
from jax.experimental.layout import with_layout_constraint
from jax.typing import DTypeLike

from convmixer_jax.ops.activations import wide
from convmixer_jax.ops.depthwise.contract import zeros_before
from convmixer_jax.ops.layout import Fused

# What XLA's CPU backend needs to sum many numbers at the speed of memory: the order of a sum may change, NaN and Inf
# stay what they are.
CPU_OPTIONS: dict[str, bool | int] = {"xla_cpu_enable_fast_math": True, "xla_cpu_prefer_vector_width": 512}

# Outputs of one reduction: of more, LLVM keeps the accumulators in memory and takes twice as long.
MOST_OUTPUTS = 15
# Bytes of a map that go through all operations at once. Measured with 1 MiB of cache per core: 0.5-2 MiB are the same,
# 4 MiB take a tenth longer, as long as all channels at once.
GROUP_BYTES = 1 << 20
# Products in a chain of additions, before a second chain is begun: each addition waits for the one before.
LONGEST_CHAIN = 18


def never(kernel: jax.Array) -> jax.Array:
    """Returns False, which the compiler cannot know; True where the first value is finite and above 1e38."""
    first = kernel.ravel()[0]
    return (first > 1e38) & (first < jnp.inf)


def around(k: int) -> tuple[int, int]:
    """Returns the zeros before and after a row."""
    return zeros_before(k), k - 1 - zeros_before(k)


def pad(x: jax.Array, before: int, after: int) -> jax.Array:
    """Pads height and width with zeros."""
    return jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))


def rows_of(x: jax.Array) -> jax.Array:
    """Returns [C, H, W, B] as [C, H, W B]: one long inner loop instead of W short ones."""
    return x.reshape(*x.shape[:2], -1)


def in_rows(matrix: jax.Array) -> jax.Array:
    """Returns the matrix, its rows one after the other in memory.

    A transposed one may otherwise be read as it lies, for which XLA's library has no bfloat16 product: both sides would
    become float32 copies.
    """
    return with_layout_constraint(jnp.asarray(matrix), MemoryLayout(major_to_minor=(0, 1)))


def shifted(padded: jax.Array, row: int, column: int, shape: tuple[int, ...]) -> jax.Array:
    """Returns the part of a padded map that offset (row, column) of a kernel meets: [C, H, W B], float32 or wider.

    shape: of the map without its padding.
    """
    _, height, width, examples = shape
    start = column * examples
    return wide(rows_of(padded)[:, row : row + height, start : start + width * examples])


def correlate(padded: jax.Array, kernel: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns the sum of k^2 shifted products, [C, H, W, B]; kernel: [C, k, k]; shape: the result's."""
    k = kernel.shape[1]
    # Minus infinity, which changes nothing. The compiler must not know it, or it would join the chains again.
    lowest = jnp.where(never(kernel), jnp.nan, -jnp.inf).astype(kernel.dtype)
    rows = max(1, LONGEST_CHAIN // k)
    chains = []
    for start in range(0, k, rows):
        chain = jnp.zeros((), kernel.dtype)
        for i in range(start, min(start + rows, k)):
            for j in range(k):
                chain = chain + shifted(padded, i, j, shape) * kernel[:, i, j][:, None, None]
        chains.append(chain if rows >= k else jnp.maximum(chain, lowest))
    return functools.reduce(jnp.add, chains).reshape(shape)


def as_bits(tree: Any) -> Any:
    """Returns the tree with bfloat16 leaves as uint16.

    A loop may hold it then: of a bfloat16 array that it updates in parts, XLA's CPU backend converts all in each turn.
    """
    to_bits = functools.partial(lax.bitcast_convert_type, new_dtype=jnp.uint16)
    return jax.tree.map(lambda leaf: to_bits(leaf) if leaf.dtype == jnp.bfloat16 else leaf, tree)


def as_floats(tree: Any) -> Any:
    """Undoes `as_bits`."""
    to_floats = functools.partial(lax.bitcast_convert_type, new_dtype=jnp.bfloat16)
    return jax.tree.map(lambda leaf: to_floats(leaf) if leaf.dtype == jnp.uint16 else leaf, tree)


@dataclasses.dataclass(frozen=True)
class ChannelMajor:
    """A Layout of maps [C, H, W, B]. grouped: whether to take channels in groups."""

    grouped: bool = True

    def lacks(self, kernel_size: int, dtype: DTypeLike, map_size: tuple[int, int], platform: str) -> str | None:
        """See Layout: it can do everything, though nobody would want it on an accelerator."""

    def compiler_options(self, platform: str) -> dict[str, bool | int]:
        """See Layout."""
        return CPU_OPTIONS if platform == "cpu" else {}

    def loops_well(self, platform: str) -> bool:
        """See Layout."""
        return True

    def across_devices(self) -> "ChannelMajor":
        """See Layout: all channels at once, or each group would wait for sums of its own."""
        return dataclasses.replace(self, grouped=False)

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
        columns = cut.transpose(2, 4, 5, 1, 3, 0).reshape(-1, height * width * size)
        weights = in_rows(kernel.reshape(-1, channels).T.astype(images.dtype))
        product = jnp.matmul(weights, columns, preferred_element_type=wide(kernel).dtype)
        return product.reshape(channels, height, width, size).astype(images.dtype)

    def pool(self, x: jax.Array) -> jax.Array:
        """See Layout: [C, B]."""
        return x.mean((1, 2))

    def spread(self, pooled: jax.Array, like: jax.Array) -> jax.Array:
        """See Layout."""
        return jnp.broadcast_to(pooled[:, None, None, :], like.shape)

    def examples_first(self, pooled: jax.Array) -> jax.Array:
        """See Layout."""
        return pooled.T

    def kernel(self, kernel: jax.Array) -> jax.Array:
        """See Layout: [C, k, k]."""
        return jnp.moveaxis(kernel[:, :, 0], -1, 0)

    def channels(self, vector: jax.Array) -> jax.Array:
        """See Layout."""
        return vector[:, None, None, None] if vector.ndim == 1 else vector[:, None, None]

    def examples(self, vector: jax.Array) -> jax.Array:
        """See Layout."""
        return vector

    def size(self, x: jax.Array) -> int:
        """See Layout."""
        return x.size // len(x)

    def sample(self, x: jax.Array) -> jax.Array:
        """See Layout: the middle."""
        row, column = x.shape[1] // 2, x.shape[2] // 2
        return x[:, row : row + 1, column : column + 1]

    def sums(self, values: list[jax.Array], each_example: bool = False) -> list[jax.Array]:
        """See Layout."""
        values = [wide(value) for value in values]
        zeros = [jnp.zeros((), value.dtype) for value in values]
        over = tuple(range(1, values[0].ndim - each_example))
        return list(lax.reduce(values, zeros, lambda a, b: [x + y for x, y in zip(a, b, strict=True)], over))

    def store(self, x: jax.Array, after: jax.Array) -> jax.Array:
        """Returns x behind a loop of no turns, which owns its memory.

        Without it, XLA's CPU backend recomputes a depthwise product in each of its four or five users;
        `optimization_barrier` is gone by the time it decides so. The number of turns must not be known before; a
        turn that were made would leave a NaN.
        """
        turns = never(after).astype(jnp.int32)

        def body(i: jax.Array, array: jax.Array) -> jax.Array:
            start = (i, *[jnp.zeros_like(i)] * (array.ndim - 1))
            return lax.dynamic_update_slice(array, jnp.full((1,) * array.ndim, jnp.nan, array.dtype), start)

        return lax.fori_loop(0, turns, body, x)

    def by_groups(self, function: Callable[..., Any], *trees: Any) -> Any:
        """See Layout. The largest map decides how many channels are a group, and what dtype maps have.

        Within, maps are float32: rounding in the loop that computes a value keeps it from being vectorised.
        """
        leaves = jax.tree.leaves(trees)
        channels = len(leaves[0])
        # Of maps alone: a kernel, float32, may have more bytes than few small ones.
        largest = max((leaf for leaf in leaves if leaf.ndim == 4), key=lambda leaf: leaf.nbytes)
        sizes = [size for size in range(1, channels + 1) if channels % size == 0]
        per_channel = largest.size // channels * wide(largest).dtype.itemsize
        group = max(size for size in sizes if size == 1 or size * per_channel <= GROUP_BYTES)

        def widened(*group_of: Any) -> Any:
            results = function(*jax.tree.map(self.widen, group_of))
            return jax.tree.map(lambda leaf: self.narrow(leaf, largest.dtype), results)

        if not self.grouped or group == channels:
            return widened(*trees)
        split = jax.tree.map(lambda leaf: as_bits(leaf.reshape(-1, group, *leaf.shape[1:])), trees)
        results = lax.map(lambda bits: as_bits(widened(*as_floats(bits))), split)
        return as_floats(jax.tree.map(lambda leaf: leaf.reshape(channels, *leaf.shape[2:]), results))

    def widen(self, leaf: jax.Array) -> jax.Array:
        """Returns a leaf in float32 or wider, in memory if that is another."""
        return leaf if wide(leaf).dtype == leaf.dtype else self.store(wide(leaf), leaf)

    def narrow(self, leaf: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns a map in that dtype, anything else as it is."""
        return leaf if leaf.ndim < 4 or leaf.dtype == dtype else self.store(leaf, leaf).astype(dtype)

    def depthwise(self, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See Layout."""
        before, after = around(kernel.shape[1])
        padded = self.store(pad(x, before, after), kernel)
        return correlate(padded, kernel, x.shape), shifted(padded, before, before, x.shape).reshape(x.shape)

    def depthwise_grads(
        self, x: jax.Array, kernel: jax.Array, grad: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """See Layout."""
        k = kernel.shape[1]
        before, after = around(k)
        padded = self.store(pad(x, before, after), kernel)
        padded_grad = self.store(pad(grad, after, before), kernel)
        grad = shifted(padded_grad, after, after, x.shape)
        offsets = [(i, j) for i in range(k) for j in range(k)]
        sums = []
        for start in range(0, len(offsets), MOST_OUTPUTS - 1):
            part = offsets[start : start + MOST_OUTPUTS - 1]
            products = [shifted(padded, *offset, x.shape) * grad for offset in part]
            last = offsets[-1] in part
            sums += self.sums([*products, grad] if last else products)
        x_grad = correlate(padded_grad, kernel[:, ::-1, ::-1], x.shape)
        return x_grad, jnp.stack(sums[:-1], axis=1).reshape(kernel.shape), sums[-1]

    def product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """See Layout."""
        columns = x.reshape(len(x), -1)
        product = jnp.matmul(in_rows(kernel.T.astype(x.dtype)), columns, preferred_element_type=wide(kernel).dtype)
        return product.reshape(-1, *x.shape[1:]).astype(x.dtype)

    def product_grads(self, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See Layout."""
        columns, dtype = grad.reshape(len(grad), -1), wide(kernel).dtype
        kernel_grad = lax.dot_general(
            x.reshape(len(x), -1), columns, (((1,), (1,)), ((), ())), preferred_element_type=dtype
        )
        x_grad = jnp.matmul(kernel.astype(grad.dtype), columns, preferred_element_type=dtype)
        return x_grad.reshape(x.shape).astype(x.dtype), kernel_grad
