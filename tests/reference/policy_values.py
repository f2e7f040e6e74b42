"""What a magnitude means in timm's and imgaug's RandAugment, written from their definitions, for the tests of ours.

    value = timm_value("rotate", 9, sign=-1, increasing=True)       # degrees, see OPERATIONS

torchvision's is in convmixer_jax/benchmarks/pillow_ops.py, which needs it itself.
"""

import math


def timm_value(name: str, magnitude: float, sign: int, increasing: bool) -> float:
    """Returns the operation's value at a magnitude of timm's tables of 0-10."""
    m = magnitude / 10
    if name in ("brightness", "color", "contrast", "sharpness"):
        return max(0.1, 1 + sign * m * 0.9) if increasing else m * 1.8 + 0.1
    rows = {
        "rotate": sign * m * 30,
        "shear_x": sign * m * 0.3,
        "shear_y": sign * m * 0.3,
        "translate_x": sign * m * 0.45,
        "translate_y": sign * m * 0.45,
        "posterize": 4 - int(m * 4) if increasing else int(m * 4),
        "solarize": 256 - min(256, int(m * 256)) if increasing else min(256, int(m * 256)),
        "solarize_add": min(128, int(m * 110)),
    }
    return rows.get(name, 0.0)


def imgaug_value(name: str, magnitude: float, sign: int) -> float:
    """Returns the operation's value at a magnitude of 0-30 of imgaug's iaa.RandAugment."""
    m = magnitude / 30
    if name in ("brightness", "color", "contrast", "sharpness"):
        return min(max(1 + sign * m * 0.9, 0.1), 1.9)
    rows = {
        "rotate": sign * m * 30,
        "shear_x": sign * math.tanh(m * 0.3),
        "shear_y": sign * math.tanh(m * 0.3),
        "translate_x": sign * m * 0.33,
        "translate_y": sign * m * 0.33,
        "posterize": 8 - min(max(int(m * 6), 0), 6),
        "solarize": min(max(256 - int(m * 256), 0), 256),
        "cutout": m * 20 / 32,
    }
    return rows.get(name, 0.0)
