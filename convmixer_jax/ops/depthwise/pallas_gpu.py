"""The depthwise convolution as Pallas kernels for GPU (Triton): masked loads, rows reused from registers.

    y = correlate(x, kernel, before=4, interpret=False)
    dkernel = kernel_grad(x, g, 9, before=4, interpret=False)

A direct kernel would load a value for every product, and the caches deliver half as many values per cycle as the
arithmetic can take. So a program keeps a column of pixels in registers: for one column offset it loads each row once
and uses it for all k row offsets. Nothing is copied or padded in memory; what lies outside of the map is masked.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

# The block sizes are reasoned, not tuned: they were compiled for sm_90 without spilling, but never timed on a GPU.
# 64 channels are a whole cache line of 128 bytes in bfloat16.
CHANNELS = 64
# A thread of the forward pass holds ROWS sums and ROWS + k - 1 inputs of 4 values each: 107 registers at k 9 (ptxas).
ROWS, COLUMNS, VALUES_PER_THREAD = 8, 16, 4
# One of the kernel's gradient holds 3 k sums of 2 values each and the window of g: 125 registers at k 9 (ptxas). With
# three column offsets in a program, x and g are read ceil(k / 3) times in all.
GRAD_OFFSETS, GRAD_ROWS, GRAD_COLUMNS, GRAD_VALUES_PER_THREAD = 3, 4, 8, 2
# Parts of the batch that are summed side by side, then added up: several programs for each multiprocessor even at 256
# channels, and partial sums that are small beside the activations.
GRAD_PARTS = 64


def tile_size(columns: int, channels: int, most_columns: int) -> tuple[int, int]:
    """Returns columns and channels of a program for a map of so many, as powers of two, which Triton wants."""
    return min(most_columns, pl.next_power_of_2(columns)), min(CHANNELS, pl.next_power_of_2(channels))


def parameters(values: int, values_per_thread: int) -> plgpu.CompilerParams:
    """Returns as many warps, 1 to 8, as give each thread its share of the values of a tile; no pipelining."""
    warps = min(8, max(1, values // (32 * values_per_thread)))
    return plgpu.CompilerParams(num_warps=warps, num_stages=1)


def load_tile(
    ref: jax.Ref, image: jax.Array, row: jax.Array, columns: jax.Array, channels: jax.Array, inside: jax.Array | bool
) -> jax.Array:
    """Loads [columns, channels] of one row of [B, H, W, C]: zeros outside of the map and where not `inside`."""
    _, H, W, C = ref.shape
    columns, channels = columns[:, None], channels[None, :]
    mask = inside & (row >= 0) & (row < H) & (columns >= 0) & (columns < W) & (channels < C)
    return plgpu.load(ref.at[image, row, columns, channels], mask=mask, other=0)


def correlate_tile(
    x_ref: jax.Ref, kernel_ref: jax.Ref, y_ref: jax.Ref, *, before: int, tile: tuple[int, int, int]
) -> None:
    """Correlates a tile (rows, columns, channels) of one image."""
    _, H, W, C = x_ref.shape
    k = kernel_ref.shape[0]
    rows, width, lanes = tile
    tiles_across = pl.cdiv(W, width)
    position, image = pl.program_id(0), pl.program_id(2)
    row = position // tiles_across * rows
    columns = position % tiles_across * width + jnp.arange(width)
    channels = pl.program_id(1) * lanes + jnp.arange(lanes)

    def add_offsets(j: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        shifted = [
            load_tile(x_ref, image, row - before + r, columns + j - before, channels, True) for r in range(rows + k - 1)
        ]
        for i in range(k):
            weights = plgpu.load(kernel_ref.at[i, j, channels], mask=channels < C, other=0)[None, :]
            sums = tuple(total + shifted[r + i].astype(jnp.float32) * weights for r, total in enumerate(sums))
        return sums

    sums = lax.fori_loop(0, k, add_offsets, (jnp.zeros((width, lanes), jnp.float32),) * rows)
    inside = (columns < W)[:, None] & (channels < C)[None, :]
    for r, total in enumerate(sums):
        at = y_ref.at[image, row + r, columns[:, None], channels[None, :]]
        plgpu.store(at, total.astype(y_ref.dtype), mask=inside & (row + r < H))


def kernel_grad_part(
    x_ref: jax.Ref, g_ref: jax.Ref, sums_ref: jax.Ref, *, before: int, offsets: int, tile: tuple[int, int]
) -> None:
    """Sums over a part of the batch for all row offsets, `offsets` column offsets and a tile (columns, channels).

    It walks down a strip of each image: with the last k - 1 rows of g at hand, a row of x meets all k row offsets.
    """
    B, H, W, C = x_ref.shape
    parts, k = sums_ref.shape[:2]
    width, lanes = tile
    strips_across = pl.cdiv(W, width)
    strips_per_part = pl.cdiv(B * strips_across, parts)
    channels = pl.program_id(0) * lanes + jnp.arange(lanes)
    first = pl.program_id(1) * offsets
    part = pl.program_id(2)

    def add_strip(step: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        strip = part * strips_per_part + step
        image, inside = strip // strips_across, strip < B * strips_across
        columns = strip % strips_across * width + jnp.arange(width)

        def add_rows(step: jax.Array, carry: tuple[tuple[jax.Array, ...], ...]) -> tuple[tuple[jax.Array, ...], ...]:
            sums, window = list(carry[0]), carry[1]
            row = step * GRAD_ROWS
            window += tuple(load_tile(g_ref, image, row + r, columns, channels, inside) for r in range(GRAD_ROWS))
            for r in range(GRAD_ROWS):
                for j in range(offsets):
                    shifted = columns + first + j - before
                    x = load_tile(x_ref, image, row + r - before, shifted, channels, inside).astype(jnp.float32)
                    for i in range(k):  # x[row + r - before] is i rows below g[row + r - i], less `before`
                        sums[i * offsets + j] += x * window[k - 1 + r - i].astype(jnp.float32)
            return tuple(sums), window[GRAD_ROWS:]

        above = (jnp.zeros((width, lanes), g_ref.dtype),) * (k - 1)
        return lax.fori_loop(0, pl.cdiv(H + before, GRAD_ROWS), add_rows, (sums, above))[0]

    zeros = (jnp.zeros((width, lanes), jnp.float32),) * (k * offsets)
    sums = lax.fori_loop(0, strips_per_part, add_strip, zeros)
    for i in range(k):
        for j in range(offsets):
            at = sums_ref.at[part, i, first + j, channels]
            plgpu.store(at, sums[i * offsets + j].sum(axis=0), mask=(channels < C) & (first + j < k))


@functools.partial(jax.jit, static_argnames=("before", "interpret"))
def correlate(x: jax.Array, kernel: jax.Array, *, before: int, interpret: bool) -> jax.Array:
    """Correlates x, [B, H, W, C], with the kernel, [k, k, C], after `before` rows and columns of zeros; x's dtype."""
    B, H, W, C = x.shape
    width, lanes = tile_size(W, C, COLUMNS)
    rows = min(ROWS, H)
    return pl.pallas_call(
        functools.partial(correlate_tile, before=before, tile=(rows, width, lanes)),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        grid=(pl.cdiv(H, rows) * pl.cdiv(W, width), pl.cdiv(C, lanes), B),
        compiler_params=parameters(width * lanes, VALUES_PER_THREAD),
        interpret=interpret,
        name="depthwise_correlate",
    )(x, kernel.astype(x.dtype).astype(jnp.float32))


@functools.partial(jax.jit, static_argnames=("k", "before", "interpret"))
def kernel_grad(x: jax.Array, g: jax.Array, k: int, *, before: int, interpret: bool) -> jax.Array:
    """Returns the kernel's gradient, float32 [k, k, C], from x and g, [B, H, W, C]; the parts are added in order."""
    B, _, W, C = x.shape
    width, lanes = tile_size(W, C, GRAD_COLUMNS)
    offsets = min(GRAD_OFFSETS, k)
    parts = min(GRAD_PARTS, B * pl.cdiv(W, width))
    sums = pl.pallas_call(
        functools.partial(kernel_grad_part, before=before, offsets=offsets, tile=(width, lanes)),
        jax.ShapeDtypeStruct((parts, k, k, C), jnp.float32),
        grid=(pl.cdiv(C, lanes), pl.cdiv(k, offsets), parts),
        compiler_params=parameters(width * lanes, GRAD_VALUES_PER_THREAD),
        interpret=interpret,
        name="depthwise_kernel_grad",
    )(x, g)
    return sums.sum(axis=0)
