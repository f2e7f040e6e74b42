"""Learning rates of every update against the definitions that they follow."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from convmixer_jax.errors import UserError
from convmixer_jax.training.schedules import SCHEDULES, ScheduleSettings, make_schedule

pytestmark = pytest.mark.usefixtures("quick_compilation")

PEAK = 0.05
# A rate takes about ten roundings by up to 2^-24; where a position is divided by the distance of two knots they weigh
# up to five times as much (position E, knots E/5 apart): 3e-6 of the peak at most.
TOLERANCE = 3e-6 * PEAK


def rates(name: str, settings: ScheduleSettings) -> np.ndarray:
    """Returns the rate of each update of a run, computed as the step does: traced, from an int32 scalar."""
    schedule = make_schedule(name, settings)
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(settings.total_steps, dtype=jnp.int32)))


SETTINGS = ScheduleSettings(
    learning_rate=PEAK, epochs=10, steps_per_epoch=20, warmup_epochs=1.0, final_learning_rate=0.001
)  # fmt: skip
# 200 updates. first rate, the update with the peak (all of them: None), last rate
EXPECTED = {
    "triangle": (PEAK / 80, 79, 0.0),  # 1/20 of an epoch into four; epoch 4 ends with update 79
    "slanted_triangle": (PEAK / 32, 20, PEAK / 32),  # a tenth of 200
    "one_cycle": (PEAK / 25, 59, PEAK / 25e4),  # 0.3 x 200 - 1
    "cosine": (0.0, 20, 0.001),  # after one epoch of warm-up
    "constant": (PEAK, None, PEAK),
}


def test_every_schedule_is_expected_something_of():
    assert set(EXPECTED) == set(SCHEDULES)


@pytest.mark.parametrize("name", EXPECTED)
def test_start_peak_and_end(name):
    first, top, last = EXPECTED[name]
    rate = rates(name, SETTINGS)
    np.testing.assert_allclose(rate[[0, -1]], [first, last], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(rate.max(), PEAK, rtol=0, atol=TOLERANCE)
    if top is None:
        assert np.ptp(rate) == 0
    else:
        assert rate.argmax() == top
        assert (np.diff(rate)[:top] > 0).all()
        assert (np.diff(rate)[top:] < 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_of_one_update_has_a_finite_rate(name):
    assert 0 <= rates(name, ScheduleSettings(learning_rate=PEAK, epochs=1, steps_per_epoch=1)) <= PEAK


# Knots coincide at 1 to 4 epochs: 0, 0, 0, 1; 0, 0, 1, 2; 0, 1, 2, 3 and 0, 1, 3, 4 for the whole ones.
# Then one of each remainder of a division by five.
@pytest.mark.parametrize("epochs, n", [
    *((epochs, 97) for epochs in (1, 2, 3, 4, 5, 7, 13, 199, 200)), (1, 1), (4, 1), (25, 1),
])  # fmt: skip
def test_triangle_is_the_authors_interpolation(epochs, n):
    settings = ScheduleSettings(learning_rate=PEAK, epochs=epochs, steps_per_epoch=n)
    expected = [
        np.interp(epoch + (i + 1) / n, [0, epochs * 2 // 5, epochs * 4 // 5, epochs], [0, PEAK, PEAK / 20, 0])
        for epoch in range(epochs)
        for i in range(n)
    ]
    np.testing.assert_allclose(rates("triangle", settings), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("epochs, n, offset", [(10, 20, 1.0), (25, 97, 1.0), (100, 9, 1.0), (5, 3, 0.5), (3, 4, 2.5)])
def test_triangle_with_an_offset_is_so_far_ahead(epochs, n, offset):
    settings = ScheduleSettings(learning_rate=PEAK, epochs=epochs, steps_per_epoch=n, offset_epochs=offset)
    done = np.arange(1, epochs * n + 1) / n + offset
    expected = np.interp(done, [0, epochs * 2 // 5, epochs * 4 // 5, epochs], [0, PEAK, PEAK / 20, 0])
    rate = rates("triangle", settings)
    np.testing.assert_allclose(rate, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(rate == 0, done >= epochs)
    if offset == 1:
        assert (rate[-n:] == 0).all(), "the last epoch"


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"triangle"}))
def test_other_schedules_know_no_offset(name):
    ahead = rates(name, dataclasses.replace(SETTINGS, offset_epochs=1.0))
    np.testing.assert_array_equal(ahead, rates(name, SETTINGS))


@pytest.mark.parametrize("total", [1, 2, 3, 4, 10, 333])
def test_one_cycle_is_torchs(total):
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(adamw, max_lr=PEAK, total_steps=total)
    expected = [adamw.param_groups[0]["lr"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no gradient was ever applied
        for _ in range(total - 1):
            scheduler.step()
            expected.append(adamw.param_groups[0]["lr"])
    settings = ScheduleSettings(learning_rate=PEAK, epochs=1, steps_per_epoch=total)
    np.testing.assert_allclose(rates("one_cycle", settings), expected, rtol=0, atol=TOLERANCE)


def ulmfit(t: int, total: int, cut_frac: float = 0.1, ratio: float = 32) -> float:
    """Returns the rate of update t of `total`: arXiv 1801.06146, equation 3."""
    cut = int(total * cut_frac)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return PEAK * (1 + p * (ratio - 1)) / ratio


@pytest.mark.parametrize("total", [10, 50, 200, 1000])
def test_slanted_triangle_is_ulmfits(total):
    # The paper falls from the cut to peak/32 at t = total, which no update is at. The end documented here is the last
    # update, so that from the cut on each of its steps is 1/(total - 1 - cut) of the way, not 1/(total - cut).
    settings = ScheduleSettings(learning_rate=PEAK, epochs=1, steps_per_epoch=total)
    rate, cut = rates("slanted_triangle", settings), total // 10
    rising = [ulmfit(t, total) for t in range(cut + 1)]
    stretched = (total - cut) / (total - 1 - cut)
    falling = [ulmfit(cut + (t - cut) * stretched, total) for t in range(cut + 1, total)]
    np.testing.assert_allclose(rate, rising + falling, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(rate[-1], PEAK / 32, rtol=1e-5)


def test_slanted_triangle_ends_at_its_last_update_where_the_paper_undershoots():
    # 195 updates: the cut is at 19, and the paper's fall of 9 x 19 updates would be over at 190 and go on below.
    settings = ScheduleSettings(learning_rate=PEAK, epochs=1, steps_per_epoch=195)
    rate = rates("slanted_triangle", settings)
    assert ulmfit(194, 195) < PEAK / 32
    assert rate.argmax() == 19
    np.testing.assert_allclose([rate[0], rate[-1]], PEAK / 32, rtol=1e-5)


@pytest.mark.parametrize("final", [0.0, 0.001])
@pytest.mark.parametrize("warmup_epochs, warmup", [(0.0, 0), (0.5, 10), (2.0, 40), (9.0, 180)])
def test_cosine_with_warm_up(warmup_epochs, warmup, final):
    settings = dataclasses.replace(SETTINGS, warmup_epochs=warmup_epochs, final_learning_rate=final)
    steps = np.arange(200)
    rising = PEAK * steps / max(warmup, 1)
    falling = final + (PEAK - final) * (1 + np.cos(np.pi * (steps - warmup) / (199 - warmup))) / 2
    expected = np.where(steps < warmup, rising, falling)
    np.testing.assert_allclose(rates("cosine", settings), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("warmup_epochs", [10.0, 11.0])
def test_a_warm_up_as_long_as_the_run_is_the_users_mistake(warmup_epochs):
    settings = dataclasses.replace(SETTINGS, warmup_epochs=warmup_epochs)
    with pytest.raises(UserError, match=r"config\.schedule\.warmup_epochs is 1[01]\.0.*config\.epochs.*10"):
        make_schedule("cosine", settings)


def test_an_unknown_name_is_the_users_mistake():
    with pytest.raises(UserError, match=r"config\.schedule\.name is 'linear'") as raised:
        make_schedule("linear", SETTINGS)
    assert all(name in str(raised.value) for name in SCHEDULES)


def test_a_schedule_that_is_past_its_end_from_the_start_is_the_users_mistake():
    settings = ScheduleSettings(learning_rate=1.0, epochs=2, steps_per_epoch=4, offset_epochs=2.0)
    with pytest.raises(
        UserError, match=r"config\.schedule\.offset_epochs is 2\.0: it must be below config\.epochs, .* 2"
    ):
        make_schedule("triangle", settings)
