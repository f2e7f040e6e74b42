"""Crops of whole batches: pad-and-crop, random-resized crop, and the resampling that the latter needs.

Every function maps images float [B, H, W, C] on the scale 0-255 to images of the same shape; `key` alone decides the
draws, one per image, so a batch comes out the same however it is sharded.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convmixer_jax.augment.boxes import ATTEMPTS, resized_boxes
from convmixer_jax.errors import lookup

PAD_MODES = {"zero": "constant", "reflect": "reflect"}


def pad_and_crop(key: jax.Array, images: jax.Array, *, pixels: int, mode: str) -> jax.Array:
    """Pads each side by `pixels` and cuts a box of the old size at a uniformly drawn place.

    mode: "zero" (black) or "reflect" (mirrored without the edge itself, as numpy.pad's "reflect"). Raises UserError for
    any other.
    """
    batch, height, width, channels = images.shape
    pad_mode = lookup(PAD_MODES, mode, "config.augment.pad_and_crop.mode")
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode=pad_mode)
    corners = jax.random.randint(key, (batch, 2), 0, 2 * pixels + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def draw_resized_boxes(
    key: jax.Array, batch: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> jax.Array:
    """Draws boxes (top, left, height, width), int32 [B, 4], see `resized_boxes`."""
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area, aspect = (jax.random.uniform(own_key, (batch, ATTEMPTS)) for own_key in (area_key, ratio_key))
    place = jax.random.uniform(place_key, (batch, 2))
    return resized_boxes(jnp, area, aspect, place, height, width, scale, ratio)


def triangle_kernel(x: jax.Array) -> jax.Array:
    """Bilinear interpolation: the tent of half-width 1."""
    return jnp.maximum(1 - jnp.abs(x), 0)


def cubic_kernel(x: jax.Array) -> jax.Array:
    """Bicubic interpolation with a = -0.5, as Pillow's: half-width 2."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


def either_kernel(x: jax.Array, bicubic: jax.Array) -> jax.Array:
    """The one or the other, as timm draws it for each image."""
    return jnp.where(bicubic, cubic_kernel(x), triangle_kernel(x))


# Functions of the distance and of what was drawn for the image: a boolean scalar that "random" alone looks at.
INTERPOLATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "bilinear": lambda x, bicubic: triangle_kernel(x),
    "bicubic": lambda x, bicubic: cubic_kernel(x),
    "random": either_kernel,
}


def resize_weights(start: jax.Array, length: jax.Array, size: int, interpolation: str, bicubic: jax.Array) -> jax.Array:
    """Returns the matrix [size, size] that resamples the pixels [start, start + length) of a line to `size` pixels.

    As Pillow's resize of the cut-out box: pixel centres at halves, the kernel widened by the scale where it shrinks
    (antialias), no pixel outside the box, weights that sum to one. start, length: integer scalars of one image;
    bicubic: a boolean one. Raises UserError for an interpolation that is no row of INTERPOLATIONS.
    """
    kernel = lookup(INTERPOLATIONS, interpolation, "config.augment.random_resized_crop.interpolation")
    source = jnp.arange(size)
    zoom = length / size
    centre = start + (jnp.arange(size) + 0.5) * zoom
    weights = kernel((source + 0.5 - centre[:, None]) / jnp.maximum(zoom, 1), bicubic)
    weights = jnp.where((source >= start) & (source < start + length), weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resize_boxes(
    images: jax.Array, boxes: jax.Array, interpolation: str, bicubic: jax.Array | None = None
) -> jax.Array:
    """Cuts `boxes` (top, left, height, width), int32 [B, 4], out of the images and resizes them to the full size.

    Two small matrix products per image instead of a gather: what accelerators do best. A bicubic kernel overshoots, so
    values are clipped to 0-255 after each of the two, as in Pillow, whose pixels are bytes in between.
    bicubic: bool [B], for "random" alone: which of the images get it. Raises UserError as `resize_weights` does.
    """
    batch, height, width, _ = images.shape

    def resize(image: jax.Array, box: jax.Array, bicubic: jax.Array) -> jax.Array:
        rows = resize_weights(box[0], box[2], height, interpolation, bicubic).astype(image.dtype)
        columns = resize_weights(box[1], box[3], width, interpolation, bicubic).astype(image.dtype)
        # The highest precision: an accelerator's default (TF32, bfloat16) would round grey levels.
        product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        narrow = jnp.clip(product("chw,xw->chx", image, columns), 0, 255)
        return jnp.clip(product("yh,chx->cyx", rows, narrow), 0, 255)

    # Channel by channel, since products over an axis in the middle take a fourth longer on a CPU.
    planes = images.transpose(0, 3, 1, 2)
    resized = jax.vmap(resize)(planes, boxes, jnp.zeros(batch, bool) if bicubic is None else bicubic)
    return resized.transpose(0, 2, 3, 1)


def random_resized_crop(
    key: jax.Array, images: jax.Array, *, scale: tuple[float, float], ratio: tuple[float, float], interpolation: str
) -> jax.Array:
    """Cuts a box of random area and shape and resizes it to the full size; see `draw_resized_boxes`.

    interpolation: "bilinear", "bicubic" or "random" (either, drawn per image), all with antialiasing. Raises UserError
    for any other.
    """
    batch, height, width, _ = images.shape
    box_key, method_key = jax.random.split(key)
    boxes = draw_resized_boxes(box_key, batch, height, width, scale, ratio)
    bicubic = jax.random.bernoulli(method_key, shape=(batch,))
    return resize_boxes(images, boxes, interpolation, bicubic)
