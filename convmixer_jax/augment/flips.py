"""Mirror images of whole batches."""

import jax
import jax.numpy as jnp


def horizontal_flip(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Mirrors each image left to right with the given probability, one draw per image.

    images: [B, H, W, C] of any range and dtype, which are kept. probability: 0-1.
    """
    flip = jax.random.uniform(key, (len(images), 1, 1, 1)) < probability
    return jnp.where(flip, images[:, :, ::-1], images)
