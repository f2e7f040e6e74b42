"""Activations and their slopes against SciPy, in the forward pass and again in the backward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from convmixer_jax.models.layers import PLAIN_ACTIVATIONS
from convmixer_jax.ops.activations import ACTIVATIONS, normal_cdf

pytestmark = pytest.mark.usefixtures("quick_compilation")

PASSES = (False, True)  # forward, and again in the backward pass
POINTS = np.concatenate([np.linspace(-6, 6, 241), [-40.0, -13.5, 13.5, 40.0, 1e4]])
EXACT = {
    "gelu": (
        lambda u: u * scipy.special.ndtr(u),
        lambda u: scipy.special.ndtr(u) + u * scipy.stats.norm.pdf(u),
    ),
    "relu": (lambda u: np.maximum(u, 0), lambda u: (u > 0).astype(u.dtype)),
}


def test_every_activation_is_in_all_tables():
    assert set(ACTIVATIONS) == set(PLAIN_ACTIVATIONS) == set(EXACT)


@functools.partial(jax.jit, static_argnums=0)
def both_passes(name, u):
    """Returns (value, value again, value again with slope, slope)."""
    row = ACTIVATIONS[name]
    return (*(row.value(u, again) for again in PASSES), *row.value_and_slope(u))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_and_slope(name, dtype):
    points = POINTS.astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        value, again, beside, slope = jax.device_get(both_passes(name, points))
    exact_value, exact_slope = (function(points.astype("float64")) for function in EXACT[name])
    # An argument off by an ulp, an erf off by a few of 1 (what is left of 0.5 - 0.5 erf has no digits far out), and
    # the factor u: eight roundings of max(1, |u|) cover it.
    error = 8 * np.finfo(dtype).eps * np.maximum(1, np.abs(points))
    assert {leaf.dtype for leaf in (value, again, slope)} == {points.dtype}
    np.testing.assert_array_equal(again, beside)
    for found, exact in ((value, exact_value), (again, exact_value), (slope, exact_slope)):
        assert (np.abs(found - exact) <= error).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_is_jaxs_derivative_of_the_reference(name):
    # Beside 0, where ReLU's is a convention: here 0, as in PyTorch and in JAX.
    points = jnp.asarray(POINTS, jnp.float32)
    derivative = jax.vmap(jax.grad(PLAIN_ACTIVATIONS[name]))(points)
    np.testing.assert_allclose(ACTIVATIONS[name].value_and_slope(points)[1], derivative, rtol=0, atol=1e-6)
    assert ACTIVATIONS["relu"].value_and_slope(jnp.zeros(1))[1] == 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bfloat16_is_widened_before_anything_is_rounded(name):
    u = jnp.asarray(POINTS, jnp.bfloat16)
    for narrow, wide in zip(*(jax.tree.leaves(both_passes(name, u)) for u in (u, u.astype("float32"))), strict=True):
        assert narrow.dtype == jnp.float32
        np.testing.assert_array_equal(narrow, wide)


def test_the_passes_are_not_the_same_expression():
    """What is the same one is merged by the compiler, and kept from one pass to the other."""
    u = jax.ShapeDtypeStruct((4,), jnp.float32)
    written = {str(jax.make_jaxpr(functools.partial(normal_cdf, again=again))(u)) for again in PASSES}
    assert len(written) == 2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_infinity_are_kept(name):
    *values, slope = both_passes(name, jnp.asarray([jnp.nan, jnp.inf]))
    for value in values:
        assert np.isnan(value[0])
        assert value[1] == np.inf
    # The value stands beside the slope in the backward pass, so that one of them is enough.
    assert np.isnan(values[-1][0] * slope[0])
