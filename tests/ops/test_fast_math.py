"""Statistics and gradients compiled as a run compiles them: where sums may be taken in any order.

Without `quick_compilation`, which would leave out what could go wrong here.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.ops.choice import compiler_options
from convmixer_jax.ops.spatial import SpatialParams, moments_of, spatial
from tests.ops import plain
from tests.ops.plain import ORDER_NAMES, ORDERS, Case

# What the names of `ORDERS` are in OPS.
ROWS = {"channel_major": "channel_major", "channels_last": "shifted", "native": "native"}
CHANNELS = 2
CASE = Case(3, (3, 4), 32, "relu", False)
RIGHT_TO = 1e-3  # of the variance, and of each gradient's largest value
MEANS = (0.0, 10.0, 100.0, 1000.0)


def options(order: str) -> dict[str, Any]:
    return compiler_options(ROWS[order], "cpu")


def with_means(mean: float) -> tuple[np.ndarray, SpatialParams, np.ndarray]:
    """Returns (v, params, weights) in float32; biases put both activations at the mean, with deviations of about 1."""
    v, params, _, weights = jax.tree.map(np.float32, CASE.arrays(CHANNELS))
    entry, norm = (
        part._replace(bias_before=part.bias_before + np.float32(mean)) for part in (params.entry, params.norm)
    )
    # Of the map that is convolved the norm decides: sums of nine products of deviation 1/3 each.
    return v, params._replace(entry=entry._replace(bias=0 * entry.bias), norm=norm), weights


@functools.cache
def program(order: str) -> Any:
    """Compiles (v, params, weights) to (moments, gradients of v and params)."""
    layout, of = ORDERS[order].layout, ORDERS[order].of

    def scalar(v, params, weights):
        params = params._replace(kernel=layout.kernel(params.kernel))
        y, moments = spatial(of(v), params, None, None, layout, plain.settings("relu"))
        return (y * of(weights)).sum(), moments

    def both(v, params, weights):
        gradients, moments = jax.grad(scalar, argnums=(0, 1), has_aux=True)(v, params, weights)
        return moments, gradients

    return jax.jit(both).lower(*with_means(0.0)).compile(options(order))


@functools.cache
def exact(mean: float) -> Any:
    """The same by NumPy in float64, from the same float32 numbers."""
    v, params, weights = jax.tree.map(np.float64, with_means(mean))
    entry = plain.activate_and_norm(v, params.entry, "relu")
    first = np.maximum(v + params.entry.bias_before, 0)
    second = np.maximum(plain.correlate(entry, params.kernel) + params.norm.bias_before, 0)

    def value(v, params):
        return (plain.spatial(v, params, None, "relu") * weights).sum()

    return (plain.moments(first), plain.moments(second)), plain.gradients(value, v, params)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("order", ORDER_NAMES)
def test_statistics_and_gradients_at_large_means(order, mean):
    moments, gradients = program(order)(*with_means(mean))
    exact_moments, exact_gradients = exact(mean)
    for found, (exact_mean, exact_var) in zip(moments, exact_moments, strict=True):
        np.testing.assert_allclose(found.mean, exact_mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.var, exact_var, rtol=RIGHT_TO)
    # Where every value is above 0, the next norm takes a bias away again: its gradient is what is left of a sum of the
    # map's, which cancel.
    floor = np.abs(exact_gradients[0]).max()
    for found, wanted in zip(*map(jax.tree.leaves, (gradients, exact_gradients)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=RIGHT_TO * max(np.abs(wanted).max(), floor))


def test_a_single_pass_without_a_shift_would_be_found_out():
    v, params, _ = with_means(1000.0)
    values = jnp.maximum(v + params.entry.bias_before, 0)
    single_pass = jnp.square(values).mean((0, 1, 2)) - jnp.square(values.mean((0, 1, 2)))
    exact_var = exact(1000.0)[0][0][1]
    assert (np.abs(single_pass - exact_var) > 10 * RIGHT_TO * exact_var).all()


@pytest.mark.parametrize("order", ORDER_NAMES)
def test_the_variance_where_the_shift_is_as_far_off_as_it_can_be(order):
    """All that varies is the one position that the shift is taken from: it is sqrt(H W) = 16 deviations off."""
    rng = np.random.default_rng(0)
    values = np.full((9, 16, 16, CHANNELS), 50_000, np.float32)
    values[:, 8, 8] += 500 + rng.normal(size=(9, CHANNELS)).astype(np.float32)
    layout = ORDERS[order].layout
    moments = jax.jit(lambda v: moments_of(ORDERS[order].of(v), layout, plain.settings("relu")))
    found = moments.lower(values).compile(options(order))(values).var
    # Sums of 9 * 256 numbers, whose rounding errors the cancellation makes 256 times larger. Without a shift that
    # would be (50,000 / 31) ** 2, three million times.
    right_to = 256 * 9 * 256 * 2.0**-24
    np.testing.assert_allclose(found, values.astype("float64").var((0, 1, 2)), rtol=right_to)


@pytest.mark.parametrize("order", ORDER_NAMES)
@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_one_number_that_is_not_finite_is_seen_in_its_channel_and_no_other(order, spoilt):
    v, params, weights = with_means(1.0)
    v[3, 1, 2, 0] = spoilt
    moments, (by_v, by_params) = program(order)(v, params, weights)
    for found in moments:
        np.testing.assert_array_equal(np.isfinite(found.var), [False, True])
    assert not np.isfinite(by_v[..., 0]).all()
    assert np.isfinite(by_v[..., 1]).all()
    of_kernel = np.isfinite(by_params.kernel[:, :, 0])
    assert not of_kernel[..., 0].any()
    assert of_kernel[..., 1].all()


@pytest.mark.parametrize("order", ORDER_NAMES)
def test_two_runs_are_equal_to_the_bit(order):
    first, second = (jax.device_get(program(order)(*with_means(10.0))) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
