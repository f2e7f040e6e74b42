"""Affine warps of whole batches, as PIL.Image.transform(size, AFFINE, matrix) does them, and the matrices.

    turned = warp(images, rotate(degrees, height, width), interpolation="bilinear", fill=(0, 0, 0))

Images are float32 [B, H, W, C] of whole levels 0-255; so are the results. With truncate=False both may lie between
whole levels. Every image has a matrix of its own and reads nothing but itself.

What Pillow 13 was found to compute, by experiment:
- nearest: source coordinates in 16.16 fixed point, each coefficient rounded half up; a matrix without b and d takes
  another path, in floating point;
- bilinear and bicubic: floating point; the cubic has a = -1 (its resize has -0.5); the result is truncated, not
  rounded, so a result that is a whole level must not come out a little below it;
- a pixel whose source point lies outside the image keeps the fill; inside, taps beyond the edge repeat the edge.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from convmixer_jax.errors import UserError, lookup

# Taps along one axis, counted from the pixel at or before the source point.
TAPS = {"nearest": (0,), "bilinear": (0, 1), "bicubic": (-1, 0, 1, 2), "random": (-1, 0, 1, 2)}

# Whether the edge goes on outside.
EDGES = {"constant": False, "nearest": True}

FIXED_POINT = 1 << 16

# Height and width, in pixels, up to which products of coefficients and places are exact: see `_products`.
LONGEST_SIDE = 512

# Source points are a whole pixel, int32, and a part of the next in these units, int32. Pillow has them in float64;
# float32 alone would err by some 1e-6 of a pixel, which puts points on the other side of the image's edge.
PARTS = 1 << 28

Points = tuple[jax.Array, jax.Array]


def _fixed(*terms: jax.Array) -> jax.Array:
    """Returns the sum of the terms in 16.16 fixed point, int32, halves up.

    Whole numbers and fractions are summed apart: float32 has too few bits for both.
    """
    scaled = [term * FIXED_POINT for term in terms]
    whole = sum(jnp.floor(term).astype(jnp.int32) for term in scaled)
    rest = sum(term - jnp.floor(term) for term in scaled)
    return whole + jnp.floor(rest + 0.5).astype(jnp.int32)


def _products(coefficient: jax.Array, place: jax.Array) -> list[jax.Array]:
    """Returns two exact products that sum to coefficient * place; place: halves below 512, of 10 bits."""
    bits = jax.lax.bitcast_convert_type(coefficient, jnp.int32)
    high = jax.lax.bitcast_convert_type(bits & ~0x3FF, jnp.float32)
    return [high * place, (coefficient - high) * place]


def _source(matrices: jax.Array, height: int, width: int) -> tuple[Points, Points]:
    """Returns where the centres of the output's pixels are read, x and y, each (whole, parts) int32 [B, H, W]."""
    x, y = jnp.arange(width) + 0.5, jnp.arange(height)[:, None] + 0.5

    def combine(a: jax.Array, b: jax.Array, c: jax.Array) -> Points:
        # At most five parts below one: they fit into an int32.
        terms = [*_products(a, x), *_products(b, y), c]
        floors = [jnp.floor(term) for term in terms]
        whole = functools.reduce(operator.add, [floor.astype(jnp.int32) for floor in floors])
        rests = [(term - floor) * PARTS for term, floor in zip(terms, floors, strict=True)]
        parts = functools.reduce(operator.add, [rest.astype(jnp.int32) for rest in rests])
        return whole + parts // PARTS, parts % PARTS

    a, b, c, d, e, f = (matrices[:, i, None, None] for i in range(6))
    return combine(a, b, c), combine(d, e, f)


def _nearest_pixels(matrices: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Returns which pixel (x, y), int32 [B, H, W], may lie outside, "nearest" takes: see the module's docstring."""
    x, y = jnp.arange(width), jnp.arange(height)[:, None]
    a, b, c, d, e, f = (matrices[:, i, None, None] for i in range(6))
    fixed_x = _fixed(c, a / 2, b / 2) + _fixed(a) * x + _fixed(b) * y
    fixed_y = _fixed(f, d / 2, e / 2) + _fixed(d) * x + _fixed(e) * y
    (float_x, _), (float_y, _) = _source(matrices, height, width)
    straight = (b == 0) & (d == 0)
    return jnp.where(straight, float_x, fixed_x >> 16), jnp.where(straight, float_y, fixed_y >> 16)


def _gather(images: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns images[b, y, x], [B, H, W, C], for pixels int32 [B, H, W] inside the images; batched, never across.

    Packing the channels into one word, to read a pixel at once, made a bicubic warp three times slower on a CPU.
    """
    B, height, width, C = images.shape
    index = (y * width + x).reshape(B, height * width, 1)
    return jnp.take_along_axis(images.reshape(B, height * width, C), index, axis=1).reshape(images.shape)


def _curve(taps: list[jax.Array], d: jax.Array, interpolation: str, bicubic: jax.Array | None) -> jax.Array:
    """Interpolates between the taps, of TAPS, at distance d in 0-1 beyond tap 0.

    In powers of d: where all taps are equal the powers vanish, and the level comes out whole.
    """
    if interpolation == "bilinear":
        return taps[0] + d * (taps[1] - taps[0])
    before, here, after, beyond = taps
    first, second = after - before, 2 * (before - here) + after - beyond
    third = here - before + beyond - after
    if bicubic is not None:
        bicubic = bicubic[:, None, None, None]
        first = jnp.where(bicubic, first, after - here)
        second, third = jnp.where(bicubic, second, 0), jnp.where(bicubic, third, 0)
    return here + d * (first + d * (second + d * third))


def _interpolate(images: jax.Array, x: Points, y: Points, interpolation: str, bicubic: jax.Array | None) -> jax.Array:
    """Reads the images at points (x, y), levels clipped to 0-255; taps beyond the edge repeat it."""
    _, height, width, _ = images.shape

    def split(points: Points, size: int) -> tuple[list[jax.Array], jax.Array]:
        # Half a pixel back: from the centre of the pixel before to the point.
        whole, parts = points
        first = jnp.where(parts < PARTS // 2, whole - 1, whole)
        distance = ((parts + PARTS // 2) % PARTS).astype(jnp.float32) / PARTS
        return [jnp.clip(first + tap, 0, size - 1) for tap in TAPS[interpolation]], distance[..., None]

    (columns, dx), (rows, dy) = split(x, width), split(y, height)
    lines = [_curve([_gather(images, c, r) for c in columns], dx, interpolation, bicubic) for r in rows]
    return jnp.clip(_curve(lines, dy, interpolation, bicubic), 0, 255)


def warp(
    images: jax.Array,
    matrices: jax.Array,
    *,
    interpolation: str,
    fill: Sequence[float],
    edges: str = "constant",
    bicubic: jax.Array | None = None,
    truncate: bool = True,
) -> jax.Array:
    """Returns images whose pixel (x, y) is the input's at (a x + b y + c, d x + e y + f), centres at halves.

    matrices: float32 [B, 6], the rows (a, b, c, d, e, f). interpolation: "nearest", "bilinear", "bicubic", or "random":
    per image bicubic where `bicubic`, bool [B], says so, else bilinear. fill: levels per channel of what lies outside,
    unused with edges="nearest", where the edge goes on without end (SciPy's mode "nearest"). truncate: whether levels
    are truncated to whole ones, as Pillow does, which darkens what is interpolated by half a level; else they stay as
    they come out. Height and width: up to LONGEST_SIDE.
    Raises UserError for another interpolation, other edges or longer sides.
    """
    _, height, width, _ = images.shape
    if max(height, width) > LONGEST_SIDE:
        raise UserError(
            f"config.dataset has images of {height} x {width} pixels: rand_augment and affine warp sides of up to "
            f"{LONGEST_SIDE}; leave both out of config.augment.order"
        )
    lookup(TAPS, interpolation, "interpolation")
    repeat_edge = lookup(EDGES, edges, "edges")
    if interpolation == "nearest":
        x, y = _nearest_pixels(matrices, height, width)
        result = _gather(images, jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1))
    else:
        points = _source(matrices, height, width)
        (x, _), (y, _) = points
        result = _interpolate(images, *points, interpolation, bicubic if interpolation == "random" else None)
        result = jnp.trunc(result) if truncate else result
    if repeat_edge:
        return result
    inside = (0 <= x) & (x < width) & (0 <= y) & (y < height)
    return jnp.where(inside[..., None], result, jnp.asarray(fill, images.dtype))


def _matrices(*coefficients: jax.Array | float) -> jax.Array:
    """Returns coefficients (a, b, c, d, e, f), numbers or float [B], as float32 [B, 6]."""
    return jnp.stack(jnp.broadcast_arrays(*(jnp.asarray(c, jnp.float32) for c in coefficients)), axis=-1)


def shear_x(factor: jax.Array) -> jax.Array:
    """Returns matrices [B, 6] that move row y by factor * y pixels, about the top-left corner. factor: [B]."""
    return _matrices(1, factor, 0, 0, 1, 0)


def shear_y(factor: jax.Array) -> jax.Array:
    """Returns matrices [B, 6] that move column x by factor * x pixels, about the top-left corner. factor: [B]."""
    return _matrices(1, 0, 0, factor, 1, 0)


def translate(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns matrices [B, 6] that read x pixels further right and y further down. x, y: [B]; may be fractions."""
    return _matrices(1, 0, x, 0, 1, y)


def rotate(degrees: jax.Array, height: int, width: int) -> jax.Array:
    """Returns matrices [B, 6] that turn images counter-clockwise about their centre, as Image.rotate. degrees: [B].

    Pillow's sine is of float64: with "nearest", one pixel in a million comes from the neighbour of its source.
    """
    angle = jnp.radians(degrees.astype(jnp.float32))
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    # 1 - cos without the loss of digits, so that a small turn keeps its centre.
    less = 2 * jnp.sin(angle / 2) ** 2
    x, y = width / 2, height / 2
    return _matrices(cos, -sin, less * x + sin * y, sin, cos, less * y - sin * x)
