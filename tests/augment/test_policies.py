"""The three tables: what a magnitude means to every operation, timm's policy strings, and what is refused."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.augment.operations import OPERATIONS
from convmixer_jax.augment.policies import TABLES, imgaug
from convmixer_jax.augment.policies import torchvision as torchvision_policy
from convmixer_jax.augment.policy import Policy
from convmixer_jax.augment.timm_policy import TIMM_SECTIONS, TIMM_WEIGHTS, parse_timm, timm
from convmixer_jax.benchmarks.pillow_ops import TORCHVISION, torchvision_value
from convmixer_jax.errors import UserError
from tests.reference.policy_values import imgaug_value, timm_value


def values(policy: Policy, magnitude: float, sign: int) -> dict[str, float]:
    """Returns the value of every operation; translations not yet cut to whole pixels."""
    rows = policy.levels.items()
    return {name: float(level.value(level.of(magnitude), jnp.asarray(float(sign)))) for name, level in rows}


@pytest.mark.parametrize("table", TABLES)
def test_every_operation_exists(table):
    policy = TABLES[table]("rand-m9", 2, 9)
    assert set(policy.names) <= set(OPERATIONS)
    assert len(policy.names) == {"timm": 15, "torchvision": 14, "imgaug": 18}[table]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [0, 1, 5, 9, 9.7, 10])
@pytest.mark.parametrize("increasing", [False, True])
def test_timms_magnitudes(increasing, magnitude, sign):
    got = values(timm(f"rand-inc{int(increasing)}", 2, 9), magnitude, sign)
    expected = {name: timm_value(name, magnitude, sign, increasing) for name in got}
    assert got == pytest.approx(expected, rel=1e-6)


def test_timms_magnitudes_above_ten():
    # Three quarters above: beyond full strength where that has a meaning, else at its end.
    got = values(timm("rand-m17.5-mmax20-inc1", 2, 9), 17.5, -1)
    chosen = {name: got[name] for name in ("rotate", "color", "solarize", "solarize_add", "posterize", "shear_x")}
    expected = {"rotate": -52.5, "color": 0.1, "solarize": 0, "solarize_add": 128, "posterize": -3, "shear_x": -0.525}
    assert chosen == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [0, 4, 7, 9, 12, 15, 30])
def test_torchvisions_magnitudes(magnitude, sign):
    policy = torchvision_policy("", 2, magnitude)
    assert set(policy.names) == set(TORCHVISION)
    got = values(policy, magnitude, sign)
    # On images as large as float32 counts, whole pixels make no difference.
    expected = {name: torchvision_value(name, magnitude, sign, 2**24, 2**24) for name in got}
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("magnitude", [0, 4, 7, 12.5, 29, 30])
def test_imgaugs_magnitudes(magnitude, sign):
    got = values(imgaug("", 2, magnitude), magnitude, sign)
    expected = {name: imgaug_value(name, magnitude, sign) for name in got}
    assert got == pytest.approx(expected, rel=1e-6)


def test_levels_of_arrays_are_those_of_numbers():
    # With noise the magnitudes are arrays. Rounding makes no difference to those here.
    magnitudes = np.array([0.5, 2.5, 7.25, 9.75], np.float32)
    for increasing in (0, 1):
        for level in timm(f"rand-inc{increasing}", 2, 9).levels.values():
            alone = [float(level.of(float(m))) for m in magnitudes]
            together = np.broadcast_to(level.of(jnp.asarray(magnitudes)), 4)
            np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_policy_strings_are_parsed():
    defaults = {"m": 10, "n": 2, "mstd": 0, "mmax": 10, "inc": 0, "p": 0.5, "w": -1}
    assert set(defaults) == set(TIMM_SECTIONS)
    assert parse_timm("rand") == defaults
    assert parse_timm("rand-m9-mstd0.5-inc1") == defaults | {"m": 9, "mstd": 0.5, "inc": 1}
    assert parse_timm("rand-n3-p0-w0-mmax12.5-mstd101") == defaults | {
        **{"n": 3, "p": 0, "w": 0, "mmax": 12.5, "mstd": 101},
    }


def test_policy_strings_become_policies():
    policy = timm("rand-m9-mstd0.5-inc1", 7, 7)
    assert (policy.num_ops, policy.magnitude, policy.noise, policy.magnitude_max) == (2, 9, 0.5, 10)
    assert (policy.probability, policy.distinct, policy.weights) == (0.5, False, None)
    assert timm("rand-mstd101", 2, 9).noise == math.inf
    assert timm("rand-m12", 2, 9).magnitude_max == timm("rand-m12-mmax0", 2, 9).magnitude_max == 10
    assert timm("rand-m12-mmax15", 2, 9).magnitude_max == 15
    weighted = timm("rand-w0", 2, 9)
    assert weighted.distinct
    assert weighted.weights is not None
    assert dict(zip(weighted.names, weighted.weights, strict=True)) == TIMM_WEIGHTS
    assert sum(TIMM_WEIGHTS.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "policy, words",
    [
        ("", ["begins with rand", "rand-m9-mstd0.5-inc1"]),
        ("augmix-m9", ["'augmix-m9'", "begins with rand"]),
        ("rand-x9", ["'x9' is no section", "m, n, mstd, mmax, inc, p, w"]),
        ("rand-mst0.5", ["'mst0.5' is no section", "did you mean mstd"]),
        ("rand-m", ["section 'm' lacks its number"]),
        ("rand-m9-", ["'' is no section"]),
        ("rand-m1e3", ["'m1e3' is no section"]),
        ("rand-m9-m8", ["section 'm' stands twice"]),
        ("rand-n0", ["'n0' needs a whole number from 1 upwards"]),
        ("rand-n1.5", ["'n1.5' needs a whole number"]),
        ("rand-p1.5", ["'p1.5' needs a number from 0 to 1"]),
        ("rand-inc2", ["'inc2' needs a whole number from 0 to 1"]),
        ("rand-w1", ["'w1' may be w0 alone"]),
        ("rand-n14-w0", ["n is 14", "13 operations", "leave w0 out"]),
    ],
)
def test_malformed_policy_strings_are_refused(policy, words):
    with pytest.raises(UserError) as raised:
        timm(policy, 2, 9)
    for word in (f"config.augment.rand_augment.policy is {policy!r}", *words):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    "table, num_ops, magnitude, words",
    [
        ("torchvision", 0, 9, "num_ops is 0: a whole number from 1 upwards"),
        ("torchvision", 2, 31, "magnitude is 31: this table needs a whole number from 0 to 30"),
        ("torchvision", 2, 9.5, "magnitude is 9.5: this table needs a whole number"),
        ("torchvision", 2, -1, "magnitude is -1"),
        ("imgaug", 0, 9, "num_ops is 0: a whole number from 1 to 18, each once"),
        ("imgaug", 19, 9, "num_ops is 19: a whole number from 1 to 18, each once"),
        ("imgaug", 2, 30.5, "magnitude is 30.5: this table needs a number from 0 to 30"),
        ("imgaug", 2, float("nan"), "magnitude is nan"),
    ],
)
def test_numbers_out_of_range_are_refused(table, num_ops, magnitude, words):
    with pytest.raises(UserError) as raised:
        TABLES[table]("", num_ops, magnitude)
    assert f"config.augment.rand_augment.{words}" in str(raised.value)
