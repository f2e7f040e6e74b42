"""Rectangles that are wiped out of images: random erasing on normalised images, cutout on grey levels.

`key` alone decides the draws, one set per image, so a batch comes out the same however it is sharded.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from convmixer_jax.augment.rectangles import rectangles
from convmixer_jax.errors import lookup

# How many boxes timm and torchvision try before they leave the image as it is.
ERASING_ATTEMPTS = 10

# What takes the place of the wiped pixels, from (key, shape of the batch), in units of the normalised images.
FILLS: dict[str, Callable[[jax.Array, tuple[int, ...]], jax.Array]] = {
    "pixel": lambda key, shape: jax.random.normal(key, shape),
    "channel": lambda key, shape: jax.random.normal(key, (shape[0], 1, 1, shape[3])),
    "constant": lambda key, shape: jnp.zeros((1, 1, 1, 1)),  # the mean colour
}


def draw_erased_boxes(
    key: jax.Array, batch: int, height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> jax.Array:
    """Draws boxes (top, left, height, width), int32 [B, 4], as timm's and torchvision's RandomErasing do.

    The area is uniform over `area` times the image's, the height-to-width ratio log-uniform over `aspect`; of ten
    tries the first that is smaller than the image in both directions is taken, at a uniformly drawn place. Where
    none is, all four numbers are 0.
    """
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    tries = (batch, ERASING_ATTEMPTS)
    pixels = height * width * jax.random.uniform(area_key, tries, minval=area[0], maxval=area[1])
    log_aspect = jnp.log(jnp.asarray(aspect))
    ratio = jnp.exp(jax.random.uniform(aspect_key, tries, minval=log_aspect[0], maxval=log_aspect[1]))
    size = jnp.round(jnp.sqrt(jnp.stack([pixels * ratio, pixels / ratio], axis=2))).astype(jnp.int32)
    limit = jnp.array([height, width])
    fits = (size < limit).all(axis=2)
    size = jnp.take_along_axis(size, fits.argmax(axis=1)[:, None, None], axis=1)[:, 0]

    room = limit - size
    corner = jnp.minimum(jnp.floor(jax.random.uniform(place_key, (batch, 2)) * (room + 1)).astype(jnp.int32), room)
    return jnp.where(fits.any(axis=1)[:, None], jnp.concatenate([corner, size], axis=1), 0)


def random_erasing(
    key: jax.Array,
    images: jax.Array,
    *,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
    fill: str,
) -> jax.Array:
    """Overwrites a random box of each image with the given probability; see `draw_erased_boxes`.

    images: normalised (mean 0, deviation 1 per channel), any float dtype [B, H, W, C]; shape and dtype are kept.
    area: share of the image, 0-1. aspect: height over width. timm erases with area (0.02, 1/3), aspect (0.3, 1/0.3),
    torchvision with (0.02, 0.33), (0.3, 3.3) and "constant".
    fill: "pixel" (a standard normal value per pixel and channel), "channel" (one per channel), "constant" (zero).
    Raises UserError, naming `config.augment.random_erasing.fill`, for any other. Paper: arXiv 1708.04896.
    """
    draw_fill = lookup(FILLS, fill, "config.augment.random_erasing.fill")
    batch, height, width, _ = images.shape
    coin_key, box_key, fill_key = jax.random.split(key, 3)
    boxes = draw_erased_boxes(box_key, batch, height, width, area, aspect)
    chosen = jax.random.uniform(coin_key, (batch, 1, 1, 1)) < probability
    # Drawn in float32 whatever the images are in: the values of a narrow dtype would have gaps, and other draws.
    values = draw_fill(fill_key, images.shape).astype(images.dtype)
    box = rectangles(boxes[:, :2], boxes[:, :2] + boxes[:, 2:], height, width)
    return jnp.where(chosen & box, values, images)


def cutout(key: jax.Array, images: jax.Array, *, half_side: int, probability: float) -> jax.Array:
    """Blackens a square of 2 * `half_side` pixels in each image with the given probability (arXiv 1708.04552).

    images: [B, H, W, C] of the scale 0-255. The centre is uniform over the pixels: of a square at the border only the
    part within the image is seen. It covers `half_side` rows above the centre's and, with it, as many from there on.
    """
    batch, height, width, _ = images.shape
    coin_key, centre_key = jax.random.split(key)
    centre = jax.random.randint(centre_key, (batch, 2), 0, jnp.array([height, width]))
    square = rectangles(centre - half_side, centre + half_side, height, width)
    chosen = jax.random.uniform(coin_key, (batch, 1, 1, 1)) < probability
    return jnp.where(chosen & square, 0, images)
