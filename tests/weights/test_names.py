"""Names and layouts are those that PyTorch's own modules have, and every bit survives both ways."""

import numpy as np
import pytest
import torch
from torch import nn

from convmixer_jax.benchmarks.torch_model import Residual
from convmixer_jax.weights.names import STYLES, counter_names, flat, from_tensors, nested, tensor_names, to_tensors
from convmixer_jax.weights.recognition import recognise
from tests.weights.models import SMALL, our_logits, random_images, random_model, their_logits, to_variables, torch_file

DEPTH = SMALL["depth"]


def authors_model(dim: int, depth: int, patch_size: int, kernel_size: int, num_classes: int) -> nn.Sequential:
    """As arXiv 2201.09792 prints it: no names but places."""
    return nn.Sequential(
        *(nn.Conv2d(3, dim, patch_size, stride=patch_size), nn.GELU(), nn.BatchNorm2d(dim)),
        *(
            nn.Sequential(
                Residual(
                    nn.Sequential(
                        nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same"), nn.GELU(), nn.BatchNorm2d(dim)
                    )
                ),
                *(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim)),
            )
            for _ in range(depth)
        ),
        *(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, num_classes)),
    )


SIZES = {name: SMALL[name] for name in ("dim", "depth", "patch_size", "kernel_size")}
MODELS = {
    "timm": lambda: random_model(SMALL, 10, random_images(SMALL, 3)),
    "sequential": lambda: authors_model(**SIZES, num_classes=10),
}


@pytest.mark.parametrize("style", STYLES)
def test_the_names_are_those_of_the_state_dict(style):
    names = {*tensor_names(STYLES[style], DEPTH).values(), *counter_names(STYLES[style], DEPTH).values()}
    assert names == set(MODELS[style]().state_dict())


def test_the_authors_model_gives_its_logits():
    torch.manual_seed(1)
    model = MODELS["sequential"]().eval()
    images = random_images(SMALL, 3)
    theirs = their_logits(model, images, "float64")
    ours = our_logits(SMALL, to_variables(model), images, "float64")
    assert np.abs(ours - theirs).max() <= 1e-12


def test_every_style_names_the_same_variables():
    names = [list(tensor_names(style, DEPTH)) for style in STYLES.values()]
    assert all(each == names[0] for each in names)


@pytest.mark.parametrize("style", STYLES)
def test_a_round_trip_keeps_every_bit(style):
    file = torch_file(MODELS[style]().state_dict())
    shapes = recognise(file).tensor_shapes()
    # Any bits: infinities, NaNs and numbers too small to be normal among them.
    rng = np.random.default_rng(0)
    bits = {name: rng.integers(0, 2**32, shape, np.uint32) for name, shape in shapes.items()}
    tensors = {name: array.view(np.float32) for name, array in bits.items()}
    variables = from_tensors(tensors, STYLES[style], DEPTH)
    back = to_tensors(flat(nested(variables)), STYLES[style], DEPTH)
    assert back.keys() == bits.keys()
    assert all(np.array_equal(back[name].view(np.uint32), bits[name]) for name in bits)
    assert all(array.flags.c_contiguous for array in (*variables.values(), *back.values()))


def test_the_axes_of_each_kind():
    tensors = torch_file(MODELS["timm"]().state_dict()).tensors
    variables = from_tensors(tensors, STYLES["timm"], DEPTH)
    assert variables["params/stem_conv/kernel"][1, 0, 2, 5] == tensors["stem.0.weight"][5, 2, 1, 0]
    assert variables["params/block_1_depthwise/kernel"][3, 1, 0, 5] == tensors["blocks.1.0.fn.0.weight"][5, 0, 3, 1]
    assert variables["params/block_0_pointwise/kernel"][0, 0, 2, 5] == tensors["blocks.0.1.weight"][5, 2, 0, 0]
    assert variables["params/head/kernel"][2, 5] == tensors["head.weight"][5, 2]
    assert variables["batch_stats/stem_norm/var"][5] == tensors["stem.2.running_var"][5]


def test_both_collections_are_there_where_one_is_empty():
    assert nested({"params/head/bias": np.zeros(1)})["batch_stats"] == {}
