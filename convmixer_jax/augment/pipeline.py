"""The table of augmentations, and the pass that runs a recipe's choice of them over a batch.

    augment = make_augment(["pad_and_crop", "horizontal_flip"], settings)
    images = normalise(augment(key, uint8_images), mean, std, "float32")

To add one, write `name(key, images, *, ...)` on float images [B, H, W, C] of the scale 0-255, give it a row in
AUGMENTATIONS and its settings a group of the same name under `config.augment`.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax.typing import Dtype

from convmixer_jax.augment.crops import pad_and_crop, random_resized_crop
from convmixer_jax.augment.flips import horizontal_flip
from convmixer_jax.errors import UserError, lookup

AUGMENTATIONS: dict[str, Callable[..., jax.Array]] = {
    "pad_and_crop": pad_and_crop,
    "random_resized_crop": random_resized_crop,
    "horizontal_flip": horizontal_flip,
}


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: Dtype) -> jax.Array:
    """Maps images [B, H, W, C] of the scale 0-255 to (x / 255 - mean) / std per channel, in `dtype`."""
    wide = jnp.promote_types(dtype, jnp.float32)
    scaled = images.astype(wide) / 255
    return ((scaled - jnp.asarray(mean, wide)) / jnp.asarray(std, wide)).astype(dtype)


def make_augment(names: Sequence[str], settings: Mapping[str, Mapping]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns a function of (key, images uint8 [B, H, W, C]) to float32 images of the scale 0-255.

    names: rows of AUGMENTATIONS, applied in this order. settings: keyword arguments by name.
    Raises UserError, naming `config.augment.order`, for a name that is not in the table or stands there twice, which
    would make the same draws twice.
    """
    if len(set(names)) < len(names):
        raise UserError(f"config.augment.order is {names!r}: each augmentation may stand in it once")
    chosen = []
    for name in names:
        row = lookup(AUGMENTATIONS, name, "config.augment.order")
        chosen.append((zlib.crc32(name.encode()), functools.partial(row, **settings[name])))

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = images.astype(jnp.float32)
        for stream, apply in chosen:
            # Keyed by name, not by place: adding an augmentation leaves the draws of the others as they were.
            images = apply(jax.random.fold_in(key, stream), images)
        return images

    return augment
