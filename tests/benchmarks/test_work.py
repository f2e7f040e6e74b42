"""The arithmetic is counted right: by hand, and as XLA counts it where nothing is padded."""

import jax
import numpy as np

from convmixer_jax.benchmarks.work import Shape, multiply_adds
from convmixer_jax.models.convmixer import ConvMixer


def test_multiply_adds_by_hand():
    # 4 patches. Stem: 4 x 2 x 2 x 3 x 10 = 480. Block: 4 x (9 x 10 + 10 x 10) = 760. Classifier: 10 x 7 = 70.
    counted = multiply_adds(Shape(10, 2, 2, 3, 7, (5, 4, 3)))
    assert counted == {"inference": 480 + 2 * 760 + 70, "training": 3 * (480 + 2 * 760 + 70) - 480}


def test_the_compiler_counts_the_same():
    model = ConvMixer(dim=64, depth=2, patch_size=2, kernel_size=1, num_classes=100, activation="relu")
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    costs = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, images).cost_analysis()
    counted = 2 * multiply_adds(Shape(64, 2, 2, 1, 100, (8, 8, 3)))["inference"]
    # Beside the products there are biases, activations, normalisations and residuals, in each of five places: about
    # ten operations for each of 16 x 64 values.
    assert counted <= costs["flops"] <= counted + 5 * 20 * 16 * 64
