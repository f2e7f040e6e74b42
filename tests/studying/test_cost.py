"""Parameters and arithmetic of models, against counts by hand."""

import pytest

from convmixer_jax.benchmarks.work import Shape
from convmixer_jax.benchmarks.work import multiply_adds as by_hand
from convmixer_jax.studying.cost import Cost, model_cost

CIFAR = (32, 32, 3)


@pytest.mark.parametrize("dim, depth, patch, kernel", [(16, 2, 1, 3), (8, 1, 2, 4), (12, 3, 4, 5)])
def test_a_convmixer_costs_what_the_formula_says(dim, depth, patch, kernel):
    model = {"dim": dim, "depth": depth, "patch_size": patch, "kernel_size": kernel}
    cost = model_cost(model, 10, CIFAR)
    assert cost.flops == 2 * by_hand(Shape(dim, depth, patch, kernel, 10, CIFAR))["inference"]
    assert cost.params == 3 * patch**2 * dim + 3 * dim + depth * (kernel**2 + dim + 6) * dim + dim * 10 + 10


def test_the_published_model_has_the_published_count():
    assert model_cost({"patch_size": 1, "kernel_size": 9}, 10, CIFAR).params == 706_570


def test_the_cnn_by_hand():
    """Convolutions of 3x3 on 32, 16 and 8 pixels a side, 3-32-64-128 channels; 4*4*128 to 256 to 10."""
    convolutions = 9 * (32**2 * 3 * 32 + 16**2 * 32 * 64 + 8**2 * 64 * 128)
    assert model_cost({"variant": "cnn"}, 10, CIFAR) == Cost(620_362, 2 * (convolutions + 2048 * 256 + 256 * 10))


def test_a_bottleneck_by_hand():
    """One block of 8 channels on 16x16 patches: there and back between 8 and 4, and the depthwise 3x3 over 4."""
    model = {"dim": 8, "depth": 1, "patch_size": 2, "kernel_size": 3, "block": "bottleneck", "bottleneck_factor": 2}
    block = 16**2 * (8 * 4 + 9 * 4 + 4 * 8 + 8 * 8)
    assert model_cost(model, 10, CIFAR).flops == 2 * (16**2 * 4 * 3 * 8 + block + 8 * 10)
