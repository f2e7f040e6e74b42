"""From the bytes of an image file to uint8 pixels of one size, with TensorFlow's operations.

    image = decode_image(content, (64, 64, 3))

The same function serves the stream and the data sets that are read into memory.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from convmixer_jax.data.tensorflow_cpu import load_tensorflow
from convmixer_jax.errors import UserError


def decode_image(content: Any, image_shape: tuple[int, ...]) -> Any:
    """Returns the JPEG or PNG whose bytes are the string tensor `content`, uint8 (H, W, C) = image_shape.

    With C = 3 a grey image becomes RGB, with C = 1 a coloured one grey. An image of H x W is left as it is, bit for
    bit as Pillow decodes it; another one is resized until it just covers H x W (bicubic with antialias, Pillow's to
    within one grey level) and its centre cut out.
    Raises one of tf.errors where the bytes are no whole image; works eagerly and in a graph.
    """
    tf = load_tensorflow()
    height, width, channels = image_shape
    # Despite its name it decodes PNG too. Its default method, INTEGER_FAST, is a grey level off on average.
    image = tf.io.decode_jpeg(content, channels=channels, dct_method="INTEGER_ACCURATE")
    fits = tf.reduce_all(tf.shape(image)[:2] == (height, width))
    return tf.ensure_shape(tf.cond(fits, lambda: image, lambda: _cover(image, height, width)), image_shape)


def _cover(image: Any, height: int, width: int) -> Any:
    """Returns the centre of `image` [h, w, C] resized to cover height x width, uint8 [height, width, C]."""
    tf = load_tensorflow()
    h, w = tf.unstack(tf.shape(image)[:2])
    # Of the two scales the larger one; the other side is rounded to the nearest pixel. Whole numbers: no machine
    # rounds them differently.
    new_h = tf.maximum(height, (2 * h * width + w) // (2 * w))
    new_w = tf.maximum(width, (2 * w * height + h) // (2 * h))
    resized = tf.image.resize(image, (new_h, new_w), method="bicubic", antialias=True)
    top, left = (new_h - height) // 2, (new_w - width) // 2
    centre = resized[top : top + height, left : left + width]
    return tf.cast(tf.clip_by_value(tf.round(centre), 0, 255), tf.uint8)


def read_image(path: Any, image_shape: tuple[int, ...]) -> Any:
    """Returns `decode_image` of the file that the string tensor `path` names."""
    return decode_image(load_tensorflow().io.read_file(path), image_shape)


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
