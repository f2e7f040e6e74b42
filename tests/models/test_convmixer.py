"""ConvMixer's size, initial weights and options. Its values are compared with PyTorch's in test_torch_parity."""

import functools
import math
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from convmixer_jax.errors import UserError
from convmixer_jax.models.blocks import BLOCKS
from convmixer_jax.models.heads import HEADS
from convmixer_jax.models.initializers import INITIALIZERS
from convmixer_jax.models.norms import NORMS
from convmixer_jax.models.variants import VARIANTS
from convmixer_jax.ops.activations import ACTIVATIONS
from tests.models.building import build, count, random_variables, variable_shapes

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("h, d, p, k, n", [(8, 0, 1, 3, 10), (12, 1, 2, 4, 3), (16, 3, 3, 5, 7)])
def test_parameter_count_follows_the_formula(channels, h, d, p, k, n):
    model = build(dim=h, depth=d, patch_size=p, kernel_size=k, num_classes=n)
    formula = channels * p * p * h + 3 * h + d * (k * k * h + h * h + 6 * h) + h * n + n
    assert count(model, (9, 9, channels)) == formula


# Wide enough for statistics: at least 256 values in every leaf but the head's bias, which has as many classes.
WIDE: dict[str, Any] = {"dim": 256, "depth": 1, "patch_size": 2, "kernel_size": 5, "num_classes": 300}
# Inputs per output value.
FAN_IN = {"stem_conv": 2 * 2 * 3, "block_0_depthwise": 5 * 5, "block_0_pointwise": 256, "head": 256}
TORCH_LAYERS = {
    "stem_conv": lambda: torch.nn.Conv2d(3, 256, 2, stride=2),
    "block_0_depthwise": lambda: torch.nn.Conv2d(256, 256, 5, groups=256),
    "block_0_pointwise": lambda: torch.nn.Conv2d(256, 256, 1),
    "head": lambda: torch.nn.Linear(256, 300),
}
SIGMAS = 5  # a normal deviate is beyond 5 standard errors once in 1.7 million draws


@functools.cache
def wide_params(initializer: str) -> dict[str, Any]:
    init = functools.partial(build(**WIDE, initializer=initializer).init, train=False)
    return jax.device_get(jax.jit(init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32)))["params"]


def test_every_layer_with_a_kernel_is_in_the_table():
    with_kernel = {name for name, leaves in wide_params("pytorch").items() if "kernel" in leaves}
    assert with_kernel == set(FAN_IN) == set(TORCH_LAYERS)


@pytest.mark.parametrize("leaf", ["kernel", "bias"])
@pytest.mark.parametrize("layer", FAN_IN)
def test_initial_weights_are_pytorchs(layer, leaf):
    values = wide_params("pytorch")[layer][leaf].ravel()
    bound, n = 1 / math.sqrt(FAN_IN[layer]), values.size
    std = bound / math.sqrt(3)
    assert np.abs(values).max() <= bound
    # All n values stay below 1 - 12/n of the bound with probability exp(-12).
    assert np.abs(values).max() >= (1 - 12 / n) * bound
    assert abs(values.mean()) <= SIGMAS * std / math.sqrt(n)
    # The standard error of the deviation of n values is std * sqrt((kurtosis - 1) / 4n), and a uniform one has 9/5.
    assert abs(values.std() - std) <= SIGMAS * std * math.sqrt(0.2 / n)

    torch.manual_seed(0)
    module = TORCH_LAYERS[layer]()
    theirs = {"kernel": module.weight, "bias": module.bias}[leaf].detach().numpy().ravel()
    assert theirs.size == n
    assert abs(values.std() - theirs.std()) <= SIGMAS * std * math.sqrt(2 * 0.2 / n)
    # Two samples of one distribution give a smaller p-value once in 10,000 times; here are eight pairs.
    assert scipy.stats.ks_2samp(values, theirs).pvalue > 1e-4


@pytest.mark.parametrize("layer", FAN_IN)
def test_lecun_normal_is_flaxs_default(layer):
    leaves = wide_params("lecun_normal")[layer]
    kernel, std = leaves["kernel"], 1 / math.sqrt(FAN_IN[layer])
    # A normal distribution cut off at 2 of its deviations keeps 0.8796 of it, which flax makes up for.
    assert np.abs(kernel).max() <= 2 * std / 0.87962 * (1 + 1e-5)
    # Cut-off tails make the kurtosis less than the normal's 3.
    assert abs(kernel.std() - std) <= SIGMAS * std * math.sqrt(0.5 / kernel.size)
    np.testing.assert_array_equal(leaves["bias"], np.zeros_like(leaves["bias"]))


# (inputs + outputs) of every position of a kernel, times its positions, in Keras's words fan_in + fan_out.
FANS = {"stem_conv": 4 * (3 + 256), "block_0_depthwise": 25 * (1 + 256), "block_0_pointwise": 512, "head": 256 + 300}


@pytest.mark.parametrize("layer", FANS)
def test_glorot_uniform_is_kerass_default(layer):
    leaves = wide_params("glorot_uniform")[layer]
    kernel, bound = leaves["kernel"], math.sqrt(6 / FANS[layer])
    # The bounds of PyTorch's test above; the scaling of flax's own uniform draw rounds once more.
    assert (1 - 12 / kernel.size) * bound <= np.abs(kernel).max() <= bound * (1 + 1e-6)
    assert abs(kernel.mean()) <= SIGMAS * bound / math.sqrt(3 * kernel.size)
    assert abs(kernel.std() - bound / math.sqrt(3)) <= SIGMAS * bound / math.sqrt(3) * math.sqrt(0.2 / kernel.size)
    np.testing.assert_array_equal(leaves["bias"], np.zeros_like(leaves["bias"]))


def test_layers_draw_independently():
    kernels = [leaves["kernel"].ravel()[:768] for leaves in wide_params("pytorch").values() if "kernel" in leaves]
    # A correlation of 768 independent pairs has a standard error of 1/sqrt(768).
    off_diagonal = np.corrcoef(kernels)[~np.eye(len(kernels), dtype=bool)]
    assert np.abs(off_diagonal).max() <= SIGMAS / math.sqrt(768)


EXACT = {
    "gelu": lambda x: x * (1 + scipy.special.erf(x / math.sqrt(2))) / 2,  # the tanh form differs by up to 5e-4
    "relu": lambda x: np.maximum(x, 0),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(activation):
    # Without blocks, and with a stem and a head that multiply by one: the activation, then a BatchNorm that only
    # divides by sqrt(1 + epsilon).
    model = build(dim=1, depth=0, patch_size=1, num_classes=1, activation=activation)
    x = np.linspace(-5, 5, 101, dtype=np.float32).reshape(101, 1, 1, 1)
    ones = {"kernel", "scale", "var"}
    variables = jax.tree.map_with_path(
        lambda path, leaf: np.full(leaf.shape, path[-1].key in ones, leaf.dtype), variable_shapes(model, (1, 1, 1))
    )
    logits = model.apply(variables, x, train=False)
    expected = EXACT[activation](x.astype(np.float64)) / np.sqrt(1 + 1e-5)
    # Some roundings of float32 of values up to 5.
    np.testing.assert_allclose(logits.ravel(), expected.ravel(), rtol=0, atol=16 * 5 * 2.0**-24)


def test_bfloat16_computes_in_it_and_keeps_float32_variables():
    images = np.random.default_rng(0).normal(size=(8, 9, 9, 3)).astype(np.float32)
    wide, narrow = build(), build(dtype="bfloat16")
    variables = random_variables(narrow, (9, 9, 3))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}

    def apply(model: Any) -> tuple[jax.Array, dict]:
        return jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))(variables, images)

    logits, updated = apply(narrow)
    reference, _ = apply(wide)
    assert logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype("float32")}
    # Three layers and a head, each of about four roundings by up to 2^-8: less than 16 x 2^-8 of the largest value in
    # all, and more than nothing.
    error = np.abs(np.asarray(logits, np.float32) - reference).max() / np.abs(reference).max()
    assert 0 < error < 16 * 2**-8


def test_momentum_and_epsilon_reach_every_norm():
    model = build(activation="relu", norm_momentum=0.25, norm_epsilon=0.5)
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
    variables = random_variables(model, (8, 8, 3))
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats", "intermediates"])
    _, updated = jax.jit(functools.partial(apply, capture_intermediates=True))(variables, images)
    captured = updated["intermediates"]
    outputs = {layer: np.float64(captured[layer]["__call__"][0]) for layer in variables["params"]}
    assert len(variables["batch_stats"]) == 3
    for norm in variables["batch_stats"]:
        conv = "stem_conv" if norm == "stem_norm" else norm.removesuffix("_norm")
        x = np.maximum(outputs[conv], 0)
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[-1]
        old, new = variables["batch_stats"][norm], updated["batch_stats"][norm]
        # Sums of some hundred float32 of order one: roundings of 6e-8 each, of which 1e-5 is more than a hundred.
        np.testing.assert_allclose(new["mean"], 0.75 * old["mean"] + 0.25 * mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(new["var"], 0.75 * old["var"] + 0.25 * var * count / (count - 1), rtol=1e-5)
        scale, bias = (variables["params"][norm][name] for name in ("scale", "bias"))
        expected = (x - mean) / np.sqrt(var + 0.5) * scale + bias
        np.testing.assert_allclose(outputs[norm], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("side, patch_size, used", [(9, 2, 8), (11, 3, 9), (7, 4, 4)])
def test_pixels_beyond_whole_patches_are_cut_off(side, patch_size, used):
    model = build(patch_size=patch_size)
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    variables = random_variables(model, (side, side, 3))
    apply = jax.jit(functools.partial(model.apply, train=False))
    logits = apply(variables, images)
    assert logits.shape == (2, 10)
    beyond, within = images.copy(), images.copy()
    beyond[:, used:] = beyond[:, :, used:] = 100
    within[:, used - 1, used - 1] += 1
    np.testing.assert_array_equal(logits, apply(variables, beyond))
    assert np.abs(apply(variables, within) - logits).max() > 1e-3


def test_other_images_of_the_batch_matter_in_training_alone():
    model = build()
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    variables = random_variables(model, (8, 8, 3))
    others = np.concatenate([images[:1], 3 * images[1:]])
    for train in (False, True):
        apply = jax.jit(functools.partial(model.apply, train=train, mutable=["batch_stats"]))
        difference = np.abs(apply(variables, images)[0][0] - apply(variables, others)[0][0]).max()
        assert (difference > 1e-3) == train


@pytest.mark.parametrize(
    "variant, settings, field, table",
    [
        ("resnet", {}, "config.model.variant", VARIANTS),
        ("convmixer", {"activation": "swish"}, "config.model.activation", ACTIVATIONS),
        ("convmixer", {"initializer": "he"}, "config.model.initializer", INITIALIZERS),
        ("convmixer", {"head": "mlp"}, "config.model.head", HEADS),
        ("convmixer", {"block": "wide"}, "config.model.block", BLOCKS),
        ("convmixer", {"norm": "group"}, "config.model.norm", NORMS),
    ],
)
def test_an_unknown_name_is_the_users_mistake(variant, settings, field, table):
    with pytest.raises(UserError, match=field) as raised:
        build(variant, **settings)
    assert all(choice in str(raised.value) for choice in table)


def test_variables_have_the_documented_names():
    shapes = variable_shapes(build(depth=1), (8, 8, 3))
    names = {"/".join(path): leaf.shape for path, leaf in flax.traverse_util.flatten_dict(shapes).items()}
    norms = ["stem_norm", "block_0_depthwise_norm", "block_0_pointwise_norm"]
    assert names == {
        "params/stem_conv/kernel": (2, 2, 3, 8),
        "params/stem_conv/bias": (8,),
        "params/block_0_depthwise/kernel": (3, 3, 1, 8),
        "params/block_0_depthwise/bias": (8,),
        "params/block_0_pointwise/kernel": (1, 1, 8, 8),
        "params/block_0_pointwise/bias": (8,),
        "params/head/kernel": (8, 10),
        "params/head/bias": (10,),
        **{f"params/{norm}/{leaf}": (8,) for norm in norms for leaf in ("scale", "bias")},
        **{f"batch_stats/{norm}/{leaf}": (8,) for norm in norms for leaf in ("mean", "var")},
    }
