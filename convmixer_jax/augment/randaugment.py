"""RandAugment on whole batches, on the device: operations and strengths drawn per image, Pillow's meaning of each.

Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2019. The tables are
those of three libraries, see `policies`; the operations are in `operations`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from convmixer_jax.augment.blends import to_bytes
from convmixer_jax.augment.operations import apply
from convmixer_jax.augment.policies import TABLES
from convmixer_jax.augment.policy import FIELD, Magnitude, Policy
from convmixer_jax.augment.warps import TAPS
from convmixer_jax.errors import UserError, lookup


class OperationDraws(NamedTuple):
    """What is drawn for a batch, one row per operation in turn: arguments of `operations.apply`."""

    kind: jax.Array  # int32 [num_ops, B], index of the operation; -1: none
    value: jax.Array  # float32 [num_ops, B]
    bicubic: jax.Array  # bool [num_ops, B]
    place: jax.Array  # float32 [num_ops, B, 2] in 0-1


def draw_kinds(key: jax.Array, policy: Policy, batch: int) -> jax.Array:
    """Draws which operations, int32 [num_ops, B]: alike or by weight, with or without replacement."""
    count = len(policy.names)
    if not policy.distinct:
        return jax.random.randint(key, (policy.num_ops, batch), 0, count)
    # The largest of log weights with Gumbel noise are a draw without replacement, in the order of drawing.
    weights = jnp.asarray(policy.weights or (1.0,) * count)
    noisy = jnp.log(weights) + jax.random.gumbel(key, (batch, count))
    return jnp.argsort(noisy, axis=1, descending=True)[:, : policy.num_ops].T.astype(jnp.int32)


def draw_magnitudes(key: jax.Array, policy: Policy, shape: tuple[int, ...]) -> Magnitude:
    """Draws magnitudes of the shape; without noise it is the one number. Both are clipped as the policy says."""
    if policy.noise == 0:
        return max(0.0, min(policy.magnitude, policy.magnitude_max))
    if math.isinf(policy.noise):
        drawn = jax.random.uniform(key, shape, maxval=policy.magnitude)
    else:
        drawn = policy.magnitude + policy.noise * jax.random.normal(key, shape)
    return jnp.clip(drawn, 0, policy.magnitude_max)


def draw(key: jax.Array, policy: Policy, batch: int, height: int, width: int) -> OperationDraws:
    """Draws for `batch` images of one size, everything independently."""
    kind_key, coin_key, magnitude_key, sign_key, bicubic_key, place_key = jax.random.split(key, 6)
    shape = (policy.num_ops, batch)
    kind = draw_kinds(kind_key, policy, batch)
    magnitude = draw_magnitudes(magnitude_key, policy, shape)
    sign = jnp.where(jax.random.bernoulli(sign_key, shape=shape), 1.0, -1.0)
    value = jnp.zeros(shape)
    sides = {"translate_x": width, "translate_y": height}
    for i, (name, level) in enumerate(policy.levels.items()):
        strength = level.of(magnitude)
        if policy.whole_pixels and name in sides:
            strength = strength * sides[name] // 1 / sides[name]
        value = jnp.where(kind == i, level.value(strength, sign), value)
    done = jax.random.uniform(coin_key, shape) < policy.probability
    return OperationDraws(
        kind=jnp.where(done, kind, -1),
        value=value,
        bicubic=jax.random.bernoulli(bicubic_key, shape=shape),
        place=jax.random.uniform(place_key, (*shape, 2)),
    )


def _fill_levels(fill: Sequence[float], default: float, channels: int) -> tuple[float, ...]:
    if not fill:
        return (default,) * channels
    if len(fill) != channels or not all(0 <= level <= 255 for level in fill):
        raise UserError(
            f"{FIELD}.fill is {tuple(fill)!r}: {channels} grey levels from 0 to 255 are needed, one per channel, "
            f"or () for the table's own"
        )
    return tuple(fill)


def apply_draws(
    images: jax.Array, draws: OperationDraws, *, names: Sequence[str], interpolation: str, fill: Sequence[float]
) -> jax.Array:
    """Applies one operation after the other to images of whole levels, as `operations.apply`; so are the results.

    A scan, so that the operations are compiled once however many are drawn.
    """

    def step(images: jax.Array, drawn: OperationDraws) -> tuple[jax.Array, None]:
        kind, value, bicubic, place = drawn
        done = apply(
            images, kind, value, names=names, interpolation=interpolation, fill=fill, bicubic=bicubic, place=place
        )
        return done, None

    return jax.lax.scan(step, images, draws)[0]


def rand_augment(
    key: jax.Array,
    images: jax.Array,
    *,
    tables: str,
    policy: str,
    num_ops: int,
    magnitude: float,
    interpolation: str,
    fill: Sequence[float],
) -> jax.Array:
    """Applies randomly drawn operations to each image, float [B, H, W, 3] on 0-255; returns whole levels, float32.

    tables: a row of TABLES. policy: timm's string, which says everything there. num_ops, magnitude: operations per
    image and their strength, 0-30, in the other tables. interpolation: of warps: "nearest", "bilinear", "bicubic",
    "random" (bilinear or bicubic per image and operation) or "default", the table's own. fill: a level 0-255 per
    channel for what a warp or cutout leaves empty; () for the table's own.
    Raises UserError, naming the field, for a value that its table does not accept, for images without colour, and for
    sides too long for `warp`.
    """
    B, height, width, channels = images.shape
    if channels != 3:
        raise UserError(
            f"rand_augment needs images of 3 channels, not {channels}: its operations on colour mean nothing else; "
            "take rand_augment out of config.augment.order"
        )
    chosen = lookup(TABLES, tables, f"{FIELD}.tables")(policy, num_ops, magnitude)
    methods = {"default": chosen.interpolation} | {name: name for name in TAPS}
    method = lookup(methods, interpolation, f"{FIELD}.interpolation")
    levels = _fill_levels(fill, chosen.fill, channels)
    draws = draw(key, chosen, B, height, width)
    return apply_draws(to_bytes(images), draws, names=chosen.names, interpolation=method, fill=levels)
