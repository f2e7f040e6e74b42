"""Boxes of random area and shape, by the same arithmetic on devices and on the host.

    boxes = resized_boxes(jnp, area, aspect, place, 32, 32, scale=(0.75, 1.0), ratio=(3 / 4, 4 / 3))
    boxes = resized_boxes(np, area, aspect, place, heights, widths, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))

The draws come as arguments: each side has a generator of its own.
"""

import math
from typing import Any

# How many boxes torchvision and timm try before they fall back to the centre of the image.
ATTEMPTS = 10


def resized_boxes(
    xp: Any,
    area: Any,
    aspect: Any,
    place: Any,
    height: Any,
    width: Any,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Any:
    """Returns boxes (top, left, height, width), int32 [B, 4], as torchvision's RandomResizedCrop draws them.

    The area is uniform over `scale` times the image's, the width-to-height ratio log-uniform over `ratio`; of all tries
    the first that fits is taken, else the largest centred box whose ratio is within `ratio`.
    xp: numpy or jax.numpy. area, aspect: uniform draws in [0, 1), [B, ATTEMPTS]; place: the same, [B, 2]. height,
    width: of the images in pixels, integers [B], or one for all.
    """
    height, width = (xp.broadcast_to(xp.asarray(side), area.shape[:1]) for side in (height, width))
    pixels = (height * width)[:, None] * (scale[0] + area * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = xp.exp(low + aspect * (high - low))
    tried_w = xp.round(xp.sqrt(pixels * shape)).astype(xp.int32)
    tried_h = xp.round(xp.sqrt(pixels / shape)).astype(xp.int32)
    fits = (0 < tried_w) & (tried_w <= width[:, None]) & (0 < tried_h) & (tried_h <= height[:, None])
    first, any_fits = xp.argmax(fits, axis=1)[:, None], fits.any(axis=1)

    widest = xp.maximum(1, xp.round(height * ratio[1]))
    highest = xp.maximum(1, xp.round(width / ratio[0]))
    fallback_w = xp.where(width / height > ratio[1], widest, width).astype(xp.int32)
    fallback_h = xp.where(width / height < ratio[0], highest, height).astype(xp.int32)
    box_w = xp.where(any_fits, xp.take_along_axis(tried_w, first, axis=1)[:, 0], fallback_w)
    box_h = xp.where(any_fits, xp.take_along_axis(tried_h, first, axis=1)[:, 0], fallback_h)

    room = xp.stack([height - box_h, width - box_w], axis=1).astype(xp.int32)
    drawn = xp.minimum(xp.floor(place * (room + 1)).astype(xp.int32), room)
    corner = xp.where(any_fits[:, None], drawn, room // 2)
    return xp.concatenate([corner, box_h[:, None], box_w[:, None]], axis=1)
