"""Mixing of examples and their targets: mixup and cutmix, on a batch of normalised images.

    mix = make_mix(mixup_alpha=0.5, cutmix_alpha=0.5, probability=1.0, switch_probability=0.5, per="batch")
    images, targets = mix(key, images, targets)

To add one, write `name(key, lam, height, width)`, as `cutmix` below, and give it a row in MIXERS, a field
`<name>_alpha` under `config.mixing`, and in `make_mix` the argument of that name, its place in `alphas` and a share in
`shares`. A row in MIXERS alone changes nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from convmixer_jax.augment.rectangles import rectangles
from convmixer_jax.errors import UserError, lookup

Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def draw_lambda(key: jax.Array, count: int, alpha: float) -> jax.Array:
    """Draws float32 [count] from Beta(alpha, alpha), alpha > 0, without rejection.

    With R^2 = U^(-1/alpha) - 1 and c = cos(2 pi V), (1 + R c / sqrt(1 + R^2 c^2)) / 2 has exactly that law (Devroye,
    "Random variate generation in one line of code", 1996, after Bailey's polar method for Student's t).
    `jax.random.beta` rejects in a loop that asks all devices, in every turn, whether any is still at it.
    """
    radius_key, angle_key = jax.random.split(key)
    # The lowest of the numbers k / 2^23 that are drawn stands for all that lie between it and the next.
    uniform = jnp.maximum(jax.random.uniform(radius_key, (count,)), 2.0**-24)
    cosine = jnp.cos(2 * jnp.pi * jax.random.uniform(angle_key, (count,)))
    # 1 / R^2, which does not overflow: U^(-1/alpha) does for small alphas, and is rounded to 1 for large ones.
    tiny = jnp.finfo(jnp.float32).tiny
    inverse = 1 / jnp.maximum(jnp.expm1(-jnp.log(uniform) / alpha), tiny)
    square = jnp.square(cosine)
    # The smaller part from its own formula: as a difference from 1 it would lose its digits.
    total = jnp.maximum(square + inverse, tiny)
    smaller = inverse / total / (1 + jnp.sqrt(square / total)) / 2
    return jnp.where(cosine < 0, smaller, 1 - smaller)


def mixup(key: jax.Array, lam: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Every pixel keeps the share lam (arXiv 1710.09412). Arguments and results as those of `cutmix`."""
    return lam[:, None, None, None], lam


def cutmix(key: jax.Array, lam: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """A box comes from the partner, all of it, and the rest stays (arXiv 1905.04899, and timm's rand_bbox).

    lam: [n], the drawn share of the image that stays. The box has int(side * sqrt(1 - lam)) pixels in each direction,
    less one where that is odd, as it reaches half of it to either side of a centre uniform over the pixels; what lies
    outside the image is lost. Returns the share that each pixel keeps, [n, H, W, 1], and what they make together, [n].
    """
    sides = jnp.array([height, width])
    half = (sides * jnp.sqrt(1 - lam)[:, None]).astype(jnp.int32) // 2
    centre = jax.random.randint(key, half.shape, 0, sides)
    low, high = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, sides)
    keep = 1 - rectangles(low, high, height, width).astype(lam.dtype)
    return keep, 1 - (high - low).prod(axis=1) / (height * width)


MIXERS: dict[str, Callable[..., tuple[jax.Array, jax.Array]]] = {"mixup": mixup, "cutmix": cutmix}

# How many draws a batch needs: of the coin, the mixer, lambda and the box alike.
DRAW_COUNTS: dict[str, Callable[[int], int]] = {"batch": lambda batch: 1, "example": lambda batch: batch}


def partners(batch: jax.Array) -> jax.Array:
    """Puts example i XOR 1 in the place of example i of [B, ...], B even.

    Neighbours, so that none crosses to another device that holds an even number; as the order of examples is random,
    the law is that of any other pairing.
    """
    return batch.reshape(-1, 2, *batch.shape[1:])[:, ::-1].reshape(batch.shape)


def mix_with_partners(batch: jax.Array, keep: jax.Array) -> jax.Array:
    """Returns keep * batch + (1 - keep) * partners; keep is float32, whatever the dtype of the batch, which is kept."""
    wide = batch.astype(jnp.promote_types(batch.dtype, keep.dtype))
    return (keep * wide + (1 - keep) * partners(wide)).astype(batch.dtype)


def make_mix(
    *, mixup_alpha: float, cutmix_alpha: float, probability: float, switch_probability: float, per: str
) -> Mix | None:
    """Returns (key, images [B, H, W, C], targets [B, classes]) to the mixed ones, or None where both alphas are 0.

    Targets are distributions over the classes and stay so. Example i is mixed with i XOR 1; the share that it keeps
    is drawn from Beta(alpha, alpha), and for cutmix corrected to the pixels really replaced.
    mixup_alpha, cutmix_alpha: 0 switches one off. probability: of mixing at all. switch_probability: of cutmix where
    both are on. per: "batch" (one draw of everything for the whole batch) or "example" (each its own).
    Raises UserError, naming `config.mixing.per`, for another `per`; the function one naming `config.batch_size` for
    an odd B.
    """
    draws = lookup(DRAW_COUNTS, per, "config.mixing.per")
    alphas = {"cutmix": cutmix_alpha, "mixup": mixup_alpha}
    shares = {"cutmix": switch_probability, "mixup": 1 - switch_probability}
    on = [name for name, alpha in alphas.items() if alpha]
    if not on:
        return None
    if len(on) == 1:
        shares = {on[0]: 1.0}

    def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch, height, width, _ = images.shape
        if batch % 2:
            raise UserError(
                f"config.batch_size is {batch}: mixing pairs examples, so every device needs an even number of them; "
                "change it, or set config.mixing.mixup_alpha and config.mixing.cutmix_alpha to 0"
            )
        coin_key, choice_key, lambda_key, box_key = jax.random.split(key, 4)
        count = draws(batch)
        mixed = jax.random.uniform(coin_key, (count,)) < probability
        choice = jax.random.uniform(choice_key, (count,))
        keep, lam = jnp.ones((count, 1, 1, 1)), jnp.ones(count)
        end = 0.0
        for name in on:
            start, end = end, end + shares[name]
            chosen = mixed & (start <= choice) & (choice < end)
            its_keep, its_lam = MIXERS[name](box_key, draw_lambda(lambda_key, count, alphas[name]), height, width)
            keep = jnp.where(chosen[:, None, None, None], its_keep, keep)
            lam = jnp.where(chosen, its_lam, lam)
        return mix_with_partners(images, keep), mix_with_partners(targets, lam[:, None])

    return mix
