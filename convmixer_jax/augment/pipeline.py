"""The table of augmentations, and the pass that runs a recipe's choice of them over a batch.

    augment = make_augment(["pad_and_crop", "horizontal_flip", "random_erasing"], settings, to_input)
    images = augment(key, uint8_images)          # normalised

To add one, write `name(key, images, *, ...)` on images [B, H, W, C], give it a row in AUGMENTATIONS that says whether
it works on grey levels or on normalised images, and give its settings a group of the same name under `config.augment`.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax.typing import Dtype

from convmixer_jax.augment.colour import channel_shift, colour_jitter
from convmixer_jax.augment.crops import pad_and_crop, random_resized_crop
from convmixer_jax.augment.erasing import cutout, random_erasing
from convmixer_jax.augment.flips import horizontal_flip
from convmixer_jax.augment.geometry import affine
from convmixer_jax.augment.randaugment import rand_augment
from convmixer_jax.errors import UserError, lookup


@dataclasses.dataclass(frozen=True)
class Row:
    """apply: (key, images, settings by keyword) to images of the same shape.

    on_levels: it works on float images of the scale 0-255, before normalisation; else on normalised ones, after it.
    """

    apply: Callable[..., jax.Array]
    on_levels: bool = True


AUGMENTATIONS: dict[str, Row] = {
    "pad_and_crop": Row(pad_and_crop),
    "random_resized_crop": Row(random_resized_crop),
    "horizontal_flip": Row(horizontal_flip),
    "rand_augment": Row(rand_augment),
    "colour_jitter": Row(colour_jitter),
    "affine": Row(affine),
    "channel_shift": Row(channel_shift),
    "cutout": Row(cutout),
    "random_erasing": Row(random_erasing, on_levels=False),
}

Images = Callable[[jax.Array], jax.Array]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: Dtype) -> jax.Array:
    """Maps images [B, H, W, C] of the scale 0-255 to (x / 255 - mean) / std per channel, in `dtype`."""
    wide = jnp.promote_types(dtype, jnp.float32)
    scaled = images.astype(wide) / 255
    return ((scaled - jnp.asarray(mean, wide)) / jnp.asarray(std, wide)).astype(dtype)


def check_order(names: Sequence[str]) -> None:
    """Raises UserError, naming `config.augment.order`, for an order that cannot be.

    A name that is not in the table; one that stands there twice, which would make the same draws twice; one of grey
    levels behind one of normalised images.
    """
    rows = [lookup(AUGMENTATIONS, name, "config.augment.order") for name in names]
    if len(set(names)) < len(names):
        raise UserError(f"config.augment.order is {names!r}: each augmentation may stand in it once")
    late = [name for i, name in enumerate(names) if rows[i].on_levels and not all(row.on_levels for row in rows[:i])]
    if late:
        behind = next(name for name, row in zip(names, rows, strict=True) if not row.on_levels)
        raise UserError(
            f"config.augment.order is {names!r}: {behind} works on normalised images, so {late[0]} must stand before it"
        )


def make_augment(names: Sequence[str], settings: Mapping[str, Mapping], to_input: Images) -> Augment:
    """Returns a function of (key, images uint8 [B, H, W, C]) to normalised images.

    names: rows of AUGMENTATIONS, applied in this order. settings: keyword arguments by name. to_input: what comes
    between those on grey levels and those on normalised images, `normalise` with its numbers.
    Raises UserError as `check_order` does; the function one for settings or a shape of images that one of `names` does
    not accept.
    """
    check_order(names)

    def apply(images: jax.Array, key: jax.Array, on_levels: bool) -> jax.Array:
        for name in names:
            row = AUGMENTATIONS[name]
            if row.on_levels == on_levels:
                # Keyed by name, not by place: adding an augmentation leaves the draws of the others as they were.
                own_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
                images = functools.partial(row.apply, **settings[name])(own_key, images)
        return images

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        levels = apply(images.astype(jnp.float32), key, on_levels=True)
        return apply(to_input(levels), key, on_levels=False)

    return augment
