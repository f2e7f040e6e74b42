"""Mixing against its definition recomputed from lambda, and the laws of lambda, the boxes and the choices."""

import functools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from convmixer_jax.augment.mixing import DRAW_COUNTS, MIXERS, draw_lambda, make_mix
from convmixer_jax.errors import UserError
from tests.augment.samples import assert_needs_no_other_device

# With fixed seeds these tests always say the same; a sound implementation fails one in 1,000 choices of the seed.
P_VALUE = 1e-3

BOTH: dict[str, Any] = {"mixup_alpha": 0.5, "cutmix_alpha": 0.5, "probability": 1.0, "switch_probability": 0.5}
ONLY_MIXUP = {"mixup_alpha": 0.5, "cutmix_alpha": 0.0, "probability": 1.0, "switch_probability": 0.5}
ONLY_CUTMIX = {"mixup_alpha": 0.0, "cutmix_alpha": 0.5, "probability": 1.0, "switch_probability": 0.5}
SIDES = (12, 10)
BATCH = 64
PARTNER = np.arange(BATCH) ^ 1


def batch(images: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Returns normal noise [B, 12, 10, 3], and targets that are a class of each example's own."""
    return np.random.default_rng(0).normal(0, 1, (images, *SIDES, 3)).astype(np.float32), np.eye(images, dtype="f")


# Compiled once for all alphas.
draw = jax.jit(draw_lambda, static_argnums=1)
cut = jax.jit(MIXERS["cutmix"], static_argnums=(2, 3))


@functools.cache
def mixer(**settings: Any):
    """Returns a function of key, images, targets and probability; compiled once for all probabilities."""

    def mix(key: jax.Array, images: jax.Array, targets: jax.Array, probability: float):
        made = make_mix(**settings | {"probability": probability})
        assert made is not None
        return made(key, images, targets)

    return jax.jit(mix)


def run(seed: int, images: np.ndarray, targets: np.ndarray, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    probability = settings.pop("probability")
    mixed, soft = mixer(**settings)(jax.random.key(seed), images, targets, probability)
    return np.asarray(mixed), np.asarray(soft)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 4.0])
def test_lambda_has_the_beta_distribution(alpha):
    lam = np.asarray(draw(jax.random.key(1), 20_000, alpha), np.float64)
    assert (lam >= 0).all()
    assert (lam <= 1).all()
    law = scipy.stats.beta(alpha, alpha)
    # 40 classes of the same probability. float32 ends near 1, where small alphas put 1 %; a class has 2.5 %.
    counts = np.histogram(lam, law.ppf(np.linspace(0, 1, 41)))[0]
    assert scipy.stats.chisquare(counts).pvalue > P_VALUE
    # Near 0 it keeps its digits, so the lower half has no gap: twice its distribution function is uniform.
    assert scipy.stats.kstest(2 * law.cdf(lam[lam < 0.5]), "uniform").pvalue > P_VALUE


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 10.0, 100.0, 1000.0])
def test_a_million_lambdas_are_numbers_and_of_the_beta_distribution(alpha):
    lam = np.asarray(draw(jax.random.key(8), 1_000_000, alpha), np.float64)
    assert ((lam >= 0) & (lam <= 1)).all()  # so none is NaN
    law, below = scipy.stats.beta(alpha, alpha), lam < 0.5
    assert scipy.stats.binomtest(int(below.sum()), len(lam), 0.5).pvalue > P_VALUE
    # float32 ends near 1, where alphas below 1 put too many for this test.
    halves = [lam[below], 1 - lam[~below]] if alpha >= 1 else [lam[below]]
    for half in halves:
        assert scipy.stats.kstest(2 * law.cdf(half), "uniform").pvalue > P_VALUE


def test_lambda_is_a_number_for_the_smallest_alpha_and_the_most_extreme_draws(monkeypatch):
    lam = np.asarray(draw(jax.random.key(0), 20_000, 1e-3))
    assert np.isfinite(lam).all()
    assert set(np.round(np.unique(lam), 3)) >= {0, 1}
    extremes = np.array([0.0, 0.25, 1 - 2.0**-24], np.float32)  # a quarter turn has hardly any cosine
    draws = iter(np.meshgrid(extremes, extremes))
    monkeypatch.setattr(jax.random, "uniform", lambda *_: jnp.asarray(next(draws)))
    lam = np.asarray(draw_lambda(jax.random.key(0), 9, 0.2))
    assert ((lam >= 0) & (lam <= 1)).all()


@pytest.mark.parametrize("per", DRAW_COUNTS)
def test_mixup_is_the_weighted_mean_with_the_neighbour(per):
    images, targets = batch()
    mixed, soft = run(2, images, targets, per=per, **ONLY_MIXUP)
    lam = soft.diagonal().astype(np.float64)
    assert len(np.unique(lam)) == (1 if per == "batch" else BATCH)
    np.testing.assert_allclose(
        soft, lam[:, None] * targets + (1 - lam[:, None]) * targets[PARTNER], rtol=0, atol=2.0**-24
    )
    weight = lam[:, None, None, None]
    # Values up to 4: 1 - lambda, two products and their sum are rounded, half a step of at most 2^-22 each.
    expected = weight * images + (1 - weight) * images[PARTNER]
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=4 * 2.0**-22)


def own_pixels(images: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """Returns which pixels [B, H, W] are the image's own, having checked that the others are its neighbour's."""
    own = (mixed == images).all(axis=3)
    theirs = (mixed == images[np.arange(len(images)) ^ 1]).all(axis=3)
    np.testing.assert_array_equal(own, ~theirs)
    return own


@pytest.mark.parametrize("per", DRAW_COUNTS)
def test_cutmix_replaces_a_box_and_counts_its_pixels(per):
    images, targets = batch()
    mixed, soft = run(3, images, targets, per=per, **ONLY_CUTMIX)
    replaced = ~own_pixels(images, mixed)
    rows, columns = replaced.any(axis=2), replaced.any(axis=1)
    np.testing.assert_array_equal(replaced, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # without a hole: it begins once at most
        assert (np.diff(line, axis=1, prepend=False) & line).sum(axis=1).max() == 1
    assert len(np.unique(replaced, axis=0)) == 1 if per == "batch" else len(np.unique(replaced, axis=0)) > 20
    lam = 1 - replaced.mean(axis=(1, 2))[:, None]
    np.testing.assert_allclose(soft, lam * targets + (1 - lam) * targets[PARTNER], rtol=0, atol=2.0**-23)


def papers_box(rng: random.Random, height: int, width: int, alpha: float) -> tuple[int, int, int, int]:
    """Draws (top, bottom, left, right) as the paper's code and timm's rand_bbox are defined."""
    ratio = (1 - rng.betavariate(alpha, alpha)) ** 0.5
    half_h, half_w = int(height * ratio) // 2, int(width * ratio) // 2
    y, x = rng.randrange(height), rng.randrange(width)
    return max(y - half_h, 0), min(y + half_h, height), max(x - half_w, 0), min(x + half_w, width)


def test_boxes_are_distributed_as_the_papers():
    n, alpha = 20_000, 1.0
    lam = draw(jax.random.key(4), n, alpha)
    keep, corrected = cut(jax.random.key(5), lam, *SIDES)
    kept = np.asarray(keep)[..., 0]
    np.testing.assert_allclose(corrected, kept.mean(axis=(1, 2)), rtol=0, atol=2.0**-23)
    ours = [(np.flatnonzero(r), np.flatnonzero(c)) for r, c in ((1 - k.min(axis=1), 1 - k.min(axis=0)) for k in kept)]
    rng = random.Random(4)
    theirs = [papers_box(rng, *SIDES, alpha) for _ in range(n)]
    seen_ours = [(r[0], r[-1] + 1, c[0], c[-1] + 1) for r, c in ours if len(r)]
    seen_theirs = [box for box in theirs if box[0] < box[1] and box[2] < box[3]]
    table = [[len(seen), n - len(seen)] for seen in (seen_ours, seen_theirs)]
    assert scipy.stats.chi2_contingency(table).pvalue > P_VALUE  # as often empty
    edges = [np.array(seen).T for seen in (seen_ours, seen_theirs)]
    areas = [(bottom - top) * (right - left) for top, bottom, left, right in edges]
    for ours_values, theirs_values in [*zip(*edges, strict=True), areas]:
        assert scipy.stats.ks_2samp(ours_values, theirs_values).pvalue > P_VALUE


def test_cutmix_boxes_have_the_sides_of_the_drawn_share():
    # Of 12 x 10 pixels a quarter is replaced: sides of 6 and 5, so 3 and 2 to each side of the centre.
    keep, lam = cut(jax.random.key(0), jnp.full(20_000, 0.75), *SIDES)
    areas = 120 - np.asarray(keep).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(lam, 1 - areas / 120, rtol=0, atol=2.0**-23)
    assert areas.max() == 6 * 4
    assert areas.min() == 3 * 2  # in a corner a quarter is left


STEADY = {"mixup_alpha": 500.0, "cutmix_alpha": 500.0}  # lambda is 0.5, within 0.08: no box is empty


@pytest.mark.parametrize("per", DRAW_COUNTS)
def test_mixers_are_chosen_at_their_rates(per):
    settings = STEADY | {"probability": 0.6, "switch_probability": 0.3, "per": per}
    mix = make_mix(**settings)
    assert mix is not None
    keys = jax.random.split(jax.random.key(6), 2_000)
    images, targets = batch(2 if per == "batch" else 4)
    mixed = np.asarray(jax.jit(jax.vmap(lambda key: mix(key, images, targets)[0]))(keys))
    same = (mixed == images).all(axis=4)
    counts = np.stack([same.all(axis=(2, 3)), same.any(axis=(2, 3)) & ~same.all(axis=(2, 3)), ~same.any(axis=(2, 3))])
    if per == "batch":
        np.testing.assert_array_equal(counts[:, :, 0], counts[:, :, 1])  # one choice for all
        counts = counts[:, :, :1]
    total = counts.sum(axis=(1, 2))
    expected = np.array([0.4, 0.6 * 0.3, 0.6 * 0.7]) * counts[0].size
    assert scipy.stats.chisquare(total, expected).pvalue > P_VALUE
    if per == "example":  # each its own: the first two examples agree as often as chance has it
        kinds = counts.argmax(axis=0)
        table = np.histogram2d(kinds[:, 0], kinds[:, 1], bins=3)[0]
        assert scipy.stats.chi2_contingency(table).pvalue > P_VALUE


def test_a_row_that_no_alpha_switches_on_changes_nothing(monkeypatch):
    images, targets = batch()

    def mixed() -> tuple[jax.Array, jax.Array]:
        mix = make_mix(**BOTH | {"per": "example"})
        assert mix is not None
        return mix(jax.random.key(9), images, targets)

    before = mixed()
    monkeypatch.setitem(MIXERS, "another", MIXERS["mixup"])
    jax.tree.map(np.testing.assert_array_equal, mixed(), before)


@pytest.mark.parametrize("per", DRAW_COUNTS)
def test_soft_targets_stay_distributions(per):
    images, _ = batch()
    smooth = np.full((BATCH, BATCH), 0.1 / BATCH, np.float32) + 0.9 * np.eye(BATCH, dtype="f")
    for seed in range(5):
        _, soft = run(seed, images, smooth, per=per, **BOTH)
        assert soft.dtype == np.float32
        assert (soft >= 0).all()
        # Sums of two products, of numbers that add up to one: rounded by 3 * 2^-24 of it, and the numbers before that.
        np.testing.assert_allclose(soft.astype(float).sum(axis=1), 1, rtol=0, atol=4 * 2.0**-24)


@pytest.mark.parametrize("per", DRAW_COUNTS)
def test_probability_zero_changes_nothing(per):
    images, targets = batch()
    mixed, soft = run(0, images, targets, per=per, **BOTH | {"probability": 0.0})
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(soft, targets)


def test_half_precision_is_kept_and_lambda_is_not_rounded_to_it():
    images, targets = batch()
    narrow, soft = run(7, images.astype(jnp.bfloat16), targets, per="example", **ONLY_MIXUP)
    wide, wide_soft = run(7, images.astype(jnp.bfloat16).astype(np.float32), targets, per="example", **ONLY_MIXUP)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_array_equal(narrow, wide.astype(jnp.bfloat16))
    np.testing.assert_array_equal(soft, wide_soft)


@pytest.mark.parametrize("per", DRAW_COUNTS)
def test_mixing_needs_no_other_device(mesh, per):
    images, targets = batch()
    mix = make_mix(**BOTH | {"per": per})
    assert mix is not None
    assert_needs_no_other_device(mix, mesh, images, targets)


def test_nothing_to_mix():
    assert make_mix(**BOTH | {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "per": "batch"}) is None


def test_an_odd_batch_is_the_users_mistake():
    images, targets = batch(5)
    with pytest.raises(UserError, match=r"config\.batch_size is 5: .*even number.*set config\.mixing\.mixup_alpha"):
        run(0, images, targets, per="batch", **BOTH)


def test_an_unknown_per_is_the_users_mistake():
    with pytest.raises(UserError, match=r"config\.mixing\.per is 'pair'.*batch, example"):
        make_mix(**BOTH | {"per": "pair"})
