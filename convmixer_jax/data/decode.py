"""From the bytes of image files to uint8 pixels of one size.

    image = decode_image(content, (64, 64, 3))                               # as it is evaluated
    images = decode_crops(contents, draws, (224, 224, 3), crop)              # random crops to train on

JPEG is decoded by libjpeg-turbo, with little around it (simplejpeg: a quarter of Pillow's time for 64 x 64 pixels);
anything else, and a JPEG that is not plain, by Pillow (see fitting.py). The pixels are Pillow's, bit for bit. The
interpreter's lock is free meanwhile. The same functions serve the stream and the data sets that are read into memory.
"""

from collections.abc import Sequence

import numpy as np
import simplejpeg

from convmixer_jax.data.fitting import MOST_STORED_PIXELS, fit_levels, read_levels
from convmixer_jax.data.host_crops import ResizedCrop, draw_boxes, resize_box

_BEGIN_OF_JPEG = b"\xff\xd8\xff"
# By channels wanted: what it is called, and which stored colours become it as Pillow makes them. CMYK and colour that
# is to become grey are left to Pillow.
_PLAIN = {1: ("GRAY", ("Gray",)), 3: ("RGB", ("YCbCr", "RGB", "Gray"))}


def decode_levels(content: bytes, channels: int) -> np.ndarray:
    """Returns the whole image whose bytes are `content`, uint8 [h, w, channels].

    The rotation that EXIF asks for is ignored. Raises almost anything where the bytes are no whole image.
    """
    if content.startswith(_BEGIN_OF_JPEG):
        name, stored = _PLAIN[channels]
        try:
            height, width, colour, _ = simplejpeg.decode_jpeg_header(content)
            if colour in stored and height * width <= MOST_STORED_PIXELS:
                levels: np.ndarray = simplejpeg.decode_jpeg(content, name)
                return levels
        except ValueError:
            pass  # Pillow reads what is odd but whole, and says what is wrong with the rest
    return read_levels(content, channels)


def decode_image(content: bytes, image_shape: tuple[int, ...], crop_pct: float = 1.0) -> np.ndarray:
    """Returns the image whose bytes are `content`, uint8 (H, W, C) = image_shape: what timm evaluates with Pillow.

    crop_pct: in (0, 1], the share of an image's shorter side that is looked at. Raises as `decode_levels` does, and
    ValueError for an image that would become too large on the way.
    """
    levels = decode_levels(content, image_shape[2])
    if crop_pct == 1.0 and levels.shape == image_shape:  # data sets whose files have their size already
        return levels
    return fit_levels(levels, image_shape, crop_pct)


def decode_crops(
    contents: Sequence[bytes], draws: np.ndarray, image_shape: tuple[int, ...], crop: ResizedCrop
) -> np.ndarray:
    """Returns random-resized crops of the images whose bytes are `contents`, uint8 [n, *image_shape].

    draws: float64 [n, DRAWS], see `crop_draws`. All of an image is decoded, so that damage is noticed whatever the box.
    Raises as `decode_levels` does.
    """
    levels = [decode_levels(content, image_shape[2]) for content in contents]
    heights, widths = np.array([image.shape[:2] for image in levels]).reshape(-1, 2).T
    crops = np.empty((len(levels), *image_shape), np.uint8)
    for row, box in enumerate(draw_boxes(draws, heights, widths, crop).tolist()):
        crops[row] = resize_box(levels[row], box, image_shape[:2], crop.resize_options(draws[row]))
    return crops
