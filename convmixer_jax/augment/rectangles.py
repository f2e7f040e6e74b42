"""Which pixels lie in a rectangle: for what is wiped out of images, filled or taken from another one."""

import jax
import jax.numpy as jnp


def rectangles(low: jax.Array, high: jax.Array, height: int, width: int) -> jax.Array:
    """Returns bool [B, H, W, 1], True for pixels from `low` up to and without `high`.

    low, high: whole numbers [B, 2], (row, column); they may lie outside the image. Nothing is True where `high` is not
    above `low`.
    """
    row, column = jnp.arange(height), jnp.arange(width)
    rows = (low[:, :1] <= row) & (row < high[:, :1])
    columns = (low[:, 1:] <= column) & (column < high[:, 1:])
    return rows[:, :, None, None] & columns[:, None, :, None]
