"""Every variant, block, norm and head against PyTorch in float64: logits, statistics and gradients.

Weights and statistics are random: fresh ones and zeros would hide what is left out or swapped.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch

from convmixer_jax.models import heads, staged
from convmixer_jax.models.cnn import CNN
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.models.staged import STAGES, Staged
from tests.reference import torch_variants
from tests.reference.torch_variants import Net
from tests.training.steps import leaves, random_variables

torch.set_num_threads(1)  # the tensors are tiny

# float64 carries 16 digits; a network of thirty layers may lose six of them on the way to a gradient. A mistake in a
# formula shows at 1e-6 and above: the tanh form of GELU is the smallest.
TOLERANCE = 1e-10
MOMENTUM, EPSILON = 0.25, 1e-3  # not the defaults
CLASSES, BATCH, GROUP = 5, 6, 3  # GROUP: examples that share statistics, in some cases


@dataclasses.dataclass(frozen=True)
class Case:
    """A module, the side of its images, and PyTorch's computation of it."""

    module: Callable[..., Any]
    settings: dict[str, Any]
    side: int
    reference: Callable[[Net, np.ndarray], torch.Tensor]

    def model(self, **changes: Any) -> Any:
        norm = {} if self.module is CNN else {"norm_momentum": MOMENTUM, "norm_epsilon": EPSILON}
        wide = {"dtype": "float64", "param_dtype": "float64"}
        return self.module(num_classes=CLASSES, **(wide | norm | self.settings | changes))


def convmixer_case(head: str, **settings: Any) -> Case:
    """An even kernel, and a side that is no multiple of the patch."""
    shape = {"dim": 8, "depth": 2, "patch_size": 2, "kernel_size": 4, "head": head}
    reference = functools.partial(torch_variants.convmixer, depth=2, patch_size=2, head=head)
    return Case(ConvMixer, shape | settings, 9, reference)


CASES = {
    "bottleneck, layer scale, representation": convmixer_case("representation", block="bottleneck", layer_scale=0.5),
    "layer norm": convmixer_case("linear", norm="layer"),
    "bn_dropout after fast operations": convmixer_case("bn_dropout", ops="channel_major"),
    "groups, fast operations": convmixer_case("linear", ops="channel_major", bn_group_size=GROUP),
    "groups, reference": convmixer_case("bn_dropout", block="bottleneck", bn_group_size=GROUP),
    # Sides of 20 and 10 are halved with one row before and two after, 5 with two before and two after.
    "staged": Case(
        Staged,  # with fewer blocks than report E's, see `_cheap`; all of them are in test_staged.py
        {"dim": 8, "layer_scale": 1.0, "bn_group_size": GROUP},
        20,
        functools.partial(torch_variants.staged, stages=(0, 1, 2, 2), head="linear"),
    ),
    "cnn": Case(CNN, {}, 11, torch_variants.cnn),
}


@pytest.fixture(autouse=True)
def _cheap(monkeypatch, quick_compilation):
    """Random draws differ between the libraries: test_drop.py counts them. Few blocks compile in seconds."""
    monkeypatch.setattr(heads, "BN_DROPOUT", 0.0)
    stages = [dataclasses.replace(stage, blocks=blocks) for stage, blocks in zip(STAGES, (1, 1, 2), strict=True)]
    monkeypatch.setattr(staged, "STAGES", stages)


@functools.cache
def inputs(name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns images and variables."""
    case = CASES[name]
    images = np.random.default_rng(0).normal(size=(BATCH, case.side, case.side, 3))
    with jax.enable_x64(True):
        init = functools.partial(case.model().init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(images.shape, "float64"))
    return images, random_variables(shapes, seed=1)


def loss_of(logits: Any) -> Any:
    """A scalar whose slope is another for every logit."""
    return (logits * logits).sum() + logits[:, 0].sum()


@functools.cache
def ours(name: str) -> dict[str, Any]:
    """Returns logits of evaluation, then logits, statistics and gradients of training."""
    images, variables = inputs(name)
    model = CASES[name].model()

    def loss(params: Any) -> Any:
        logits, updated = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return loss_of(logits), (logits, updated.get("batch_stats", {}))

    def both(params: Any) -> dict[str, Any]:
        gradients, (logits, statistics) = jax.grad(loss, has_aux=True)(params)
        evaluated = model.apply(variables | {"params": params}, images, train=False)
        return {"evaluated": evaluated, "logits": logits, "batch_stats": statistics, "gradients": gradients}

    with jax.enable_x64(True):
        return jax.device_get(jax.jit(both)(variables["params"]))


def trained_by_torch(name: str, images: np.ndarray, variables: dict[str, Any]) -> dict[str, Any]:
    """Returns logits, statistics and gradients of training."""
    net = Net(variables, True, momentum=MOMENTUM, epsilon=EPSILON)
    logits = CASES[name].reference(net, images)
    gradients = net.gradients(loss_of(logits))
    return {"logits": logits.detach().numpy(), "batch_stats": net.batch_stats(), "gradients": gradients}


def theirs(name: str) -> dict[str, Any]:
    """Returns what `ours` does, from PyTorch: each group goes through a network that sees no other."""
    images, variables = inputs(name)
    evaluated = CASES[name].reference(Net(variables, False, momentum=MOMENTUM, epsilon=EPSILON), images)
    size = CASES[name].settings.get("bn_group_size", BATCH)
    groups = [trained_by_torch(name, images[first : first + size], variables) for first in range(0, BATCH, size)]
    logits, statistics, gradients = ([group[what] for group in groups] for what in groups[0])
    return {
        "evaluated": evaluated.detach().numpy(),
        "logits": np.concatenate(logits),
        "batch_stats": jax.tree.map(lambda *of_groups: sum(of_groups) / len(groups), *statistics),
        "gradients": jax.tree.map(lambda *of_groups: sum(of_groups), *gradients),
    }


# A shift of the pooled features that the head's BatchNorm takes away again: its gradient is zero but for rounding.
SHIFT = "['gradients']['block_1_pointwise_norm']['bias']"
NO_GRADIENT = {"bn_dropout after fast operations": SHIFT, "groups, reference": SHIFT}


@pytest.mark.parametrize("name", CASES)
def test_values_statistics_and_gradients_equal_pytorch(name):
    found, expected = leaves(ours(name)), leaves(theirs(name))
    assert found.keys() == expected.keys()
    assert any("gradients" in leaf for leaf in found)
    for leaf, values in expected.items():
        assert found[leaf].dtype == values.dtype == np.float64
        scale = np.abs(values).max()
        if leaf == NO_GRADIENT.get(name):
            assert scale <= TOLERANCE
            scale = 1
        assert scale > TOLERANCE, leaf
        np.testing.assert_allclose(found[leaf], values, rtol=0, atol=TOLERANCE * scale, err_msg=leaf)
