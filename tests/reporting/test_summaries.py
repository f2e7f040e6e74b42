"""Numbers that a reader can check by hand."""

import math

import pytest

from convmixer_jax.reporting.summaries import different, mean_and_spread, mean_curve, number, pareto_front


def test_mean_and_sample_standard_deviation():
    assert mean_and_spread([]) == (None, None)
    assert mean_and_spread([0.9]) == (0.9, None)
    mean, spread = mean_and_spread([0.80, 0.84])
    assert mean == pytest.approx(0.82)
    assert spread == pytest.approx(0.04 / math.sqrt(2))  # deviations of 0.02, over n - 1 = 1
    assert mean_and_spread([1, 2, 3, 4])[1] == pytest.approx(math.sqrt(5 / 3))


def test_a_curve_is_averaged_where_it_has_points():
    assert mean_curve([]) == []
    assert mean_curve([{1.0: 10.0, 2.0: 20.0}, {1.0: 30.0}]) == [
        (1.0, 20.0, pytest.approx(math.sqrt(200))),
        (2.0, 20.0, 0.0),
    ]


FRONTS = {
    "a line": ([(1, 10), (2, 20), (3, 30)], {0, 1, 2}),
    "dearer and worse": ([(1, 20), (2, 10)], {0}),
    "as dear and worse": ([(1, 20), (1, 10)], {0}),
    "dearer and as good": ([(1, 20), (2, 20)], {0}),
    "equal": ([(1, 20), (1, 20), (2, 19)], {0, 1}),
    "in any order": ([(4, 90), (1, 80), (3, 85), (2, 88)], {0, 1, 3}),
    "alone": ([(1, 1)], {0}),
    "none": ([], set()),
}


@pytest.mark.parametrize("pairs, front", FRONTS.values(), ids=FRONTS)
def test_on_the_front_is_what_nothing_beats(pairs, front):
    assert pareto_front(pairs) == front


def test_keys_that_differ_are_in_order():
    assert different([{"a": 1, "b": 2, "c": [3]}, {"a": 1, "b": 3, "c": [3], "d": 4}]) == ["b", "d"]
    assert different([{"a": 1}]) == different([]) == []


def test_only_finite_numbers_are_numbers():
    assert [number(value) for value in (1, 2.5, True, None, "3", float("nan"), float("inf"), [1], 10**400)] == [
        1.0, 2.5, None, None, None, None, None, None, None,
    ]  # fmt: skip
