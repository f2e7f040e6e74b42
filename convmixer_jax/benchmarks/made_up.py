"""JPEG files to read where there are no photographs at hand: cut out of the two that scikit-learn bundles.

    write_photographs(folder, 500)         # folder/train/0/0.jpg ..., for config.dataset = folder:FOLDER

Real photographs, since what a decoder costs depends on what they show; of the size that most of ImageNet's have.
"""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH, QUALITY = 375, 500, 90
CLASSES = 10


def write_photographs(folder: Path, count: int) -> None:
    """Writes `count` photographs to train/CLASS/NUMBER.jpg and one of each class to val/, always the same."""
    import sklearn.datasets

    whole = [sklearn.datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    draw = np.random.default_rng(0)
    for number in range(count + CLASSES):
        pixels = whole[number % len(whole)]
        top, left = draw.integers(0, (pixels.shape[0] - HEIGHT + 1, pixels.shape[1] - WIDTH + 1))
        place = folder / ("train" if number < count else "val") / str(number % CLASSES)
        place.mkdir(parents=True, exist_ok=True)
        cut = np.ascontiguousarray(pixels[top : top + HEIGHT, left : left + WIDTH])
        Image.fromarray(cut).save(place / f"{number}.jpg", quality=QUALITY)
