"""The CPU's layout: its convolutions against float64 sums, groups of channels, and what keeps loops apart."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.ops import channel_major
from convmixer_jax.ops.channel_major import CPU_OPTIONS, ChannelMajor, never
from convmixer_jax.ops.spatial import SpatialParams, spatial
from tests.ops import plain
from tests.ops.plain import CHANNEL_MAJOR, ORDERS, Case
from tests.ops.test_depthwise import F32, arrays, exact_and_bounds

pytestmark = pytest.mark.usefixtures("quick_compilation")


def assert_within_bounds(x: Any, g: Any, kernel: Any) -> None:
    """Asserts that the convolution of [B, H, W, C] and its gradients err by no more than float32 sums may."""

    def convolve(x, kernel, g):
        layout, of = CHANNEL_MAJOR.layout, CHANNEL_MAJOR.of
        of_layout = layout.kernel(kernel[:, :, None])
        y, same = layout.depthwise(of(x), of_layout)
        by_input, by_kernel, by_bias = layout.depthwise_grads(of(x), of_layout, of(g))
        by_kernel = by_kernel.transpose(1, 2, 0)
        return [*map(CHANNEL_MAJOR.usual, (y, by_input)), by_kernel], CHANNEL_MAJOR.usual(same), by_bias

    results, same, by_bias = jax.jit(convolve)(x, kernel, g)
    for result, (value, bound) in zip(results, exact_and_bounds(x, g, kernel), strict=True):
        assert result.dtype == F32
        assert (np.abs(np.asarray(result, np.float64) - value) <= bound).all()
    np.testing.assert_array_equal(same, x)
    # A sum of n numbers of about 1, as the gradient of a kernel of one pixel over a map of ones.
    np.testing.assert_allclose(by_bias, np.asarray(g, np.float64).sum((0, 1, 2)), atol=g.size * 2.0**-24 * 4)


@pytest.mark.parametrize("k", range(1, 10))
def test_convolutions(k):
    assert_within_bounds(*arrays((3, 5, 4, 2), k, F32))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (65, 2, 3, 1), (2, 1, 7, 3)])
def test_maps_smaller_than_the_kernel_and_odd_batches(shape):
    assert_within_bounds(*arrays(shape, 4, F32))


def test_rows_longer_than_a_chain_and_reductions_of_a_single_offset(monkeypatch):
    monkeypatch.setattr(channel_major, "LONGEST_CHAIN", 2)
    monkeypatch.setattr(channel_major, "MOST_OUTPUTS", 2)
    assert_within_bounds(*arrays((2, 4, 3, 2), 3, F32))


def has_bfloat16_products() -> bool:
    """Whether this processor is an x86 one with AVX512-BF16."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


@pytest.mark.skipif(not has_bfloat16_products(), reason="this processor has no products of bfloat16")
def test_products_of_bfloat16_are_not_made_of_float32_copies():
    """The copies would be of the maps' shape, which no result in float32 has."""

    def products(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> Any:
        return ChannelMajor().product(x, kernel), ChannelMajor().product_grads(x, kernel, grad)

    x, grad = jnp.ones((32, 4, 4, 64), jnp.bfloat16), jnp.ones((48, 4, 4, 64), jnp.bfloat16)
    lowered = jax.jit(products).lower(x, jnp.ones((32, 48)), grad)
    text = str(lowered.compile(compiler_options=CPU_OPTIONS).as_text())
    fused = re.findall(r"^%\S+ \((.*)\) -> f32\[\d+,\d+\]", text, re.MULTILINE)
    operands = [re.findall(r"(\w+)\[\d+,\d+\]", parameters) for parameters in fused]
    assert operands.count(["bf16", "bf16"]) == 3
    assert ["f32", "f32"] not in operands


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_patches(order, p):
    """Rows and columns beyond a whole number of patches are cut off."""
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(5, 7, 8, 2)), rng.normal(size=(p, p, 2, 3))
    height, width = 7 // p, 8 // p
    cut = images[:, : height * p, : width * p].reshape(5, height, p, width, p, 2)
    found = jax.jit(ORDERS[order].layout.embed)(*(leaf.astype("float32") for leaf in (images, kernel)))
    exact = np.einsum("bhiwjc,ijcd->bhwd", cut, kernel)
    # Sums of at most 18 products: 18 roundings of 2^-24 of sums of sizes below 64.
    np.testing.assert_allclose(ORDERS[order].usual(found), exact, rtol=0, atol=18 * 64 * 2.0**-24)


CHANNELS = 6
EVEN = Case(2, (3, 2), 4, "gelu", True)
MAP_BYTES = 4 * 3 * 2 * 4  # of one channel, in float32, whatever the map's dtype


def spatial_and_gradients(layout: ChannelMajor, dtype: str) -> Any:
    v, params, keep, weights = jax.tree.map(lambda leaf: leaf.astype("float32"), EVEN.arrays(CHANNELS))
    v, weights = (CHANNEL_MAJOR.of(leaf).astype(dtype) for leaf in (v, weights))

    def both(v, params, weights):
        params = params._replace(kernel=layout.kernel(params.kernel))
        y, back, moments = jax.vjp(
            lambda v, params: spatial(v, params, None, keep, layout, plain.settings("gelu")), v, params, has_aux=True
        )
        return y, moments, back(weights)

    return jax.device_get(jax.jit(both)(v, params, weights))


@functools.cache
def at_once(dtype: str) -> Any:
    return spatial_and_gradients(ChannelMajor(grouped=False), dtype)


@pytest.mark.parametrize("size, dtype", [(1, "float32"), (2, "float32"), (3, "float32"), (2, "bfloat16")])
def test_groups_of_channels_give_what_all_at_once_give(monkeypatch, size, dtype):
    # Of 4 maps at most the 3 are taken that divide the channels.
    monkeypatch.setattr(channel_major, "GROUP_BYTES", (4 if size == 3 else size) * MAP_BYTES)
    grouped = spatial_and_gradients(ChannelMajor(), dtype)
    assert grouped[0].dtype == jnp.dtype(dtype)
    # Sums of 24 values in another order; in bfloat16 a value between two numbers may then be rounded to the other one,
    # and what follows from it moves along.
    tolerance = {"float32": 24 * 10 * 2.0**-24, "bfloat16": 2 * 2.0**-8}[dtype]
    for found, wanted in zip(*map(jax.tree.leaves, (grouped, at_once(dtype))), strict=True):
        assert found.dtype == wanted.dtype
        found, wanted = (np.asarray(leaf, np.float64) for leaf in (found, wanted))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("maps, grouped, size", [(1, True, 1), (5, True, 3), (6, True, 6), (1, False, 6)])
def test_as_many_channels_are_a_group_as_fit(monkeypatch, maps, grouped, size):
    monkeypatch.setattr(channel_major, "GROUP_BYTES", maps * MAP_BYTES)
    seen = []

    def noted(part):
        seen.append(len(part))
        return part

    jax.eval_shape(functools.partial(ChannelMajor(grouped).by_groups, noted), jnp.zeros((CHANNELS, 3, 2, 4)))
    assert min(seen) == size


VALUES = {"nan": (np.nan, False), "infinity": (np.inf, False), "minus infinity": (-np.inf, False)}
VALUES |= {"zero": (0.0, False), "large": (9e37, False), "beyond": (2e38, True), "beyond, negative": (-2e38, False)}


@pytest.mark.parametrize("value, expected", VALUES.values(), ids=VALUES)
def test_the_condition_that_never_holds_in_a_sound_run(value, expected):
    assert bool(never(jnp.full((2, 3), value, F32))) == expected


@pytest.mark.parametrize("place", ["kernel", "scale"])
def test_where_it_does_hold_the_result_is_not_finite(place):
    """A weight of 2e38 is no use in float32, and the update is left out, not computed wrongly."""
    v, params, keep, weights = jax.tree.map(lambda leaf: leaf.astype("float32"), EVEN.arrays(CHANNELS))
    params.kernel[0, 0, 0, 0] = params.entry.scale[0] = 0
    spoilt = {"kernel": params.kernel[0, 0, 0], "scale": params.entry.scale}[place]
    spoilt[0] = 2e38

    def scalar(params: SpatialParams) -> jax.Array:
        params = params._replace(kernel=CHANNEL_MAJOR.layout.kernel(params.kernel))
        y, _ = spatial(CHANNEL_MAJOR.of(v), params, None, keep, CHANNEL_MAJOR.layout, plain.settings("gelu"))
        return (y * CHANNEL_MAJOR.of(weights)).sum()

    value, gradients = jax.jit(jax.value_and_grad(scalar))(params)
    assert not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradients)))
