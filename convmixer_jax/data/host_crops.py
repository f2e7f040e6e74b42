"""Random-resized crops on the host, from whole images of any size, before they reach a device.

    draws = crop_draws(seed=0, step=1234, batch_size=64)[rows]                 # float64 [n, DRAWS]
    boxes = draw_boxes(draws, heights, widths, crop)                           # int32 [n, 4]
    image = resize_box(pixels, box, (224, 224), FILTERS["bilinear"][0])        # uint8 [224, 224, C]

A box is defined as on the device (augment/boxes.py). What is in it is resized as there and mostly by Pillow: width
first, then height, whole levels in between, nothing from outside of the box, antialias. Of photographs no value is more
than a level off Pillow's, bicubic a few in a million two levels; Pillow's own resize takes three times as long.
"""

import dataclasses
import threading
import zlib
from collections.abc import Sequence

import numpy as np
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer

from convmixer_jax.augment.boxes import ATTEMPTS, resized_boxes
from convmixer_jax.errors import lookup

# Of each image: an area and a shape for each attempt, a place, and a coin for the interpolation.
DRAWS = 2 * ATTEMPTS + 3
_PURPOSE = zlib.crc32(b"random_resized_crop")
_BILINEAR, _BICUBIC = (
    ResizeOptions(resize_alg=ResizeAlg.convolution(kind), use_alpha=False)
    for kind in (FilterType.bilinear, FilterType.catmull_rom)  # Pillow's bicubic, a = -0.5
)
# By the coin: tails, heads.
FILTERS: dict[str, tuple[ResizeOptions, ResizeOptions]] = {
    "bilinear": (_BILINEAR, _BILINEAR),
    "bicubic": (_BICUBIC, _BICUBIC),
    "random": (_BILINEAR, _BICUBIC),
}
_PIXELS = {1: PixelType.U8, 3: PixelType.U8x3}
_threads = threading.local()  # a Resizer has buffers of its own, so each thread needs one


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """config.augment.random_resized_crop: shares of the area, width-to-height ratios, and a row of FILTERS."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: str

    def __post_init__(self) -> None:
        lookup(FILTERS, self.interpolation, "config.augment.random_resized_crop.interpolation")

    def resize_options(self, draws: np.ndarray) -> ResizeOptions:
        """Returns the filter of the image with `draws`, [DRAWS]."""
        return FILTERS[self.interpolation][int(draws[-1] < 0.5)]


def crop_draws(seed: int, step: int, batch_size: int) -> np.ndarray:
    """Returns uniform draws in [0, 1) for each image of global batch `step`, float64 [batch_size, DRAWS].

    They depend on nothing but seed, step and the image's row: the words of Philox come row by row.
    """
    words = np.random.Philox(np.random.SeedSequence((seed, step, _PURPOSE))).random_raw(batch_size * DRAWS)
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(batch_size, DRAWS)


def draw_boxes(draws: np.ndarray, height: np.ndarray, width: np.ndarray, crop: ResizedCrop) -> np.ndarray:
    """Returns boxes (top, left, height, width), int32 [n, 4], in images of `height` [n] x `width` [n] pixels."""
    area, aspect, place = draws[:, :ATTEMPTS], draws[:, ATTEMPTS : 2 * ATTEMPTS], draws[:, 2 * ATTEMPTS : -1]
    return resized_boxes(np, area, aspect, place, height, width, crop.scale, crop.ratio)


def resize_box(pixels: np.ndarray, box: Sequence[int], size: tuple[int, ...], options: ResizeOptions) -> np.ndarray:
    """Returns what `pixels`, uint8 [h, w, C], have in `box` (top, left, height, width) as uint8 [*size, C]."""
    if not hasattr(_threads, "resizer"):
        _threads.resizer = Resizer()
    top, left, h, w = box
    height, width = size
    channels = pixels.shape[2]
    kind = _PIXELS[channels]
    cut = ImageData(w, h, kind, pixels[top : top + h, left : left + w].tobytes())
    narrow, resized = ImageData(width, h, kind), ImageData(width, height, kind)
    _threads.resizer.resize(cut, narrow, options)
    _threads.resizer.resize(narrow, resized, options)
    return np.frombuffer(resized.get_buffer(), np.uint8).reshape(height, width, channels)
