"""The program computes the model's logits, and is compiled with the options of its operations."""

import jax
import numpy as np
import pytest

from convmixer_jax.inference.description import build
from convmixer_jax.inference.program import compile_model, quickest_program
from convmixer_jax.ops.choice import REFERENCE, compiler_options
from tests.inference.random_weights import random_weights
from tests.inference.stand_in import Levels

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_the_quickest_program_gives_the_models_logits():
    description, variables = random_weights()
    images = np.random.default_rng(0).normal(size=(3, *description.image_shape)).astype(np.float32)
    expected = build(description, REFERENCE).apply(variables, images, train=False)
    # The same sums in another order, in float32.
    found = quickest_program(description)(variables, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_options_of_the_operations_are_given():
    images, variables = np.zeros((1, 4, 4, 1), np.float32), {"params": {"levels": np.arange(3)}}
    assert compiler_options("channel_major", "cpu")
    # JAX tells of options that are not the outermost program's, and of no others.
    jax.jit(compile_model(Levels(), REFERENCE))(variables, images)
    with pytest.raises(ValueError, match="compiler_options"):
        jax.jit(compile_model(Levels(), "channel_major"))(variables, images)
