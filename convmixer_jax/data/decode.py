"""From the bytes of an image file to uint8 pixels of one size, with TensorFlow's operations.

    image = decode_image(content, (64, 64, 3))

The same function serves the stream and the data sets that are read into memory.
"""

import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from convmixer_jax.data.tensorflow_cpu import load_tensorflow
from convmixer_jax.errors import UserError

_BITS = 22  # of the weights of a resize after the point, as Pillow has them


def decode_image(content: Any, image_shape: tuple[int, ...], crop_pct: float = 1.0) -> Any:
    """Returns the JPEG or PNG whose bytes are the string tensor `content`, uint8 (H, W, C) = image_shape.

    crop_pct: in (0, 1], the share of an image's shorter side that is looked at.
    With C = 3 a grey image becomes RGB, with C = 1 a coloured one grey. The rotation that EXIF asks for is ignored.
    The pixels are those that Pillow decodes, bit for bit (CMYK with Adobe's marker, as programs write it: to within one
    grey level). They become what timm evaluates with Pillow, bit for bit: the image is resized until it just covers
    H x W / crop_pct, bicubic with antialias, and its centre is cut out. Only Pillow 13 takes height before width
    where an image is more than twice as tall as wide; then single pixels beside glaring edges are some levels off.
    Raises one of tf.errors where the bytes are no whole image; works eagerly and in a graph.
    """
    tf = load_tensorflow()
    height, width, channels = image_shape
    # Despite its name it decodes PNG too. Its default method, INTEGER_FAST, is a grey level off on average.
    image = tf.io.decode_jpeg(content, channels=channels, dct_method="INTEGER_ACCURATE")
    centre = functools.partial(_resized_centre, image, image_shape, crop_pct)
    if crop_pct == 1.0:  # data sets whose files have their size already are not resized to it
        fits = tf.reduce_all(tf.shape(image)[:2] == (height, width))
        return tf.ensure_shape(tf.cond(fits, lambda: image, centre), image_shape)
    return centre()


def _resized_centre(image: Any, image_shape: tuple[int, ...], crop_pct: float) -> Any:
    """Returns the centre, uint8 (H, W, C) = image_shape, of `image` [h, w, C] resized to cover H x W / crop_pct."""
    tf = load_tensorflow()
    height, width, channels = image_shape
    h, w = tf.unstack(tf.shape(image)[:2])
    cover_h, cover_w = math.floor(height / crop_pct), math.floor(width / crop_pct)
    # torchvision's Resize: of the two scales the larger one, and the other side is cut down to a whole number.
    new_h = tf.maximum(cover_h, cover_w * h // w)
    new_w = tf.maximum(cover_w, cover_h * w // h)
    columns = tf.reshape(tf.transpose(image, (1, 0, 2)), (w, h * channels))
    wide = tf.reshape(_resized_middle(columns, new_w, width), (width, h, channels))
    rows = tf.reshape(tf.transpose(wide, (1, 0, 2)), (h, width * channels))
    return tf.reshape(_resized_middle(rows, new_h, height), image_shape)


def _resized_middle(rows: Any, new: Any, kept: int) -> Any:
    """Returns the middle rows, uint8 [kept, n], of `rows`, uint8 [old, n], resized to [new, n] as Pillow does it.

    tf.image.resize takes as long but does both axes at once, without the whole levels that Pillow has in between: where
    an edge overshoots white or black it is ten levels off. Here as there sums are whole numbers, so nothing is rounded
    differently; they are made tap by tap, since all taps of a large image would be gigabytes.
    """
    tf = load_tensorflow()
    index, weight = _bicubic_taps(tf.shape(rows)[0], new, kept)
    taps = tf.shape(index)[0]
    half = tf.fill((kept, tf.shape(rows)[1]), 2 ** (_BITS - 1))

    def add(tap: Any, total: Any) -> tuple[Any, Any]:
        return tap + 1, total + weight[tap][:, None] * tf.cast(tf.gather(rows, index[tap]), tf.int32)

    _, total = tf.while_loop(lambda tap, _: tap < taps, add, (0, half))
    return tf.cast(tf.clip_by_value(tf.bitwise.right_shift(total, _BITS), 0, 255), tf.uint8)


def _bicubic_taps(old: Any, new: Any, kept: int) -> tuple[Any, Any]:
    """Returns (index, weight) int32 [taps, kept]: which of `old` pixels make those in the middle of `new`.

    weight: times 2**-_BITS. Keys' cubic with a = -0.5, widened where it makes smaller; beyond the edge is nothing.
    """
    tf = load_tensorflow()
    scale = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
    wider = tf.maximum(scale, 1.0)
    # torchvision's CenterCrop rounds halves to even, and so does tf.round.
    first = tf.cast(tf.round((new - kept) / 2), tf.int32)
    centre = (tf.cast(tf.range(first, first + kept), tf.float64) + 0.5) * scale
    taps = tf.range(tf.cast(tf.math.ceil(4 * wider), tf.int32) + 1)
    index = tf.cast(tf.floor(centre - 2 * wider), tf.int32) + taps[:, None]
    x = tf.abs(tf.cast(index, tf.float64) + 0.5 - centre) / wider
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    there = (index >= 0) & (index < old)
    weight = tf.where(there & (x < 1.0), near, tf.where(there & (x < 2.0), far, 0.0))
    weight *= 2**_BITS / tf.reduce_sum(weight, axis=0)
    return tf.clip_by_value(index, 0, old - 1), tf.cast(tf.round(weight), tf.int32)


def read_image(path: Any, image_shape: tuple[int, ...], crop_pct: float = 1.0) -> Any:
    """Returns `decode_image` of the file that the string tensor `path` names."""
    return decode_image(load_tensorflow().io.read_file(path), image_shape, crop_pct)


def check_readable(paths: Iterable[Path], image_shape: tuple[int, ...]) -> None:
    """Raises UserError, naming the first of the files that is missing, cannot be read, or is no whole image.

    It reads them one by one: it is for finding out which one made a pipeline fail, since TensorFlow does not say.
    """
    tf = load_tensorflow()
    for path in paths:
        try:
            content = path.read_bytes()
            decode_image(content, image_shape)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): put it back, or take it anew") from error
        except tf.errors.OpError as error:
            raise UserError(
                f"{path} ({len(content):,} bytes) is damaged or no JPEG or PNG image: take it anew from the archive of "
                "the data set"
            ) from error
