"""The operations of RandAugment's tables, applied to whole batches: another operation for every image, few passes.

    images = apply(images, kind, value, names=("rotate", "color"), interpolation="nearest", fill=(0, 0, 0))

Running every operation on every image would cost twenty times the work. Instead the operations are grouped by what
they share: a lookup of levels, a blend, an affine warp, filters, a square. Each pass runs once over the batch,
and every image takes the result of the pass that it is meant for. A pass that no possible operation needs is left out
of the program.

Images are float32 [B, H, W, 3] of whole levels 0-255; so are the results. No operation looks at another image.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from convmixer_jax.augment import blends, warps
from convmixer_jax.augment.rectangles import rectangles

LEVELS = 256


@dataclasses.dataclass(frozen=True)
class Operation:
    """In which pass an operation is done, and what its value means."""

    group: str  # "none", "point", "blend", "warp", "filter" or "square"
    value: str  # meaning and unit; "" where it has no value


OPERATIONS = {
    "identity": Operation("none", ""),
    "auto_contrast": Operation("point", ""),
    "equalize": Operation("point", ""),
    "invert": Operation("point", ""),
    "posterize": Operation("point", "bits that are kept: 8 or more change nothing, 0 or fewer give black"),
    "solarize": Operation("point", "levels from this one on are inverted: 256 or more changes nothing"),
    "solarize_add": Operation("point", "whole levels that are added to those below 128"),
    "brightness": Operation("blend", "factor of ImageEnhance: 0 is black, 1 changes nothing"),
    "contrast": Operation("blend", "factor of ImageEnhance: 0 is the mean level everywhere, 1 changes nothing"),
    "color": Operation("blend", "factor of ImageEnhance: 0 is grey, 1 changes nothing"),
    "sharpness": Operation("blend", "factor of ImageEnhance: 0 is smooth, 1 changes nothing"),
    "shear_x": Operation("warp", "pixels to the left per row down"),
    "shear_y": Operation("warp", "pixels up per column to the right"),
    "translate_x": Operation("warp", "share of the width, to the left"),
    "translate_y": Operation("warp", "share of the height, up"),
    "rotate": Operation("warp", "degrees counter-clockwise about the centre"),
    "blur": Operation("filter", ""),
    "smooth": Operation("filter", ""),
    "cutout": Operation("square", "side of a filled square as a share of the height"),
}


def _cumulative(images: jax.Array) -> jax.Array:
    """Returns how many pixels of each channel have at most each level, int32 [B, C, 256]."""
    B, _, _, C = images.shape
    pixels = images.astype(jnp.int32).reshape(B, -1, C).swapaxes(1, 2)
    # Two nested maps, so that image and channel are batch axes of the scatter, which may then be sharded freely.
    histogram = jax.vmap(jax.vmap(lambda levels: jnp.zeros(LEVELS, jnp.int32).at[levels].add(1)))
    return jnp.cumsum(histogram(pixels), axis=-1)


def _equalized(cumulative: jax.Array) -> jax.Array:
    """Returns the lookup of ImageOps.equalize per channel, int32 [B, C, 256]."""
    below = jnp.pad(cumulative[..., :-1], ((0, 0), (0, 0), (1, 0)))
    # All pixels but those of the brightest level that occurs, shared out among 255 steps.
    pixels = cumulative[..., -1:]
    shared = jnp.max(cumulative, axis=-1, keepdims=True, where=cumulative < pixels, initial=0)
    step = shared // (LEVELS - 1)
    lookup = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), LEVELS - 1)
    return jnp.where(step > 0, lookup, jnp.arange(LEVELS))


def _stretched(cumulative: jax.Array) -> jax.Array:
    """Returns the lookup of ImageOps.autocontrast per channel, int32 [B, C, 256].

    In whole numbers. Where a level falls exactly on another, Pillow's float64 may come out just below and lose one
    level: so it does with 0.4 % of all levels and ranges.
    """
    low = (cumulative == 0).sum(axis=-1, keepdims=True)
    high = (cumulative < cumulative[..., -1:]).sum(axis=-1, keepdims=True)
    level = jnp.arange(LEVELS)
    lookup = jnp.clip((level - low) * (LEVELS - 1) // jnp.maximum(high - low, 1), 0, LEVELS - 1)
    return jnp.where(high > low, lookup, level)


def _posterized(value: jax.Array) -> jax.Array:
    dropped = jnp.clip(8 - value.astype(jnp.int32), 0, 8)
    return jnp.arange(LEVELS) >> dropped << dropped


def _solarized(value: jax.Array) -> jax.Array:
    level = jnp.arange(LEVELS)
    return jnp.where(level < value, level, LEVELS - 1 - level)


def _dark_levels_raised(value: jax.Array) -> jax.Array:
    level = jnp.arange(LEVELS)
    added = jnp.minimum(level + value.astype(jnp.int32), LEVELS - 1)
    return jnp.where(level < LEVELS // 2, added, level)


# Lookups that depend on how often each level occurs: from the result of `_cumulative` to int32 [B, C, 256].
COUNTED = {"auto_contrast": _stretched, "equalize": _equalized}

# Lookups that depend on the value alone: from float32 [B, 1, 1] to int32 that broadcasts to [B, C, 256].
FIXED: dict[str, Callable[[jax.Array], jax.Array]] = {
    "invert": lambda _: LEVELS - 1 - jnp.arange(LEVELS),
    "posterize": _posterized,
    "solarize": _solarized,
    "solarize_add": _dark_levels_raised,
}

# Matrices of values [B] and the images' height and width.
MATRICES: dict[str, Callable[[jax.Array, int, int], jax.Array]] = {
    "shear_x": lambda value, *_: warps.shear_x(value),
    "shear_y": lambda value, *_: warps.shear_y(value),
    "translate_x": lambda value, _, width: warps.translate(_pixels(value, width), jnp.zeros_like(value)),
    "translate_y": lambda value, height, _: warps.translate(jnp.zeros_like(value), _pixels(value, height)),
    "rotate": warps.rotate,
}

FILTERS = {"blur": blends.blur, "smooth": blends.smooth}


def _pixels(share: jax.Array, side: int) -> jax.Array:
    """Returns share * side; what misses a whole number of pixels by float32's rounding alone is that number."""
    pixels = share * side
    whole = jnp.round(pixels)
    return jnp.where(jnp.abs(pixels - whole) <= side * 2.0**-23, whole, pixels)


def _point(images: jax.Array, kind: jax.Array, value: jax.Array, names: Sequence[str]) -> jax.Array:
    B, height, width, C = images.shape
    table = jnp.broadcast_to(jnp.arange(LEVELS), (B, C, LEVELS))
    cumulative = _cumulative(images) if any(name in COUNTED for name in names) else table
    for i, name in enumerate(names):
        chosen = (kind == i)[:, None, None]
        if name in COUNTED:
            table = jnp.where(chosen, COUNTED[name](cumulative), table)
        elif name in FIXED:
            table = jnp.where(chosen, FIXED[name](value[:, None, None]), table)
    index = images.astype(jnp.int32).reshape(B, height * width, C)
    looked_up = jnp.take_along_axis(table.swapaxes(1, 2), index, axis=1)
    return looked_up.reshape(images.shape).astype(images.dtype)


def _warp_matrices(kind: jax.Array, value: jax.Array, names: Sequence[str], height: int, width: int) -> jax.Array:
    matrices = warps.translate(jnp.zeros_like(value), jnp.zeros_like(value))
    for i, name in enumerate(names):
        if name in MATRICES:
            matrices = jnp.where((kind == i)[:, None], MATRICES[name](value, height, width), matrices)
    return matrices


def _filter(images: jax.Array, kind: jax.Array, names: Sequence[str]) -> jax.Array:
    result = images
    for i, name in enumerate(names):
        if name in FILTERS:
            result = jnp.where((kind == i)[:, None, None, None], FILTERS[name](images), result)
    return result


def fill_square(images: jax.Array, share: jax.Array, place: jax.Array | None, fill: Sequence[float]) -> jax.Array:
    """Fills one square per image, clipped at the image's edges.

    share: float [B], the side as a share of the height; 0 fills nothing. place: float [B, 2] in 0-1, the centre (y, x)
    as shares of height and width; None is the middle. fill: a level 0-255 per channel. Edges of the square are rounded
    to whole pixels.
    """
    _, height, width, _ = images.shape
    if place is None:
        place = jnp.full((len(images), 2), 0.5)
    centre, half = place * jnp.array([height, width]), (share * height / 2)[:, None]
    square = rectangles(jnp.round(centre - half), jnp.round(centre + half), height, width)
    return jnp.where(square, jnp.asarray(fill, images.dtype), images)


def apply(
    images: jax.Array,
    kind: jax.Array,
    value: jax.Array,
    *,
    names: Sequence[str],
    interpolation: str,
    fill: Sequence[float],
    bicubic: jax.Array | None = None,
    place: jax.Array | None = None,
) -> jax.Array:
    """Applies one operation to each image, and returns images of the same shape, range and dtype.

    images: float32 [B, H, W, 3] of whole levels 0-255. kind: int [B], which of `names`, rows of OPERATIONS, is meant;
    -1 changes nothing. value: float32 [B], see OPERATIONS. names: the only operations that can occur. interpolation,
    fill and, for "random", bicubic bool [B]: see `warp`. fill is a cutout's too, and place, float [B, 2], its centre;
    without one it is the middle.
    Raises UserError as `warp` does, where one of `names` is a warp.
    """
    warp = functools.partial(warps.warp, interpolation=interpolation, fill=fill, bicubic=bicubic)
    passes: dict[str, Callable[[], jax.Array]] = {
        "point": lambda: _point(images, kind, value, names),
        "blend": lambda: blends.enhance(images, kind, value, names),
        "filter": lambda: _filter(images, kind, names),
        "warp": lambda: warp(images, _warp_matrices(kind, value, names, *images.shape[1:3])),
        "square": lambda: fill_square(images, value, place, fill),
    }
    # Every pass starts from the images as they came, since each image is changed by one pass at most. In a chain a
    # compiler recomputes the first passes at every pixel that a filter or an interpolation looks at.
    result = images
    for group, run in passes.items():
        members = [i for i, name in enumerate(names) if OPERATIONS[name].group == group]
        if members:
            concerned = jnp.isin(kind, jnp.asarray(members))
            result = jnp.where(concerned[:, None, None, None], run(), result)
    return result
