"""BatchNorm against the definition of torch.nn.BatchNorm2d, computed in float64 with NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.models.batch_norm import BatchNorm
from convmixer_jax.training.mesh import over_data, replicated
from tests.training.steps import sent

UNIT = 2.0**-24  # the largest relative rounding error of a float32
AXES = (0, 1, 2)


def start(channels: int) -> dict[str, dict[str, jax.Array]]:
    """Returns variables unlike the fresh ones, each channel its own."""
    steps = jnp.arange(channels, dtype=jnp.float32)
    return {
        "params": {"scale": 0.5 + steps, "bias": 2 - steps},
        "batch_stats": {"mean": 3 + steps, "var": 0.25 + steps},
    }


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and (biased) variance of each channel in float64."""
    return x.astype(np.float64).mean(AXES), x.astype(np.float64).var(AXES)


def normalise(x: np.ndarray, mean: np.ndarray, var: np.ndarray, params: dict[str, jax.Array]) -> np.ndarray:
    scale, bias = (np.asarray(params[name], np.float64) for name in ("scale", "bias"))
    return (x.astype(np.float64) - mean) / np.sqrt(var + 1e-5) * scale + bias


@pytest.mark.parametrize("mean", [0, 1, 10, 100, 300, 1000])
def test_variance_survives_a_mean_far_above_the_deviation(mean):
    x = np.random.default_rng(0).normal(mean, 1, (8, 8, 8, 4)).astype(np.float32)
    n = x.size // 4
    # With momentum 1 the running statistics are those of the batch alone.
    model = BatchNorm(momentum=1.0)
    variables = start(4)
    y, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
    expected_mean, expected_var = statistics(x)

    # What a sum of n terms of this size, in any order, can be off by in the mean; its square enters the variance.
    mean_error = n * UNIT * (mean + 1)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], expected_mean, rtol=0, atol=mean_error)
    np.testing.assert_allclose(updated["batch_stats"]["var"], expected_var * n / (n - 1), rtol=1e-3)
    # The deviation is 1 and the largest scale 3.5; values reach 15, whose variance is off by 1e-3 at the very most.
    expected = normalise(x, expected_mean, expected_var, variables["params"])
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=4 * mean_error + 1e-5)


def test_running_statistics_over_three_batches():
    # 0.9 old + 0.1 new with the variance divided by N - 1. At N = 12 that is 9 % more than divided by N.
    rng = np.random.default_rng(1)
    variables = start(3)
    mean, var = (np.asarray(variables["batch_stats"][name], np.float64) for name in ("mean", "var"))
    for _ in range(3):
        x = rng.normal(2, 3, (3, 2, 2, 3)).astype(np.float32)
        _, updated = BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])
        variables = {"params": variables["params"], **updated}
        batch_mean, batch_var = statistics(x)
        mean = 0.9 * mean + 0.1 * batch_mean
        var = 0.9 * var + 0.1 * batch_var * 12 / 11
    # Fewer than 64 roundings of values that only add up.
    np.testing.assert_allclose(variables["batch_stats"]["mean"], mean, rtol=64 * UNIT)
    np.testing.assert_allclose(variables["batch_stats"]["var"], var, rtol=64 * UNIT)


@pytest.mark.parametrize("group", [1, 2, 4, 16])
def test_groups_are_normalised_alone_and_their_statistics_averaged(mesh, group):
    # Two images on each of 8 devices: a group is half of them, all of them, those of two devices, those of all.
    x = np.random.default_rng(6).normal(np.arange(16)[:, None, None, None], 1, (16, 2, 2, 3)).astype(np.float32)
    variables = start(3)
    whole, split = replicated(mesh(8)), over_data(mesh(8))
    apply = functools.partial(BatchNorm(momentum=1.0, group_size=group).apply, train=True, mutable=["batch_stats"])
    program = jax.jit(apply, in_shardings=(whole, split), out_shardings=(split, whole)).lower(variables, x).compile()
    y, updated = program(*jax.device_put((variables, x), (whole, split)))

    parts = x.reshape(-1, group, 2, 2, 3)
    means, variances = zip(*map(statistics, parts), strict=True)
    n = 4 * group
    np.testing.assert_allclose(updated["batch_stats"]["mean"], np.mean(means, 0), rtol=64 * UNIT)
    np.testing.assert_allclose(updated["batch_stats"]["var"], np.mean(variances, 0) * n / (n - 1), rtol=64 * UNIT)
    expected = [normalise(*each, variables["params"]) for each in zip(parts, means, variances, strict=True)]
    # Of values below 20, whose deviations may be a tenth of them.
    np.testing.assert_allclose(y, np.concatenate(expected), rtol=0, atol=20 * 64 * UNIT * 10)
    # Three means and variances, once, where no group spans devices.
    assert sum(numbers for _, numbers in sent(program.as_text())) <= (6 if group <= 2 else 100)


def test_initialisation_leaves_mean_zero_and_variance_one():
    x = np.random.default_rng(2).normal(5, 2, (4, 2, 2, 3)).astype(np.float32)
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    expected = {
        "params": {"scale": np.ones(3), "bias": np.zeros(3)},
        "batch_stats": {"mean": np.zeros(3), "var": np.ones(3)},
    }
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_bfloat16_input_keeps_float32_statistics():
    x = jnp.asarray(np.random.default_rng(3).normal(3, 1, (8, 4, 4, 3)), jnp.bfloat16)
    variables = start(3)
    y, updated = BatchNorm(momentum=1.0, dtype=jnp.bfloat16).apply(variables, x, train=True, mutable=["batch_stats"])
    mean, var = statistics(np.asarray(x))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype("float32")}
    # 128 terms at 2^-24 each; a bfloat16 of 8 binary digits would be off by up to 2^-8 = 4e-3.
    np.testing.assert_allclose(updated["batch_stats"]["mean"], mean, rtol=128 * UNIT)
    np.testing.assert_allclose(updated["batch_stats"]["var"], var * 128 / 127, rtol=128 * UNIT)
    # Only the output is rounded to 8 binary digits, once: by up to 2^-8 of the value.
    expected = normalise(np.asarray(x), mean, var, variables["params"])
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=1.01 * 2**-8, atol=1e-4)


def test_evaluation_uses_running_statistics_and_keeps_them():
    x = np.random.default_rng(4).normal(50, 1, (4, 2, 2, 3)).astype(np.float32)
    variables = start(3)
    y, after = BatchNorm().apply(variables, x, train=False, mutable=["batch_stats"])
    running = [np.asarray(variables["batch_stats"][name], np.float64) for name in ("mean", "var")]
    np.testing.assert_allclose(y, normalise(x, *running, variables["params"]), rtol=16 * UNIT)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], variables["batch_stats"])


@pytest.mark.parametrize("devices", [2, 8])
def test_statistics_are_those_of_the_global_batch(mesh, devices):
    # Two images of 2x2 pixels on each of 8 devices, each with a mean of its own: a device's own variance would be
    # near 1, not 22, and its factor N / (N - 1) 8/7, not 64/63.
    x = np.random.default_rng(5).normal(np.arange(16)[:, None, None, None], 1, (16, 2, 2, 3)).astype(np.float32)
    variables = start(3)

    def run(n: int) -> tuple[jax.Array, dict]:
        whole, split = replicated(mesh(n)), over_data(mesh(n))
        apply = functools.partial(BatchNorm(momentum=1.0).apply, train=True, mutable=["batch_stats"])
        y, updated = jax.jit(apply, in_shardings=(whole, split), out_shardings=(split, whole))(variables, x)
        assert len(y.sharding.device_set) == n
        return y, updated["batch_stats"]

    y, after = run(devices)
    y_one, after_one = run(1)
    mean, var = statistics(x)
    for stats in (after, after_one):
        np.testing.assert_allclose(stats["mean"], mean, rtol=64 * UNIT)
        np.testing.assert_allclose(stats["var"], var * 64 / 63, rtol=64 * UNIT)
    np.testing.assert_allclose(y, y_one, rtol=0, atol=10 * 64 * UNIT)  # values below 10
