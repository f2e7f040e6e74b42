"""Small image files with numbers that can be checked by hand."""

from pathlib import Path

import numpy as np
from PIL import Image

from convmixer_jax.data.examples import Examples, ImageFiles


def numbered(count: int) -> Examples:
    """Image n, 4 x 4, has (n, n + 50, n + 100) as its channels, plus its row number; label n % 7."""
    images = np.zeros((count, 4, 4, 3), np.uint8)
    images += np.arange(count, dtype=np.uint8)[:, None, None, None] + np.array([0, 50, 100], np.uint8)
    images += np.arange(4, dtype=np.uint8)[None, :, None, None]
    return Examples(images, (np.arange(count) % 7).astype(np.int32))


def write_files(folder: Path, examples: Examples) -> ImageFiles:
    """The same images as files FOLDER/n.png, which lose nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{n}.png" for n in range(len(examples))]
    for name, image in zip(names, examples.image, strict=True):
        Image.fromarray(image).save(folder / name)
    height, width, channels = examples.image_shape
    return ImageFiles(folder, np.array(names), label=examples.label, image_shape=(height, width, channels))


def make_it_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
