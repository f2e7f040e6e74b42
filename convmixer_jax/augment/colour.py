"""Random changes of colour: torchvision's ColorJitter in Pillow's arithmetic, and Keras' channel shift.

Images are [B, H, W, C] of the scale 0-255; `key` alone decides the draws, one set per image, so a batch comes out the
same however it is sharded.
"""

import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from convmixer_jax.augment.blends import enhance, to_bytes
from convmixer_jax.errors import UserError

# Of the hues that are whole bytes, those that Pillow's arithmetic in float32 makes one less.
LOWERED_HUES = (*range(1, 32), *range(88, 105, 4), *range(129, 150, 2), *range(153, 210, 4), 176, 184)

# Rows of `blends.BASES`; the hue is no blend.
BLENDS = {"brightness": "brightness", "contrast": "contrast", "saturation": "color"}


def hue_of(images: jax.Array) -> jax.Array:
    """Returns the H of Pillow's convert("HSV"), int32 [B, H, W, 1], 0-255; images: whole levels [B, H, W, 3].

    The hue is 255 times a place on the circle that is a ratio of whole numbers, truncated. It is computed from those,
    which are exact in float32: a quotient that is rounded differently on another machine changes nothing.
    """
    red, green, blue = jnp.split(images, 3, axis=-1)
    high, low = images.max(-1, keepdims=True), images.min(-1, keepdims=True)
    chroma = high - low
    place = jnp.where(high == red, green - blue, jnp.where(high == green, blue - red, red - green))
    start = jnp.where(high == red, jnp.where(place < 0, 6, 0), jnp.where(high == green, 2, 4))
    place = 85 * (place + start * chroma)  # the hue is place / twice the chroma: at most 130,050 / 510
    twice = jnp.maximum(2 * chroma, 1)
    # A ratio that is not whole lies at least 1/510 below the next whole number: a hundred times its rounding.
    hue = jnp.floor(place / twice + 1e-3)
    lowered = np.isin(np.arange(256), LOWERED_HUES)
    is_whole = place == hue * twice
    return hue.astype(jnp.int32) - (is_whole & jnp.asarray(lowered)[hue.astype(jnp.int32)])


def shift_hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Turns the hue by `shift`, int32 [B], in 255ths of the circle modulo 256: torchvision's adjust_hue.

    images: whole levels float32 [B, H, W, 3]. To HSV and back in bytes, as Pillow does: not even 0 is without change.
    """
    hue = (hue_of(images) + shift[:, None, None, None]) & 255
    value, low = images.max(-1, keepdims=True), images.min(-1, keepdims=True)
    # 1/255 is farther from the next whole number than the quotient's rounding.
    saturation = jnp.floor(255 * (value - low) / jnp.maximum(value, 1) + 1e-3)
    # Each channel is the value less a part of the saturation, a trapezium around the circle in 85ths of a sixth; red,
    # green and blue see it from a third each. All products are whole and below 2^24.
    sector = (2 * hue + jnp.array([5, 3, 1]) * 85) % 510
    part = jnp.clip(jnp.minimum(sector, 340 - sector), 0, 85).astype(images.dtype)
    return jnp.round(value * (255 * 85 - saturation * part) / (255 * 85))


def _check_strengths(channels: int, strengths: Mapping[str, float]) -> None:
    """Raises UserError for a strength that has no meaning, or none for images of one channel."""
    for name, strength in strengths.items():
        field = f"config.augment.colour_jitter.{name} is {strength}"
        if strength < 0 or (name == "hue" and strength > 0.5):
            raise UserError(f"{field}: it must be at least 0{', and at most 0.5' if name == 'hue' else ''}")
        if channels == 1 and name in ("saturation", "hue") and strength > 0:
            raise UserError(f"{field}, but images of one channel have no colour: set it to 0")


def draw_jitter(key: jax.Array, batch: int, strengths: Mapping[str, float]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws what `colour_jitter` does to each image.

    strengths: above 0, of some of brightness, contrast, saturation and hue; where the hue is one, it comes last.
    Returns the order, int32 [parts, B], of places in `strengths`; the amounts, float32 [parts, B]: of a blend its
    factor, uniform over [max(0, 1 - strength), 1 + strength], of the hue a share of the circle, uniform over
    [-strength, strength]; and a uniform number [B] for whether it is done at all.
    """
    coin_key, order_key, amount_key = jax.random.split(key, 3)
    orders = jnp.array(list(itertools.permutations(range(len(strengths)))), jnp.int32)
    order = orders[jax.random.randint(order_key, (batch,), 0, len(orders))].T
    limits = [(-s, s) if name == "hue" else (max(0, 1 - s), 1 + s) for name, s in strengths.items()]
    low, high = jnp.array(limits, jnp.float32).T[:, :, None]
    amounts = jax.random.uniform(amount_key, (len(strengths), batch), minval=low, maxval=high)
    return order, amounts, jax.random.uniform(coin_key, (batch,))


def _blend_in_turns(images: jax.Array, names: Sequence[str], parts: jax.Array, factors: jax.Array) -> jax.Array:
    """Blends each image with the base of one part after the other, by that part's factor.

    names: rows of BLENDS. parts: int32 [turns, B], places in `names`; where it is none of them the image waits.
    factors: [names, B].
    """

    def one_turn(images: jax.Array, part: jax.Array) -> tuple[jax.Array, None]:
        factor = jnp.where(part == jnp.arange(len(names))[:, None], factors, 0).sum(axis=0)
        return enhance(images, part, factor, [BLENDS[name] for name in names]), None

    # A loop: unrolled, every turn is recomputed for each of its uses, and the program is 15 times slower on a CPU.
    return jax.lax.scan(one_turn, images, parts)[0]


def apply_jitter(images: jax.Array, names: Sequence[str], order: jax.Array, amounts: jax.Array) -> jax.Array:
    """Does what `draw_jitter` drew for `names` to images of whole levels, float32 [B, H, W, C]; so are the results."""
    if names[-1] != "hue":
        return _blend_in_turns(images, names, order, amounts)
    # The hue is computed once: each image has the blends of some turns before it, the others after.
    blends = names[:-1]
    early = jnp.arange(len(names))[:, None] < (order == len(blends)).argmax(axis=0)
    images = _blend_in_turns(images, blends, jnp.where(early, order, -1)[:-1], amounts[:-1])
    images = shift_hue(images, (255 * amounts[-1]).astype(jnp.int32))  # truncated, as torchvision does
    return _blend_in_turns(images, blends, jnp.where(early, -1, order)[1:], amounts[:-1])


def colour_jitter(
    key: jax.Array,
    images: jax.Array,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    probability: float,
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of each image in a random order, with the given probability.

    torchvision.transforms.ColorJitter on Pillow images: the first three blend with black, with the mean grey and with
    the grey image, the hue turns; `draw_jitter` says how far for which strength. Images that are changed are rounded to
    whole levels first. A strength of 0 leaves its part out. Raises UserError for a negative strength, a hue above 0.5,
    and for saturation or hue of images of one channel.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    _check_strengths(images.shape[-1], strengths)
    strengths = {name: strength for name, strength in strengths.items() if strength > 0}
    if not strengths:
        return images
    order, amounts, coin = draw_jitter(key, len(images), strengths)
    jittered = apply_jitter(to_bytes(images), list(strengths), order, amounts).astype(images.dtype)
    return jnp.where((coin < probability)[:, None, None, None], jittered, images)


def channel_shift(key: jax.Array, images: jax.Array, *, levels: float) -> jax.Array:
    """Adds one number, uniform over [-levels, levels], to all of an image: Keras' channel_shift_range.

    Clipped to the image's own lowest and highest level, over all channels, as Keras does.
    """
    shift = jax.random.uniform(key, (len(images), 1, 1, 1), minval=-levels, maxval=levels)
    lowest, highest = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
    return jnp.clip(images + shift, lowest, highest)
