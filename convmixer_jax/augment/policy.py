"""What a table of RandAugment says, as one `Policy`: its operations, what a magnitude means to each, and the odds."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

FIELD = "config.augment.rand_augment"

# A magnitude: one number for all images, kept as a Python float so that levels are computed in float64 as the tables'
# authors do; or float32 [B].
Magnitude = float | jax.Array

# How a sign of -1 or 1, drawn per image, makes an operation's value of a level.
SIGN_RULES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "none": lambda level, _: level,
    "either": lambda level, sign: level * sign,
    "around one": lambda level, sign: jnp.maximum(0.1, 1 + level * sign),
}


@dataclasses.dataclass(frozen=True)
class Level:
    """What a magnitude means to one operation."""

    of: Callable[[Magnitude], Magnitude]  # the level, before the sign
    sign: str = "none"  # a row of SIGN_RULES

    def value(self, level: Magnitude, sign: jax.Array) -> jax.Array:
        """Returns the operation's value, float32, at a level and a sign of -1 or 1."""
        return SIGN_RULES[self.sign](jnp.asarray(level, jnp.float32), sign)


@dataclasses.dataclass(frozen=True)
class Policy:
    """Which operations, how many of them, how strong and how often.

    timm's fill of 128 is its own default where no mean is given. Its training scripts give one, the mean colour, and so
    does this package's training in the place of an empty `config.augment.rand_augment.fill`: from a config 128 has to
    be asked for.
    """

    levels: Mapping[str, Level]  # rows of OPERATIONS
    num_ops: int  # operations drawn per image
    magnitude: float
    interpolation: str  # of warps; "random" is bilinear or bicubic, drawn per image and operation
    fill: float  # the level of what a warp leaves empty, where the config has none
    noise: float = 0.0  # standard deviation of the magnitude; infinity: uniform from 0 to the magnitude
    magnitude_max: float = math.inf  # all magnitudes are clipped to 0 and this, with noise and without
    probability: float = 1.0  # that a drawn operation is done
    distinct: bool = False  # drawn without replacement
    weights: tuple[float, ...] | None = None  # of the operations, in order; None: all alike
    whole_pixels: bool = False  # translations are truncated to whole pixels

    @property
    def names(self) -> tuple[str, ...]:
        """The operations, in the order that numbers them."""
        return tuple(self.levels)


def nothing(_: Magnitude) -> float:
    """Returns the level of operations that have none."""
    return 0.0


def straight(at_full: float, full: float) -> Callable[[Magnitude], Magnitude]:
    """Returns a line from 0 to `at_full` at magnitude `full`."""
    return lambda m: m / full * at_full


def steps(at_full: float, full: float, *, from_top: float | None = None) -> Callable[[Magnitude], Magnitude]:
    """Returns that line cut down to whole numbers; with `from_top`, what is left of it."""
    # `// 1` and not int(), which an array has not.
    if from_top is None:
        return lambda m: m / full * at_full // 1
    return lambda m: from_top - m / full * at_full // 1
