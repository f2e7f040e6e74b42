"""The 8x8 handwritten digits that scikit-learn bundles: real images for a run without any download.

images, labels = load_digits_split("train")
"""

from collections.abc import Mapping

import numpy as np

from convmixer_jax.data.splits import stratified_choice
from convmixer_jax.errors import lookup

_NUM_TEST = 360  # a fifth of the 1,797 images
_IS_TEST: Mapping[str, bool] = {"train": False, "test": True}


def load_digits_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 [N, 8, 8, 1] in 0-255, and the labels, int32 [N] in 0-9, of "train" or "test".

    N is 1,437 for "train" and 360 for "test". The data set has no published split of its own: this one is fixed,
    stratified by class, and keeps scikit-learn's order. Raises UserError for another split.
    """
    wanted = lookup(_IS_TEST, split, "split")
    from sklearn.datasets import load_digits  # half a second to import, which runs on other data need not pay

    digits = load_digits()
    in_test = np.zeros(len(digits.target), dtype=bool)
    in_test[stratified_choice(digits.target, _NUM_TEST, "digits test split")] = True
    chosen = in_test == wanted
    # The bundled pixels are whole numbers from 0 to 16; 0-255 lets every data set share one normalisation.
    pixels = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)
    return pixels[..., np.newaxis], digits.target[chosen].astype(np.int32)
