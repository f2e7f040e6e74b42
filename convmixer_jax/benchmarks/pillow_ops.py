"""RandAugment with Pillow, one image at a time: what the batched operations are compared with, and a whole pipeline.

    image = torchvision_style(np.random.default_rng(0), image, num_ops=2, magnitude=12)

Written from the definitions of Pillow, torchvision, timm and imgaug with nothing of convmixer_jax/augment/, whose
tests compare with it: only the names of the operations are shared.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

NEAREST, BILINEAR, BICUBIC = Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC

Fill = tuple[int, ...]


def _table(image: Image.Image, levels: Sequence[int]) -> Image.Image:
    return image.point(list(levels) * len(image.getbands()))


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    # Older Pillow took 0 bits and gave black; Pillow 13 refuses them.
    return image if bits >= 8 else ImageOps.posterize(image, bits) if bits > 0 else _table(image, [0] * 256)


def _cutout(image: Image.Image, share: float, place: Sequence[float], fill: Fill) -> Image.Image:
    pixels, half = np.array(image), share * image.height / 2
    top, bottom = (max(0, round(place[0] * image.height + step)) for step in (-half, half))
    left, right = (max(0, round(place[1] * image.width + step)) for step in (-half, half))
    pixels[top:bottom, left:right] = fill
    return Image.fromarray(pixels)


POINTWISE: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "posterize": lambda image, value: _posterize(image, int(value)),
    "solarize": lambda image, value: ImageOps.solarize(image, value),  # type: ignore[arg-type]  # as torchvision
    "solarize_add": lambda image, value: _table(
        image, [min(255, i + int(value)) if i < 128 else i for i in range(256)]
    ),
    "brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "color": lambda image, value: ImageEnhance.Color(image).enhance(value),
    "sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
    "blur": lambda image, _: image.filter(ImageFilter.BLUR),
    "smooth": lambda image, _: image.filter(ImageFilter.SMOOTH),
}

MATRICES: dict[str, Callable[[float, int, int], tuple[float, ...]]] = {
    "shear_x": lambda value, *_: (1, value, 0, 0, 1, 0),
    "shear_y": lambda value, *_: (1, 0, 0, value, 1, 0),
    "translate_x": lambda value, width, _: (1, 0, value * width, 0, 1, 0),
    "translate_y": lambda value, _, height: (1, 0, 0, 0, 1, value * height),
}


def apply_with_pillow(
    image: Image.Image,
    name: str,
    value: float,
    *,
    resample: Image.Resampling = NEAREST,
    fill: Fill = (0, 0, 0),
    place: Sequence[float] = (0.5, 0.5),
) -> Image.Image:
    """Returns the image after the operation; the meaning of `value` is the one of the operation's name in the package.

    place: the centre (y, x) of a cutout as shares of the sides.
    """
    value = float(value)
    if name in POINTWISE:
        return POINTWISE[name](image, value)
    if name == "cutout":
        return _cutout(image, value, place, fill)
    if name == "rotate":
        return image.rotate(value, resample, fillcolor=fill)
    matrix = MATRICES[name](value, *image.size)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)


def torchvision_value(name: str, magnitude: int, sign: int, width: int, height: int) -> float:
    """Returns the operation's value at a bin 0-30 of torchvision.transforms.RandAugment; sign: -1 or 1."""
    spaces = {
        "shear_x": np.linspace(0, 0.3, 31),
        "shear_y": np.linspace(0, 0.3, 31),
        "translate_x": np.linspace(0, 150 / 331 * width, 31),
        "translate_y": np.linspace(0, 150 / 331 * height, 31),
        "rotate": np.linspace(0, 30, 31),
        "posterize": 8 - np.round(np.arange(31) / (30 / 4)),
        "solarize": np.linspace(255, 0, 31),
    } | dict.fromkeys(("brightness", "color", "contrast", "sharpness"), np.linspace(0, 0.9, 31))
    level = float(spaces[name][magnitude]) if name in spaces else 0.0
    if name in ("brightness", "color", "contrast", "sharpness"):
        return 1 + sign * level
    if name in ("translate_x", "translate_y"):
        return int(sign * level) / (width if name == "translate_x" else height)
    return sign * level if name in ("shear_x", "shear_y", "rotate") else level


TORCHVISION = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast"),
    *("sharpness", "posterize", "solarize", "auto_contrast", "equalize"),
)


def torchvision_style(rng: np.random.Generator, image: Image.Image, num_ops: int, magnitude: int) -> Image.Image:
    """Returns the image after `num_ops` operations drawn as torchvision.transforms.RandAugment does.

    magnitude: a bin 0-30. Every operation is as likely, may come twice and is always done; nearest; fill 0. Everything
    random is drawn from `rng`: per operation its number, then its sign.
    """
    for _ in range(num_ops):
        name = TORCHVISION[rng.integers(len(TORCHVISION))]
        sign = int(rng.integers(2)) * 2 - 1
        image = apply_with_pillow(image, name, torchvision_value(name, magnitude, sign, *image.size))
    return image
