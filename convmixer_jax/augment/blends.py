"""Pillow's blends and small filters for whole batches: what ImageEnhance and ImageFilter do, per image.

Images are float32 [B, H, W, C] that hold whole levels 0-255, as `to_bytes` makes them: Pillow's pixels are bytes
between two operations, so every function here returns whole levels again. Nothing looks at another image.
"""

import functools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

# ITU-R 601 luma in 65,536ths, as Pillow's conversion from RGB to L has it; they sum to 65,536.
LUMA = (19595, 38470, 7471)


def to_bytes(images: jax.Array) -> jax.Array:
    """Rounds levels to whole ones, halves to even, and clips them to 0-255; float32, any shape."""
    return jnp.clip(jnp.round(images.astype(jnp.float32)), 0, 255)


def luma(images: jax.Array) -> jax.Array:
    """Returns Pillow's conversion to "L", [B, H, W, 1]; images of one channel are their own."""
    if images.shape[-1] == 1:
        return images
    red, green, blue = jnp.split(images.astype(jnp.int32), 3, axis=-1)
    total = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return jnp.right_shift(total + 0x8000, 16).astype(jnp.float32)


def mean_level(images: jax.Array) -> jax.Array:
    """Returns the mean of the luma rounded half up, [B, 1, 1, 1]: the grey that ImageEnhance.Contrast blends with.

    Summed in int32, which is exact up to 4 million pixels, so that a mean that ends in exactly one half goes up on
    every machine.
    """
    grey = luma(images).astype(jnp.int32)
    pixels = grey.shape[1] * grey.shape[2]
    total = grey.sum(axis=(1, 2, 3), keepdims=True)
    return ((2 * total + pixels) // (2 * pixels)).astype(jnp.float32)


def blend(base: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns Image.blend(base, image, factor): base + factor * (image - base), truncated and clipped to 0-255.

    base: whole levels of a shape that broadcasts to the images'. factor: float32 [B]; 0 gives the base, 1 the image,
    more goes beyond it.
    """
    factor = factor.astype(jnp.float32)[:, None, None, None]
    # Pillow rounds the product to float32, then the sum. A compiler may fuse the two into one rounding, which turns
    # a whole level into the one below. So the product is made of two that are exact, 15 and 9 bits of the factor
    # times 9 bits of difference: their sum is the rounded product whether or not anything is fused.
    bits = jax.lax.bitcast_convert_type(factor, jnp.int32)
    high = jax.lax.bitcast_convert_type(bits & ~0x1FF, jnp.float32)
    difference = images - base
    product = high * difference + (factor - high) * difference
    return jnp.clip(jnp.trunc(base + product), 0, 255)


def _box(images: jax.Array, reach: int) -> jax.Array:
    """Returns the sums over squares of 2 reach + 1 pixels around each, black outside: columns first, then rows."""
    for axis in (2, 1):
        size = images.shape[axis]
        padding = [(reach, reach) if i == axis else (0, 0) for i in range(images.ndim)]
        padded = jnp.pad(images, padding)
        shifted = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * reach + 1)]
        images = functools.reduce(operator.add, shifted)
    return images


def _mean_inside(images: jax.Array, total: jax.Array, weight: int, border: int) -> jax.Array:
    """Returns total / weight to the nearest level, halves up, and the images themselves along the border."""
    _, height, width, _ = images.shape
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    inside = (border <= rows) & (rows < height - border) & (border <= columns) & (columns < width - border)
    # Sums are whole. None over 13 ends in a half, and 16 is a power of two: no rounding crosses a whole level.
    return jnp.where(inside, jnp.floor((total + weight / 2) * (1 / weight)), images)


def smooth(images: jax.Array) -> jax.Array:
    """Returns ImageFilter.SMOOTH: the mean of 3 x 3 pixels, the middle five times; one pixel of border is copied."""
    return _mean_inside(images, _box(images, 1) + 4 * images, 13, 1)


def blur(images: jax.Array) -> jax.Array:
    """Returns ImageFilter.BLUR: the mean of the rim of 5 x 5 pixels; two pixels of border are copied."""
    return _mean_inside(images, _box(images, 2) - _box(images, 1), 16, 2)


# What ImageEnhance's Brightness, Contrast, Color and Sharpness blend an image with.
BASES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "brightness": lambda images: jnp.zeros((1, 1, 1, 1)),
    "contrast": mean_level,
    "color": luma,
    "sharpness": smooth,
}


def enhance(images: jax.Array, kind: jax.Array, factor: jax.Array, names: Sequence[str]) -> jax.Array:
    """Blends each image with the base that is meant for it: one blend, whichever bases there are.

    kind: int [B], which of `names` is meant. factor: float32 [B], of `blend`. Where that name is no row of BASES, or
    kind is none of them, the image stays as it is.
    """
    base, chosen = images, jnp.ones(len(images))  # a factor of 1 changes nothing
    for i, name in enumerate(names):
        if name in BASES:
            base = jnp.where((kind == i)[:, None, None, None], BASES[name](images), base)
            chosen = jnp.where(kind == i, factor, chosen)
    return blend(base, images, chosen)
