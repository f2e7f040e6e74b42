"""A call's seconds are the median of several, and two calls take turns."""

import time

from convmixer_jax.measuring.timing import Timing, measure_together


def test_a_call_is_timed_by_its_median():
    waits = iter([0.0, 0.5, 0.01, 0.01, 0.01])  # the first does not count; one outlier is no matter
    timing = measure_together({"wait": lambda: time.sleep(next(waits))}, repetitions=4)["wait"]
    assert 0.01 <= timing.median < 0.1
    assert 0.01 <= timing.low <= timing.median <= timing.high
    assert Timing(0.5, 0.4, 0.625).rate(10) == 20
    assert Timing(0.5, 0.4, 0.625).rate_quartiles(10) == (16, 25)


def test_calls_are_timed_in_turn():
    order: list[str] = []
    measure_together({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repetitions=3)
    assert "".join(order) == "abababab"
