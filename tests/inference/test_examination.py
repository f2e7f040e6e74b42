"""Every example counts once in the confusion matrix, and the worst mistakes come first."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.data.examples import Examples, ImageFiles
from convmixer_jax.errors import UserError
from convmixer_jax.inference.examination import dataset_of, examine
from tests.inference.random_weights import random_weights

# The first pixel of example i is i, and LOGITS[i] are its logits. Predicted: 0 0 1 2 2 0 0; mistakes: 1, 3, 5, 6.
LABEL = np.array([0, 1, 1, 0, 2, 2, 1], np.int32)
LOGITS = np.array([[3, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 900], [0, 0, 1], [4, 0, 0], [2, 1, 0]], np.float32)
EXAMPLES = Examples(np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), LABEL)


def classify(images):
    return LOGITS[images[:, 0, 0, 0]]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_counts_and_mistakes(batch_size):
    found = examine(classify, EXAMPLES, batch_size, keep=3, num_classes=3)
    np.testing.assert_array_equal(found.confusion, [[1, 0, 1], [2, 1, 0], [1, 0, 1]])
    assert (found.count, found.top1) == (7, 3 / 7)
    # Their losses: log(e^2 + e + 1) - 1 for 1 and 6, 900 for 3, log(e^4 + 2) for 5. Of equal ones the first is kept.
    assert [mistake.index for mistake in found.mistakes] == [3, 5, 1]
    losses = [900, math.log(math.exp(4) + 2), math.log(math.exp(2) + math.e + 1) - 1]
    assert [mistake.loss for mistake in found.mistakes] == pytest.approx(losses, rel=1e-12)
    worst = found.mistakes[0]
    assert (worst.label, worst.predicted, worst.probability, worst.probability_of_true) == (0, 2, 1.0, 0.0)
    assert [int(mistake.image[0, 0, 0]) for mistake in found.mistakes] == [3, 5, 1]
    assert found.mistakes[2].probability == pytest.approx(math.exp(2) / (math.exp(2) + math.e + 1))


def test_logits_that_are_no_numbers_are_not_counted(recwarn):
    wrong = np.where(np.arange(7)[:, None] == [2, 5, 9], np.nan, LOGITS)
    with pytest.raises(UserError, match="logits are NaN or infinite for 2 of 7 images"):
        examine(lambda images: wrong[images[:, 0, 0, 0]], EXAMPLES, 7, keep=3, num_classes=3)
    assert list(recwarn) == []


def test_image_files_are_read_in_order(tmp_path):
    for level in range(7):
        Image.new("L", (2, 2), level).save(tmp_path / f"{level}.png")
    files = ImageFiles(tmp_path, np.array([f"{level}.png" for level in range(7)]), LABEL, (2, 2, 1))
    found = examine(classify, files, 3, keep=7, num_classes=3)
    np.testing.assert_array_equal(found.confusion, [[1, 0, 1], [2, 1, 0], [1, 0, 1]])
    assert [mistake.index for mistake in found.mistakes] == [3, 5, 1, 6]


def test_a_data_set_is_known_by_its_classes_and_images():
    description, _ = random_weights("cifar10")
    assert dataset_of(description) is DATASETS["cifar10"]
    for change in ({"image_shape": (64, 64, 3)}, {"class_names": ("cat", "dog"), "num_classes": 2}):
        with pytest.raises(UserError, match=r"random weights is a model of .* classes and .*cifar10.*no test split"):
            dataset_of(dataclasses.replace(description, **change))
