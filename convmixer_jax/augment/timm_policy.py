"""timm's RandAugment: its policy strings, and what a magnitude means to its operations (timm/data/auto_augment.py)."""

import re

import jax.numpy as jnp

from convmixer_jax.augment.policy import FIELD, Level, Policy, nothing, steps, straight
from convmixer_jax.errors import UserError, suggest

TIMM_DENOMINATOR = 10.0

# timm's choice of weights number 0; the rest have none.
TIMM_WEIGHTS = {
    "rotate": 0.3,
    "shear_x": 0.2,
    "shear_y": 0.2,
    "translate_x": 0.1,
    "translate_y": 0.1,
    "color": 0.025,
    "sharpness": 0.025,
    "auto_contrast": 0.025,
    "solarize": 0.005,
    "solarize_add": 0.005,
    "contrast": 0.005,
    "brightness": 0.005,
    "equalize": 0.005,
    "posterize": 0.0,
    "invert": 0.0,
}


def _timm_levels(increasing: bool) -> dict[str, Level]:
    full = TIMM_DENOMINATOR
    if increasing:
        enhance = Level(straight(0.9, full), "around one")
        posterize = Level(steps(4, full, from_top=4))
        # Never below 0: magnitudes above 10 are allowed where mmax is.
        solarize = Level(lambda m: jnp.maximum(0, 256 - m / full * 256 // 1))
    else:
        enhance = Level(lambda m: m / full * 1.8 + 0.1)
        posterize = Level(steps(4, full))
        solarize = Level(steps(256, full))
    return {
        "auto_contrast": Level(nothing),
        "equalize": Level(nothing),
        "invert": Level(nothing),
        "rotate": Level(straight(30, full), "either"),
        "posterize": posterize,
        "solarize": solarize,
        "solarize_add": Level(lambda m: jnp.minimum(128, m / full * 110 // 1)),
        "color": enhance,
        "contrast": enhance,
        "brightness": enhance,
        "sharpness": enhance,
        "shear_x": Level(straight(0.3, full), "either"),
        "shear_y": Level(straight(0.3, full), "either"),
        "translate_x": Level(straight(0.45, full), "either"),
        "translate_y": Level(straight(0.45, full), "either"),
    }


# Sections of timm's policy strings: default, least and largest number, whether it must be whole.
TIMM_SECTIONS: dict[str, tuple[float, float, float, bool]] = {
    "m": (10, 0, float("inf"), False),
    "n": (2, 1, float("inf"), True),
    "mstd": (0, 0, float("inf"), False),
    "mmax": (10, 0, float("inf"), False),
    "inc": (0, 0, 1, True),
    "p": (0.5, 0, 1, False),
    "w": (-1, 0, 0, True),  # -1: no weights
}


def parse_timm(policy: str) -> dict[str, float]:
    """Returns the number of every row of TIMM_SECTIONS for a string like "rand-m9-mstd0.5-inc1".

    Raises UserError, naming the section, for one that is unknown, has no number, one out of range, or stands twice.
    """
    form = "it begins with rand, then sections of a name and a number, as in rand-m9-mstd0.5-inc1"
    head, *sections = policy.split("-")
    if head != "rand":
        raise UserError(f"{FIELD}.policy is {policy!r}: {form}")
    found: dict[str, float] = {}
    for section in sections:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d*)?|\.\d+)", section)
        name = match[1] if match else section.rstrip("-")
        if match is None and name in TIMM_SECTIONS:
            raise UserError(f"{FIELD}.policy is {policy!r}: section {name!r} lacks its number (0 or above); {form}")
        if match is None or name not in TIMM_SECTIONS:
            known = f"{suggest(name, TIMM_SECTIONS)}; the names are {', '.join(TIMM_SECTIONS)}"
            raise UserError(f"{FIELD}.policy is {policy!r}: {section!r} is no section of it{known}; {form}")
        _, least, most, whole = TIMM_SECTIONS[name]
        number = float(match[2])
        if name in found:
            raise UserError(f"{FIELD}.policy is {policy!r}: section {name!r} stands twice; leave one out")
        if not least <= number <= most or (whole and number != int(number)):
            kind = "a whole number" if whole else "a number"
            top = f" to {most:g}" if most < float("inf") else " upwards"
            accepted = f"needs {kind} from {least:g}{top}" if least < most else f"may be {name}{least:g} alone"
            raise UserError(f"{FIELD}.policy is {policy!r}: section {section!r} {accepted}")
        found[name] = number
    return {name: row[0] for name, row in TIMM_SECTIONS.items()} | found


def timm(policy: str, num_ops: int, magnitude: float) -> Policy:
    """Returns timm's RandAugment of a policy string, see `parse_timm`; `num_ops` and `magnitude` are not read.

    m: magnitude; n: operations; mstd: the magnitude's standard deviation, above 100 uniform from 0 to m; mmax: the
    largest magnitude, to which m and what noise makes of it are clipped, 0 for the default of 10; inc1: a larger one is
    stronger for every operation (without it some fade, as in AutoAugment); p: probability of each operation, which
    only newer versions of timm have; w0: weights, drawn without replacement, which only older ones have.
    Other than in timm, inc0 means what leaving it out does (there any number is a yes), and m and mmax may be
    fractions. Refused is what timm skips or takes in its own way: a section without a number or standing twice, n0,
    p or inc above 1. Newer versions' sets of operations, such as tweights, are not here.
    Raises UserError for a malformed string, or more operations than there are weights.
    """
    del num_ops, magnitude
    sections = parse_timm(policy)
    levels = _timm_levels(increasing=sections["inc"] == 1)
    weights = tuple(TIMM_WEIGHTS[name] for name in levels) if sections["w"] == 0 else None
    if weights and sections["n"] > sum(weight > 0 for weight in weights):
        raise UserError(
            f"{FIELD}.policy is {policy!r}: n is {sections['n']:g}, and w0 draws without replacement from "
            f"{sum(weight > 0 for weight in weights)} operations; lower n, or leave w0 out"
        )
    return Policy(
        levels=levels,
        num_ops=int(sections["n"]),
        magnitude=sections["m"],
        noise=sections["mstd"] if sections["mstd"] <= 100 else float("inf"),
        magnitude_max=sections["mmax"] or TIMM_DENOMINATOR,
        probability=sections["p"],
        distinct=weights is not None,
        weights=weights,
        interpolation="random",
        fill=128,
    )
