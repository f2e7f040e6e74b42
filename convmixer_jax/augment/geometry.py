"""Keras' geometric augmentation: a turn, a shift and a zoom in one warp of the batch."""

import jax
import jax.numpy as jnp

from convmixer_jax.augment.warps import EDGES, warp
from convmixer_jax.errors import lookup

# Those of `warp` that need no draw of their own.
INTERPOLATIONS = {name: name for name in ("nearest", "bilinear", "bicubic")}

# Angles, shifts and zooms: see `draw_affine`.
AffineDraws = tuple[jax.Array, jax.Array, jax.Array]


def draw_affine(key: jax.Array, batch: int, rotation: float, shift: float, zoom: float) -> AffineDraws:
    """Draws angles in degrees [B], shifts as shares of the sides [B, 2] and zooms [B, 2], both as (x, y).

    Uniform over [-rotation, rotation], [-shift, shift] and [1 - zoom, 1 + zoom].
    """
    draws = jax.random.uniform(key, (batch, 5), minval=-1, maxval=1)
    return rotation * draws[:, 0], shift * draws[:, 1:3], 1 + zoom * draws[:, 3:]


def affine_matrices(degrees: jax.Array, shifts: jax.Array, zooms: jax.Array, height: int, width: int) -> jax.Array:
    """Returns the matrices of `warp`, float32 [B, 6], for what `draw_affine` drew.

    As Keras' apply_affine_transform: an output pixel at p reads the input at turn(zoom * p + shift), both seen from the
    centre of the image. So the zoom is along the sides of the output and above 1 shrinks what is seen.
    """
    angle = jnp.radians(degrees)
    sin, cos, zero = jnp.sin(angle), jnp.cos(angle), jnp.zeros_like(angle)
    turn = jnp.stack([jnp.stack([cos, -sin], axis=1), jnp.stack([sin, cos], axis=1)], axis=1)
    centre = jnp.array([width / 2, height / 2])
    moved = shifts * jnp.array([width, height]) - zooms * centre
    zoom_and_shift = jnp.stack([zooms[:, 0], zero, moved[:, 0], zero, zooms[:, 1], moved[:, 1]], axis=1)
    # As a product of matrices: single sums would be fused into the warp, and recomputed for all that it reads.
    product = jnp.matmul(turn, zoom_and_shift.reshape(-1, 2, 3), precision=jax.lax.Precision.HIGHEST)
    return product.at[:, :, 2].add(centre).reshape(-1, 6)


def affine(
    key: jax.Array,
    images: jax.Array,
    *,
    rotation: float,
    shift: float,
    zoom: float,
    interpolation: str,
    edges: str,
) -> jax.Array:
    """Turns, shifts and zooms each image [B, H, W, C] of the scale 0-255 about its centre, all in one warp.

    As Keras' ImageDataGenerator with rotation_range, width_shift_range, height_shift_range and zoom_range: an angle
    uniform over [-rotation, rotation] degrees, for each axis a shift uniform over [-shift, shift] of its side and a
    scale uniform over [1 - zoom, 1 + zoom], composed in this order. Keras takes width for height and the reverse where
    the two differ; here each axis has its own side.
    interpolation: "bilinear" (Keras' order 1), "nearest" (its order 0) or "bicubic" (Pillow's: no spline). edges: what
    lies outside is the nearest pixel of the edge with "nearest", Keras' default, or black with "constant"; there
    Keras blackens half a pixel more on each side. As in Keras, levels between whole ones are kept, before and after, so
    that the mean level is too; only a bicubic overshoot is clipped to 0-255.
    Raises UserError for any other name of the two, and for sides too long for `warp`.
    """
    lookup(INTERPOLATIONS, interpolation, "config.augment.affine.interpolation")
    lookup(EDGES, edges, "config.augment.affine.edges")
    batch, height, width, channels = images.shape
    matrices = affine_matrices(*draw_affine(key, batch, rotation, shift, zoom), height, width)
    warped = warp(
        images.astype(jnp.float32),
        matrices,
        interpolation=interpolation,
        fill=(0,) * channels,
        edges=edges,
        truncate=False,
    )
    return warped.astype(images.dtype)
