"""The depthwise convolution as Pallas kernels for TPU (Mosaic): one image and 128 channels in VMEM at a time.

    y = correlate(x, kernel, before=4, interpret=False)
    dkernel = kernel_grad(x, g, 9, before=4, interpret=False)
    reason = lacks(9, jnp.bfloat16, (32, 32))  # None: it fits

Channels lie in the lanes and columns in the sublanes. The map is copied as float32 into a scratch that is wider by
k - 1 rows and columns of zeros: an offset is then a load that starts some sublanes further, which the hardware does
at no extra cost for 32-bit values, and every product is a plain one of the vector unit. The grid walks over blocks of
channels and of images; a last block of less than 128 channels holds anything in the rest, which no channel mixes with.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

LANES, SUBLANES = 128, 8  # of a vector register of 32-bit values

# What the TPU compiler lets one kernel have of VMEM by default on v5e (16 MiB, as its refusals say), less an eighth for
# what it adds itself.
VMEM_BYTES = 14 * 2**20
# A step of the grid costs about 0.35 us; the products of 1,024 pixels keep the vector unit busy for longer even at k 3.
PIXELS_PER_STEP = 1024
# Registers that hold sums, of the 64 there are; the rest is for operands in flight. By the TPU compiler's schedule for
# v5e and k 9, 3.5 of the 4 arithmetic slots are then filled and nothing is spilled; with 32 sums 3.4 and 200 spills.
REGISTERS_FOR_SUMS = 16
# The kernel's gradient keeps k sums for each register of columns and adds several rows before it branches: 3.3 slots
# with 8 rows, 2.0 with one.
GRAD_REGISTERS, GRAD_ROWS = 18, 8


def lacks(k: int, dtype: DTypeLike, size: tuple[int, int]) -> str | None:
    """Returns None where an image of 128 channels fits into VMEM, else one line that says so."""
    needed = vmem_bytes(k, size, jnp.dtype(dtype).itemsize)
    if needed <= VMEM_BYTES:
        return None
    return (
        f"a {size[0]}x{size[1]} map and a {k}x{k} kernel take {needed / 2**20:.1f} MiB of VMEM on tpu: "
        f"Pallas has {VMEM_BYTES / 2**20:.0f}"
    )


def vmem_bytes(k: int, size: tuple[int, int], itemsize: int) -> int:
    """Returns what one image of 128 channels takes: two blocks, each twice to overlap copies, scratch and kernel."""
    H, W = size
    block = H * pl.align_to(W, SUBLANES * 4 // itemsize) * LANES * itemsize
    rows, columns = max(padded_size(size, k, before) for before in ((k - 1) // 2, k // 2))  # forward, input gradient
    scratch = rows * pl.align_to(columns, SUBLANES) * LANES * 4
    kernel = k * pl.align_to(k, SUBLANES) * LANES * 4
    return 4 * block + scratch + 2 * kernel


def padded_size(size: tuple[int, int], k: int, before: int) -> tuple[int, int]:
    """Returns rows and columns of the scratch. The map begins at a whole register, so that storing it is aligned."""
    H, W = size
    return H + k - 1, first_column(before) + W + k - 1 - before


def first_column(before: int) -> int:
    """Returns the column of the scratch at which the map begins."""
    return pl.align_to(before, SUBLANES)


def images_per_step(shape: tuple[int, ...], k: int, itemsize: int) -> int:
    """Returns the largest number of images that divides the batch, fits into VMEM and is not above PIXELS_PER_STEP."""
    B, H, W, _ = shape
    one = vmem_bytes(k, (H, W), itemsize)
    most = max(1, min(PIXELS_PER_STEP // (H * W), VMEM_BYTES // one))
    return max(n for n in range(1, min(B, most) + 1) if B % n == 0)


def strips(columns: int, registers: int) -> list[tuple[int, int]]:
    """Cuts the columns into (first, number) of at most `registers` vector registers each."""
    width = registers * SUBLANES
    return [(first, min(width, columns - first)) for first in range(0, columns, width)]


def fill(scratch: jax.Ref, x_ref: jax.Ref, image: jax.Array, before: int) -> None:
    """Copies an image of the block into the middle of the scratch, whose border is zero already."""
    _, H, W, _ = x_ref.shape

    def copy_row(row: jax.Array, _: None) -> None:
        left = first_column(before)
        scratch[before + row, left : left + W] = x_ref[image, row].astype(jnp.float32)

    lax.fori_loop(0, H, copy_row, None)


def correlate_block(x_ref: jax.Ref, kernel_ref: jax.Ref, y_ref: jax.Ref, scratch: jax.Ref, *, before: int) -> None:
    """Correlates a block of images [n, H, W, 128] with [k, k, 128]; the sums of some rows stay in registers."""
    n, H, W, _ = x_ref.shape
    k = kernel_ref.shape[0]
    left = first_column(before) - before
    scratch[...] = jnp.zeros_like(scratch)

    def correlate_image(image: jax.Array, _: None) -> None:
        fill(scratch, x_ref, image, before)
        for first, width in strips(W, REGISTERS_FOR_SUMS):
            rows = min(H, REGISTERS_FOR_SUMS // pl.cdiv(width, SUBLANES))

            def correlate_rows(
                step: jax.Array, _: None, first: int = first, width: int = width, rows: int = rows
            ) -> None:
                row = jnp.minimum(step * rows, H - rows)  # the last step may repeat rows of the one before

                def add_offsets(i: jax.Array, sums: jax.Array) -> jax.Array:
                    for j in range(k):
                        shifted = scratch[pl.ds(row + i, rows), left + first + j : left + first + j + width]
                        sums += shifted * kernel_ref[i, j : j + 1]
                    return sums

                sums = lax.fori_loop(0, k, add_offsets, jnp.zeros((rows, width, x_ref.shape[-1]), jnp.float32))
                y_ref[image, pl.ds(row, rows), first : first + width] = sums.astype(y_ref.dtype)

            lax.fori_loop(0, pl.cdiv(H, rows), correlate_rows, None)

    lax.fori_loop(0, n, correlate_image, None)


def kernel_grad_block(x_ref: jax.Ref, g_ref: jax.Ref, sums_ref: jax.Ref, scratch: jax.Ref, *, before: int) -> None:
    """Adds a block's part of the kernel's gradient to [k, k, 128], which stays in VMEM over all blocks of images."""
    n, H, W, _ = x_ref.shape
    k = sums_ref.shape[0]
    left = first_column(before) - before
    scratch[...] = jnp.zeros_like(scratch)

    @pl.when(pl.program_id(1) == 0)
    def start() -> None:
        sums_ref[...] = jnp.zeros_like(sums_ref)

    def add_image(image: jax.Array, _: None) -> None:
        fill(scratch, x_ref, image, before)
        for first, width in strips(W, max(1, GRAD_REGISTERS // k)):

            def add_kernel_row(i: jax.Array, _: None, first: int = first, width: int = width) -> None:
                def add_row(row: jax.Array | int, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
                    g = g_ref[image, row, first : first + width].astype(jnp.float32)
                    return tuple(
                        sums[j] + g * scratch[row + i, left + first + j : left + first + j + width] for j in range(k)
                    )

                def add_rows(step: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
                    for row in range(GRAD_ROWS):
                        sums = add_row(step * GRAD_ROWS + row, sums)
                    return sums

                sums = (jnp.zeros((width, x_ref.shape[-1]), jnp.float32),) * k
                sums = lax.fori_loop(0, H // GRAD_ROWS, add_rows, sums)
                for row in range(H // GRAD_ROWS * GRAD_ROWS, H):
                    sums = add_row(row, sums)
                for j, columns in enumerate(sums):
                    sums_ref[i, j : j + 1] += columns.sum(axis=0, keepdims=True)

            lax.fori_loop(0, k, add_kernel_row, None)

    lax.fori_loop(0, n, add_image, None)


@functools.partial(jax.jit, static_argnames=("before", "interpret"))
def correlate(x: jax.Array, kernel: jax.Array, *, before: int, interpret: bool) -> jax.Array:
    """Correlates x, [B, H, W, C], with the kernel, [k, k, C], after `before` rows and columns of zeros; x's dtype."""
    B, H, W, C = x.shape
    k = kernel.shape[0]
    lanes = min(C, LANES)
    n = images_per_step(x.shape, k, x.dtype.itemsize)
    images = pl.BlockSpec((n, H, W, lanes), lambda c, b: (b, 0, 0, c))
    return pl.pallas_call(
        functools.partial(correlate_block, before=before),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        grid=(pl.cdiv(C, lanes), B // n),
        in_specs=[images, pl.BlockSpec((k, k, lanes), lambda c, b: (0, 0, c))],
        out_specs=images,
        scratch_shapes=[pltpu.VMEM((*padded_size((H, W), k, before), lanes), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        cost_estimate=cost(x, k),
        interpret=interpret,
        name="depthwise_correlate",
    )(x, kernel.astype(x.dtype).astype(jnp.float32))


@functools.partial(jax.jit, static_argnames=("k", "before", "interpret"))
def kernel_grad(x: jax.Array, g: jax.Array, k: int, *, before: int, interpret: bool) -> jax.Array:
    """Returns the kernel's gradient, float32 [k, k, C], from x and g, [B, H, W, C]."""
    B, H, W, C = x.shape
    lanes = min(C, LANES)
    n = images_per_step(x.shape, k, x.dtype.itemsize)
    images = pl.BlockSpec((n, H, W, lanes), lambda c, b: (b, 0, 0, c))
    return pl.pallas_call(
        functools.partial(kernel_grad_block, before=before),
        jax.ShapeDtypeStruct((k, k, C), jnp.float32),
        grid=(pl.cdiv(C, lanes), B // n),
        in_specs=[images, images],
        out_specs=pl.BlockSpec((k, k, lanes), lambda c, b: (0, 0, c)),
        scratch_shapes=[pltpu.VMEM((*padded_size((H, W), k, before), lanes), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=cost(x, k),
        interpret=interpret,
        name="depthwise_kernel_grad",
    )(x, g)


def cost(x: jax.Array, k: int) -> pl.CostEstimate:
    """Tells XLA, which cannot look into a kernel, its products and its bytes: x, and y or g."""
    kernel_bytes = 4 * k * k * x.shape[-1]
    return pl.CostEstimate(
        flops=2 * k * k * x.size, transcendentals=0, bytes_accessed=2 * x.size * x.dtype.itemsize + kernel_bytes
    )
