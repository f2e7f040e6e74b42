"""From an image of any size and mode to the pixels of one size that a model evaluates, by Pillow, as timm does it.

    levels = read_levels(content, channels=3)                        # uint8 [h, w, 3], of the bytes of a file
    levels = fit_levels(levels, (224, 224, 3), crop_pct=0.96)        # uint8 [224, 224, 3]

An image of h x w pixels is

1. resized, keeping its shape, until it just covers S_h x S_w, S_h = floor(H / crop_pct) and S_w likewise: where
   h * S_w <= w * S_h to S_h x floor(S_h * w / h), else to floor(S_w * h / w) x S_w. For H = W this is torchvision's
   Resize of the shorter side. The filter is Pillow's bicubic, which has antialias;
2. cut out at its centre, from row round((h' - H) / 2) and column round((w' - W) / 2), halves to the even number, as
   torchvision's CenterCrop does.

The mode becomes RGB, or L for one channel, by Pillow's `convert`: transparency is dropped, whatever colour lies under
it; 16-bit grey is scaled to 8 bits, where Pillow would clip it. Levels that are floating-point numbers are taken where
all are whole and 0 to 255: of others no file says which is white. Of several frames the first one counts.
"""

import contextlib
import io
import math
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image

GREY_MODES = ("1", "L", "LA", "La")
# Grey of more than 8 bits; in mode "I", too, Pillow keeps the levels 0 to 65,535 of PNG and PGM files.
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
# Of a resized image, half a gigabyte: only one that is thousands of times longer than wide comes to more, or one for
# a model of such large images.
MOST_PIXELS = 2**27
MOST_STORED_PIXELS = 178_956_970  # of a file: where Pillow stops too


@contextlib.contextmanager
def open_image(source: str | os.PathLike[str] | io.BytesIO) -> Iterator[Image.Image]:
    """Opens an image file, or its bytes. Raises ValueError where its pixels are too many, and whatever Pillow does."""
    try:
        image = Image.open(source)
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {MOST_STORED_PIXELS:,} pixels: make it smaller") from error
    with image:
        yield image


def image_mode(channels: int) -> str:
    """Returns Pillow's name for 1 or 3 channels."""
    return "L" if channels == 1 else "RGB"


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


def read_levels(content: bytes, channels: int) -> np.ndarray:
    """Returns an encoded image as uint8 [h, w, channels]. Raises almost anything where it is damaged or none."""
    with open_image(io.BytesIO(content)) as image:
        levels = np.asarray(to_mode(image, image_mode(channels)))
    return levels.reshape(*levels.shape[:2], channels)


def fit_levels(levels: np.ndarray, image_shape: tuple[int, ...], crop_pct: float) -> np.ndarray:
    """Returns uint8 [h, w, C] as (H, W, C) = image_shape, resized and cropped as above. Raises ValueError."""
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    return np.asarray(fit(image, image_shape, crop_pct)).reshape(image_shape)
