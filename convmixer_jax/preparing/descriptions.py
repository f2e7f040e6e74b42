"""What is told of a split: how many images, how they spread over the classes, and a digest to compare.

describe("train", examples, ("cat", "dog"), digest)   # "train: 300 images as 8x8x3, 2 classes, 150 of each, ..."
"""

from collections.abc import Sequence

import numpy as np

from convmixer_jax.data.examples import Examples, Stored


def describe(split: str, stored: Stored, class_names: Sequence[str], digest: str) -> str:
    """Returns the line. digest: of pixels and labels, or of the names, sizes and labels of encoded images."""
    height, width, channels = stored.image_shape
    arrays = isinstance(stored, Examples) and stored.origin is None
    return (
        f"{split}: {len(stored):,} images as {height}x{width}x{channels}, {len(class_names):,} classes, "
        f"{_spread(stored.label, class_names)}, SHA-256 of {'pixels' if arrays else 'names, sizes'} and labels {digest}"
    )


def _spread(label: np.ndarray, class_names: Sequence[str]) -> str:
    counts = np.bincount(label, minlength=len(class_names))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[least] == counts[most]:
        return f"{counts[most]:,} of each"
    return f"{counts[least]:,} ({class_names[least]}) to {counts[most]:,} ({class_names[most]}) of one"
