"""Pictures that a run leaves in its workdir.

    save_picture(workdir / "augmented.png", image_grid(images))

Pictures are uint8 arrays [H, W, 3].
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from convmixer_jax.runs.files import write_bytes

# Small images are enlarged, without smoothing, to about this many pixels a side.
TILE_PIXELS = 64


def image_grid(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Lays images uint8 [N, H, W, C], C 1 or 3, out row by row; returns uint8 [rows * h, columns * w, 3].

    The last row is filled up with black.
    """
    n, height, width, channels = images.shape
    zoom = max(1, TILE_PIXELS // max(height, width))
    tiles = np.repeat(np.repeat(images, zoom, axis=1), zoom, axis=2)
    tiles = np.repeat(tiles, 3 // channels, axis=3)
    rows = -(-n // columns)
    tiles = np.concatenate([tiles, np.zeros((rows * columns - n, *tiles.shape[1:]), np.uint8)])
    tiles = tiles.reshape(rows, columns, height * zoom, width * zoom, 3).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(rows * height * zoom, columns * width * zoom, 3)


def save_picture(path: Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as PNG, in one move."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG")
    write_bytes(path, encoded.getvalue())


def load_picture(path: Path) -> np.ndarray | None:
    """Returns a picture that `save_picture` wrote, None where there is none or it cannot be read."""
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except OSError:
        return None
