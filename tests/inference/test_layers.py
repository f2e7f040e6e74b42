"""Layers come in the order of the network, and kernels are known by their shape and place."""

import numpy as np
import pytest

from convmixer_jax.inference.description import build
from convmixer_jax.inference.layers import (
    Kernel,
    convolution_kernels,
    depthwise_kernels,
    last_map,
    patch_embedding,
    trace_layers,
)
from tests.inference.random_weights import random_weights


@pytest.fixture(scope="module")
def deep():
    """The layers and kernels of a model whose blocks, by their names, would be sorted otherwise."""
    description, variables = random_weights(depth=11)
    layers = trace_layers(build(description, "reference"), variables, description.image_shape)
    return layers, convolution_kernels(layers, variables["params"]), variables


def test_the_order_is_that_of_the_network(deep):
    layers, kernels, variables = deep
    names = [kernel.name for kernel in depthwise_kernels(kernels)]
    assert names == [f"block_{i}_depthwise" for i in range(11)]
    assert layers[0].name == "stem_conv"
    assert layers[-1].name == "head"
    weights = depthwise_kernels(kernels)[10].weights
    np.testing.assert_array_equal(weights, variables["params"]["block_10_depthwise"]["kernel"])


def test_the_first_convolution_is_the_patch_embedding(deep):
    _, kernels, _ = deep
    stem = patch_embedding(kernels)
    assert stem is not None
    assert (stem.name, stem.weights.shape) == ("stem_conv", (1, 1, 1, 8))
    assert patch_embedding([]) is None


def test_the_last_map_is_what_is_pooled(deep):
    layers, _, _ = deep
    last = last_map(layers)
    assert last is not None
    assert (last.name, last.shape) == ("block_10_pointwise_norm", (8, 8, 8))
    assert last_map([layers[-1]]) is None


def test_depthwise_kernels_are_those_of_one_input_channel_beyond_1x1():
    shapes = {"stem": (3, 3, 1, 8), "depthwise": (3, 3, 1, 8), "row": (1, 7, 1, 8), "point": (1, 1, 1, 8)}
    kernels = [Kernel(name, np.zeros(shape)) for name, shape in (shapes | {"grouped": (5, 5, 4, 8)}).items()]
    assert [kernel.name for kernel in depthwise_kernels(kernels)] == ["depthwise", "row"]
