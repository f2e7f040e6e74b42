"""From image files of any size and mode to what a model takes, as timm's evaluation does it.

    preprocess = make_preprocess(description)
    images = preprocess(["cat.jpg", Image.open("dog.png")])       # float32 [2, H, W, C], normalised
    levels = preprocess.levels("cat.jpg")                         # uint8 [H, W, C], before normalisation

What becomes of an image's size and mode is told in data/fitting.py, which data sets go through too. Before that the
rotation that EXIF tells of is applied (timm and data sets ignore it). Then levels / 255, minus mean, over std, in
float32.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from convmixer_jax.data.fitting import fit, image_mode, open_image, to_mode
from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import Description

ImageSource = str | os.PathLike[str] | Image.Image


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
            with contextlib.nullcontext(source) if isinstance(source, Image.Image) else open_image(source) as image:
                upright = to_mode(ImageOps.exif_transpose(image), image_mode(self.image_shape[2]))
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
