"""RandAugment's three tables as they are in use: timm's, torchvision's and imgaug's, each as one `Policy`.

    policy = lookup(TABLES, "timm", "config.augment.rand_augment.tables")("rand-m9-mstd0.5-inc1", 2, 9)

They differ in operations, in what a magnitude means and in how often an operation is done, so that "RandAugment" alone
says little. To add a table, write a function of (policy, num_ops, magnitude) to Policy and give it a row in TABLES.
"""

from collections.abc import Callable

import jax.numpy as jnp

from convmixer_jax.augment.policy import FIELD, Level, Policy, nothing, steps, straight
from convmixer_jax.augment.timm_policy import timm
from convmixer_jax.errors import UserError


def _check_numbers(num_ops: int, most_ops: float, magnitude: float, *, whole: bool) -> None:
    """Raises UserError for a number of operations below 1 or above `most_ops`, or a magnitude outside 0 to 30."""
    if num_ops < 1 or num_ops > most_ops:
        top = f" to {most_ops:g}, each once" if most_ops < float("inf") else " upwards"
        raise UserError(f"{FIELD}.num_ops is {num_ops}: a whole number from 1{top} is needed")
    if not 0 <= magnitude <= 30 or (whole and magnitude != int(magnitude)):
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{FIELD}.magnitude is {magnitude}: this table needs {kind} from 0 to 30")


def torchvision(policy: str, num_ops: int, magnitude: float) -> Policy:
    """Returns torchvision.transforms.RandAugment(num_ops, magnitude) with its 31 bins; `policy` is not read.

    Raises UserError for a magnitude other than 0, 1 ... 30, or no operation.
    """
    del policy
    _check_numbers(num_ops, float("inf"), magnitude, whole=True)
    enhance = Level(straight(0.9, 30), "around one")
    levels = {
        "identity": Level(nothing),
        "shear_x": Level(straight(0.3, 30), "either"),
        "shear_y": Level(straight(0.3, 30), "either"),
        "translate_x": Level(straight(150 / 331, 30), "either"),
        "translate_y": Level(straight(150 / 331, 30), "either"),
        "rotate": Level(straight(30, 30), "either"),
        "brightness": enhance,
        "color": enhance,
        "contrast": enhance,
        "sharpness": enhance,
        "posterize": Level(lambda m: 8 - jnp.round(m / (30 / 4))),
        "solarize": Level(lambda m: 255 - m / 30 * 255),
        "auto_contrast": Level(nothing),
        "equalize": Level(nothing),
    }
    return Policy(levels, num_ops, magnitude, interpolation="nearest", fill=0, whole_pixels=True)


def imgaug(policy: str, num_ops: int, magnitude: float) -> Policy:
    """Returns imgaug's iaa.RandAugment(num_ops, magnitude) without its flip and crop; `policy` is not read.

    Raises UserError for a magnitude outside 0-30, no operation or more than 18: they are drawn without replacement.
    """
    del policy
    enhance = Level(lambda m: jnp.clip(m / 30 * 0.9, -0.9, 0.9), "around one")
    # imgaug takes the tanh of the angle in radians where the tangent would be expected.
    shear = Level(lambda m: jnp.tanh(m / 30 * 0.3), "either")
    levels = {
        "identity": Level(nothing),
        "auto_contrast": Level(nothing),
        "equalize": Level(nothing),
        "invert": Level(nothing),
        "rotate": Level(straight(30, 30), "either"),
        "posterize": Level(steps(6, 30, from_top=8)),
        "solarize": Level(steps(256, 30, from_top=256)),
        "color": enhance,
        "contrast": enhance,
        "brightness": enhance,
        "sharpness": enhance,
        "shear_x": shear,
        "shear_y": shear,
        "translate_x": Level(straight(0.33, 30), "either"),
        "translate_y": Level(straight(0.33, 30), "either"),
        "cutout": Level(straight(20 / 32, 30)),
        "blur": Level(nothing),
        "smooth": Level(nothing),
    }
    _check_numbers(num_ops, len(levels), magnitude, whole=False)
    return Policy(levels, num_ops, magnitude, interpolation="nearest", fill=128, distinct=True)


TABLES: dict[str, Callable[[str, int, float], Policy]] = {
    "timm": timm,
    "torchvision": torchvision,
    "imgaug": imgaug,
}
