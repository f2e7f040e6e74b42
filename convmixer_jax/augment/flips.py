"""Mirror images of whole batches."""

import jax
import jax.numpy as jnp


def horizontal_flip(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Mirrors each image [B, H, W, C] left to right with the given probability, one draw per image."""
    flip = jax.random.uniform(key, (len(images), 1, 1, 1)) < probability
    return jnp.where(flip, images[:, :, ::-1], images)
