"""From image files of any size and mode to what a model takes, as timm's evaluation does it.

    preprocess = make_preprocess(description)
    images = preprocess(["cat.jpg", Image.open("dog.png")])       # float32 [2, H, W, C], normalised
    levels = preprocess.levels("cat.jpg")                         # uint8 [H, W, C], before normalisation

An image of h x w pixels is

1. resized, keeping its shape, until it just covers S_h x S_w, S_h = floor(H / crop_pct) and S_w likewise: where
   h * S_w <= w * S_h to S_h x floor(S_h * w / h), else to floor(S_w * h / w) x S_w. For H = W this is torchvision's
   Resize of the shorter side. The filter is Pillow's bicubic, which has antialias;
2. cut out at its centre, from row round((h' - H) / 2) and column round((w' - W) / 2), halves to the even number, as
   torchvision's CenterCrop does.

Then levels / 255, minus mean, over std, in float32.

Before that the rotation that EXIF tells of is applied (timm ignores it), and the mode becomes RGB, or L for a model of
one channel, by Pillow's `convert`: transparency is dropped, whatever colour lies under it; 16-bit grey is scaled to 8
bits, where Pillow would clip it. Levels that are floating-point numbers are taken where all are whole and 0 to 255: of
others no file says which is white. Of several frames the first one counts.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import Description

ImageSource = str | os.PathLike[str] | Image.Image
GREY_MODES = ("1", "L", "LA", "La")
# Grey of more than 8 bits; in mode "I", too, Pillow keeps the levels 0 to 65,535 of PNG and PGM files.
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
# Of a resized image, half a gigabyte: only one that is thousands of times longer than wide comes to more, or one for
# a model of such large images.
MOST_PIXELS = 2**27


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Returns the image in mode "RGB" or "L". Raises ValueError where there is no way."""
    if image.mode in DEEP_MODES:
        levels = np.clip(np.asarray(image, np.int64), 0, 65_535)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        levels = np.clip(np.nan_to_num(values), 0, 255).astype(np.uint8)
        if not np.array_equal(levels, values):
            raise ValueError(
                f"its levels are floating-point numbers, {values.min():g} to {values.max():g}, and which of them is "
                "white it does not say: save it with whole levels, of 8 or 16 bits"
            )
        image = Image.fromarray(levels)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; straight to RGB, Pillow warns
    # What Pillow knows a way to grey from differs by its version; every mode leads to RGB.
    return image.convert(mode if image.mode in GREY_MODES else "RGB").convert(mode)


def resized_shape(h: int, w: int, image_shape: tuple[int, ...], crop_pct: float) -> tuple[int, int]:
    """Returns the (height, width) that an image of h x w is resized to, see above."""
    cover_h, cover_w = (math.floor(side / crop_pct) for side in image_shape[:2])
    if h * cover_w <= w * cover_h:
        return cover_h, cover_h * w // h
    return cover_w * h // w, cover_w


def fit(image: Image.Image, image_shape: tuple[int, ...], crop_pct: float) -> Image.Image:
    """Returns the image in the model's height and width, resized and cropped as above. Raises ValueError."""
    height, width = image_shape[:2]
    w, h = image.size
    new_h, new_w = resized_shape(h, w, image_shape, crop_pct)
    if new_h * new_w > MOST_PIXELS:
        raise ValueError(f"to cover {width} x {height}, its {w} x {h} pixels would become {new_w} x {new_h}: too many")
    resized = image.resize((new_w, new_h), Image.Resampling.BICUBIC)
    top, left = round((new_h - height) / 2), round((new_w - width) / 2)
    return resized.crop((left, top, left + width, top + height))


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Makes a model's input of images. image_shape: (H, W, C), C 1 or 3. mean, std: per channel, on the scale 0-1."""

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float

    def levels(self, source: ImageSource) -> np.ndarray:
        """Returns one image, a path or a PIL image, as uint8 [H, W, C]. Raises UserError where it is damaged."""
        try:
            with contextlib.nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
                upright = to_mode(ImageOps.exif_transpose(image), "L" if self.image_shape[2] == 1 else "RGB")
            return np.asarray(fit(upright, self.image_shape, self.crop_pct)).reshape(self.image_shape)
        except FileNotFoundError as error:
            is_link = isinstance(source, str | os.PathLike) and os.path.islink(source)
            reason = "the link leads to no file" if is_link else "there is no such file"
            raise UserError(f"{source}: {reason}") from error
        except UnidentifiedImageError as error:
            raise UserError(f"{source}: this is no image that Pillow knows, or its beginning is damaged") from error
        except Exception as error:  # Pillow's readers of damaged files raise almost anything
            reason = str(error) or type(error).__name__
            raise UserError(f"{source}: this image is damaged or cannot be used ({reason})") from error

    def normalise(self, levels: np.ndarray) -> np.ndarray:
        """Returns uint8 [..., H, W, C] as the model's float32."""
        scaled = levels.astype(np.float32) / np.float32(255)
        return (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def __call__(self, images: ImageSource | Sequence[ImageSource]) -> np.ndarray:
        """Returns paths or PIL images, or a single one, as float32 [N, H, W, C]. Raises UserError for a bad one."""
        several = [images] if isinstance(images, str | os.PathLike | Image.Image) else images
        levels = [self.levels(image) for image in several]
        return self.normalise(np.stack(levels) if levels else np.zeros((0, *self.image_shape), np.uint8))


def make_preprocess(description: Description) -> Preprocess:
    """Returns what makes the input of the described model."""
    return Preprocess(description.image_shape, description.mean, description.std, description.crop_pct)
