"""The spatial operation and the pooled features against NumPy in float64: values, statistics, every gradient.

Gradients are compared with differences of the NumPy operation, which knows nothing of the formulas of the backward
pass.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.ops.spatial import Moments, Norm, pooled_features, product, spatial
from tests.ops import plain
from tests.ops.plain import CHANNEL_MAJOR, ORDER_NAMES, ORDERS, Case, Order

pytestmark = pytest.mark.usefixtures("quick_compilation")

CHANNELS = 2
CASES = {
    "plain product, one image": Case(1, (2, 3), 1, "gelu", False),
    "even, dropped branches": Case(4, (3, 5), 2, "gelu", True),
    "odd, ReLU": Case(3, (5, 1), 3, "relu", False),
    "larger than the map": Case(6, (2, 2), 5, "relu", True),
}
# Of each array's largest value. float64: what differences are off by, with third derivatives of up to a thousand.
# float32: sums of some hundred terms that nearly cancel below a BatchNorm, by a factor of ten to a hundred. (Of the
# CPU's layout test_fast_math.py has float32, as users' programs compute it.)
TOLERANCES = {"float64": 1e-7, "float32": 1e-4}
SIDES = [
    ("channel_major", "float64"),
    ("channels_last", "float32"),
    pytest.param("native", "float32", marks=plain.NEEDS_COMPILER),
]


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    for (path, leaf), wanted in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(leaf, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=name)


def run(dtype: str, function: Any, *trees: Any) -> Any:
    """Compiles and runs a function of arrays in `dtype`; returns NumPy arrays."""
    with jax.enable_x64(dtype == "float64"):
        return jax.device_get(jax.jit(function)(*jax.tree.map(lambda leaf: leaf.astype(dtype), trees)))


def in_order(order: Order, v: Any, params: Any, keep: Any, case: Case) -> Any:
    """Calls `spatial` with a map and a kernel in the usual order; returns (result in that order, moments)."""
    params = params._replace(kernel=order.layout.kernel(params.kernel))
    y, moments = spatial(order.of(v), params, None, keep, order.layout, plain.settings(case.activation))
    return order.usual(y), moments


@functools.cache
def expected(name: str) -> Any:
    """Returns (result, moments, gradients of v and params) by NumPy."""
    case = CASES[name]
    v, params, keep, weights = case.arrays(CHANNELS)
    entry = plain.activate_and_norm(v, params.entry, case.activation)
    act = plain.VALUES[case.activation]
    moments = (
        plain.moments(act(v + params.entry.bias_before)),
        plain.moments(act(plain.correlate(entry, params.kernel) + params.norm.bias_before)),
    )

    def scalar(v, params):
        return (plain.spatial(v, params, keep, case.activation) * weights).sum()

    return plain.spatial(v, params, keep, case.activation), moments, plain.gradients(scalar, v, params)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order, dtype", SIDES)
def test_values_statistics_and_gradients(order, dtype, name):
    def with_gradients(v, params, keep, weights):
        def scalar(v, params):
            y, moments = in_order(ORDERS[order], v, params, keep, CASES[name])
            return (y * weights).sum(), (y, moments)

        gradients, (y, moments) = jax.grad(scalar, argnums=(0, 1), has_aux=True)(v, params)
        return y, moments, gradients

    found = run(dtype, with_gradients, *CASES[name].arrays(CHANNELS))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(dtype)}
    assert_close(found, expected(name), TOLERANCES[dtype])


def test_the_tolerances_are_tight_enough_to_see_a_kernel_that_is_off_by_a_row():
    case = CASES["even, dropped branches"]
    v, params, keep, _ = case.arrays(CHANNELS)
    off = plain.spatial(v, params._replace(kernel=np.roll(params.kernel, 1, axis=0)), keep, case.activation)
    right = expected("even, dropped branches")[0]
    assert np.abs(off - right).max() > 1000 * TOLERANCES["float32"] * np.abs(right).max()


@pytest.mark.parametrize("order", ORDER_NAMES)
def test_given_moments_are_normalised_with_and_have_no_gradient(order):
    case = CASES["even, dropped branches"]
    v, params, _, _ = case.arrays(CHANNELS)
    _, moments, _ = expected("even, dropped branches")
    given = tuple(Moments(*of_norm) for of_norm in moments)

    def one_image(v, params, given):
        """The statistics are those of both images: this one's own would give something else."""
        settings, layout = plain.settings(case.activation), ORDERS[order].layout
        params = params._replace(kernel=layout.kernel(params.kernel))
        y, returned = spatial(ORDERS[order].of(v), params, given, None, layout, settings)
        return ORDERS[order].usual(y), returned

    y, returned = run("float32", one_image, v[:1], params, given)
    assert_close(y, plain.spatial(v, params, None, case.activation)[:1], TOLERANCES["float32"])
    jax.tree.map(np.testing.assert_array_equal, returned, jax.tree.map(np.float32, given))
    with pytest.raises(TypeError, match="no gradient is defined"):
        jax.grad(lambda v: one_image(v, params, given)[0].sum())(jnp.asarray(v[:1], jnp.float32))


@pytest.mark.parametrize("order, dtype", SIDES)
def test_pooled_features(order, dtype):
    rng = np.random.default_rng(0)
    v, weights = rng.normal(size=(3, 2, 5, CHANNELS)), rng.normal(size=(3, CHANNELS))
    norm = Norm(rng.normal(size=CHANNELS), rng.uniform(0.5, 1.5, CHANNELS), rng.normal(size=CHANNELS))
    layout, of_layout = ORDERS[order].layout, ORDERS[order].of

    def scalar(v, norm):
        pooled, moments = pooled_features(of_layout(v), norm, None, layout, plain.settings("gelu"))
        pooled = layout.examples_first(pooled)
        return (pooled * weights.astype(dtype)).sum(), (pooled, moments)

    found = run(dtype, jax.grad(scalar, argnums=(0, 1), has_aux=True), v, norm)

    def exact(v, norm):
        return plain.activate_and_norm(v, norm, "gelu").mean((1, 2))

    moments = plain.moments(plain.VALUES["gelu"](v + norm.bias_before))
    by_differences = plain.gradients(lambda v, norm: (exact(v, norm) * weights).sum(), v, norm)
    assert_close(found, (by_differences, (exact(v, norm), moments)), TOLERANCES[dtype])


@pytest.mark.parametrize("order, dtype", SIDES)
def test_product(order, dtype):
    rng = np.random.default_rng(0)
    x, kernel, weights = rng.normal(size=(3, 2, 5, 4)), rng.normal(size=(4, 6)), rng.normal(size=(3, 2, 5, 6))

    def with_gradients(x, kernel, weights):
        y, gradients = jax.vjp(lambda x, kernel: product(x, kernel, ORDERS[order].layout), ORDERS[order].of(x), kernel)
        by_x, by_kernel = gradients(ORDERS[order].of(weights))
        return ORDERS[order].usual(y), ORDERS[order].usual(by_x), by_kernel

    exact = (x @ kernel, weights @ kernel.T, np.einsum("bhwc,bhwd->cd", x, weights))
    assert_close(run(dtype, with_gradients, x, kernel, weights), exact, TOLERANCES[dtype])


@pytest.mark.parametrize("order", ORDER_NAMES)
def test_bfloat16_maps_have_float32_statistics_and_gradients_of_parameters(order):
    case = CASES["even, dropped branches"]
    v, params, keep, weights = case.arrays(CHANNELS)

    def with_gradients(v, params):
        def scalar(v, params):
            y, moments = in_order(ORDERS[order], v, params, keep.astype("float32"), case)
            return (y.astype("float32") * weights).sum(), (y, moments)

        gradients, (y, moments) = jax.grad(scalar, argnums=(0, 1), has_aux=True)(v.astype(jnp.bfloat16), params)
        return y, gradients[0], moments, gradients[1]

    *maps, moments, gradients = run("float32", with_gradients, v, params)
    assert [leaf.dtype for leaf in maps] == [jnp.bfloat16, jnp.bfloat16]
    assert {leaf.dtype for leaf in jax.tree.leaves((moments, gradients))} == {np.dtype("float32")}
    # On the way to a gradient six maps are rounded: v, x, u and y, the gradients of u and of v; each by 2^-9 of its
    # values. Norms and products over channels carry an error on with about its size, and of v's gradient some
    # cancels, which two more of each allow for.
    y, moments_of, (by_v, by_params) = expected("even, dropped branches")
    wide = [leaf.astype("float32") for leaf in maps]
    assert_close((wide[0], wide[1], moments, gradients), (y, by_v, moments_of, by_params), 18 * 2.0**-9)


def test_a_kernel_of_zeros():
    """What keeps the compiler from merging loops looks at the kernel, and must change nothing."""
    case = CASES["plain product, one image"]
    v, params, keep, _ = case.arrays(CHANNELS)
    zero = params._replace(kernel=np.zeros_like(params.kernel))
    y, _ = run("float32", lambda v, params: in_order(CHANNEL_MAJOR, v, params, keep, case), v, zero)
    assert_close(y, plain.spatial(v, zero, keep, case.activation), TOLERANCES["float32"])
