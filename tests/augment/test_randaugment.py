"""The draws against their definitions, whole batches against Pillow doing the same, and against torchvision's way.

With fixed seeds these tests always say the same; a sound implementation fails each test of a distribution, of which
there are 27, for one seed in 1,000.
"""

import functools
import random
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from convmixer_jax.augment.policies import TABLES, imgaug
from convmixer_jax.augment.policies import torchvision as torchvision_policy
from convmixer_jax.augment.policy import Policy
from convmixer_jax.augment.randaugment import draw, draw_magnitudes, rand_augment
from convmixer_jax.augment.timm_policy import TIMM_WEIGHTS, timm
from convmixer_jax.benchmarks.pillow_ops import apply_with_pillow, torchvision_style
from convmixer_jax.errors import UserError
from tests.augment.samples import assert_needs_no_other_device, photographs

P_VALUE = 1e-3
DRAWS = 20_000

SETTINGS: dict[str, Any] = {
    "tables": "timm",
    "policy": "rand-m9-mstd0.5-inc1",
    "num_ops": 2,
    "magnitude": 12,
    "interpolation": "nearest",
    "fill": (),
}
# What is asked for, and what it means: two of the tables' own.
FILLS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "timm": ((1, 2, 3), (1, 2, 3)),
    "torchvision": ((), (0, 0, 0)),
    "imgaug": ((), (128, 128, 128)),
}


pytestmark = pytest.mark.usefixtures("quick_compilation")


@functools.cache
def augment(**changed: Any) -> Any:
    return jax.jit(functools.partial(rand_augment, **SETTINGS | changed))


class Drawn(NamedTuple):
    """Draws, in NumPy."""

    kind: np.ndarray
    value: np.ndarray
    bicubic: np.ndarray
    place: np.ndarray


def drawn(policy: Policy, seed: int, batch: int = DRAWS) -> Drawn:
    call = jax.jit(functools.partial(draw, policy=policy, batch=batch, height=32, width=32))
    return Drawn(*map(np.asarray, call(jax.random.key(seed))))


def assert_clipped_normal(magnitudes: np.ndarray) -> None:
    """Asserts that magnitudes below 10 are those of a normal distribution of mean 9 and deviation 0.5."""
    normal = scipy.stats.norm(9, 0.5)
    assert scipy.stats.kstest(magnitudes, lambda m: normal.cdf(m) / normal.cdf(10)).pvalue > P_VALUE


def assert_distributed(kinds: np.ndarray, shares: np.ndarray) -> None:
    """Asserts that kinds, int [N], have these shares; none of share 0 occurs."""
    counts = np.bincount(kinds, minlength=len(shares))
    assert (counts[shares == 0] == 0).all()
    possible = shares > 0
    assert scipy.stats.chisquare(counts[possible], len(kinds) * shares[possible]).pvalue > P_VALUE


def assert_rate(happened: np.ndarray, share: float) -> None:
    assert scipy.stats.binomtest(int(happened.sum()), happened.size, share).pvalue > P_VALUE


def test_alike_and_with_replacement():
    kind = drawn(torchvision_policy("", 2, 12), 0).kind
    pairs = kind[0] * 14 + kind[1]  # jointly: 102 of each expected
    assert_distributed(pairs, np.full(14 * 14, 1 / 14**2))


def test_distinct_and_in_any_order():
    kind = drawn(imgaug("", 3, 7), 1).kind
    assert (np.diff(np.sort(kind, axis=0), axis=0) > 0).all()
    for turn in kind:
        assert_distributed(turn, np.full(18, 1 / 18))
    assert len(np.unique(drawn(imgaug("", 18, 7), 2).kind[:, 0])) == 18


def test_weights_without_replacement():
    policy = timm("rand-m9-p1-w0", 2, 9)
    kind = drawn(policy, 3).kind
    assert (kind[0] != kind[1]).all()
    w = np.array([TIMM_WEIGHTS[name] for name in policy.names])
    assert_distributed(kind[0], w)
    # The second is drawn by the weights of those that are left, whichever was first.
    second = np.array([sum(w[i] * w[j] / (1 - w[i]) for i in range(15) if i != j) for j in range(15)])
    assert_distributed(kind[1], second)


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_operations_are_done_with_their_probability(probability):
    kind = drawn(timm(f"rand-m9-n3-p{probability}", 2, 9), 4).kind
    assert_rate(kind >= 0, probability)
    assert_rate((kind[0] >= 0) & (kind[1] >= 0), probability**2)
    assert_distributed(kind[kind >= 0], np.full(15, 1 / 15))


def test_magnitudes_are_assert_clipped_normal():
    policy = timm("rand-m9-mstd0.5", 2, 9)
    magnitudes = np.asarray(draw_magnitudes(jax.random.key(5), policy, (DRAWS,)))
    assert_rate(magnitudes == 10, scipy.stats.norm(9, 0.5).sf(10))  # 2 %: all that is above
    assert_clipped_normal(magnitudes[magnitudes < 10])
    wide = np.asarray(draw_magnitudes(jax.random.key(6), timm("rand-m2-mstd3-mmax4", 2, 9), (DRAWS,)))
    assert (wide.min(), wide.max()) == (0, 4)


def test_magnitudes_may_be_uniform():
    magnitudes = np.asarray(draw_magnitudes(jax.random.key(7), timm("rand-m8-mstd101", 2, 9), (DRAWS,)))
    assert scipy.stats.kstest(magnitudes, scipy.stats.uniform(0, 8).cdf).pvalue > P_VALUE


def timms_magnitude(rng: random.Random, m: float, mstd: float, upper_bound: float) -> float:
    """Draws a magnitude as timm's AugmentOp is defined."""
    if mstd > 0:
        m = rng.uniform(0, m) if mstd > 100 else rng.gauss(m, mstd)
    return max(0.0, min(m, upper_bound))


@pytest.mark.parametrize(
    "policy, m, mstd, mmax",
    [
        ("rand-m12", 12, 0, 10),
        ("rand-m12-mmax11", 12, 0, 11),
        ("rand-m9-mmax7.5", 9, 0, 7.5),
        ("rand-m12-mmax20", 12, 0, 20),
        ("rand-m12-mmax0", 12, 0, 10),
        ("rand-m12-mstd3", 12, 3, 10),
        ("rand-m12-mstd101", 12, 101, 10),
    ],
)
def test_magnitudes_above_the_largest_are_clipped_as_timms(policy, m, mstd, mmax):
    ours = np.broadcast_to(draw_magnitudes(jax.random.key(12), timm(policy, 2, 9), (DRAWS,)), DRAWS)
    rng = random.Random(12)
    theirs = np.array([timms_magnitude(rng, m, mstd, mmax) for _ in range(DRAWS)])
    assert ours.max() == theirs.max()
    if not mstd:
        np.testing.assert_array_equal(ours, theirs)
    clipped = [(values == mmax).sum() for values in (ours, theirs)]
    if mstd:
        assert scipy.stats.chi2_contingency([clipped, [DRAWS - n for n in clipped]]).pvalue > P_VALUE
        assert scipy.stats.ks_2samp(ours[ours < mmax], theirs[theirs < mmax]).pvalue > P_VALUE


def test_every_operation_has_its_own_magnitude_and_sign():
    policy = timm("rand-m9-mstd0.5-inc1-p1", 2, 9)
    draws = drawn(policy, 8)
    rotate, color = policy.names.index("rotate"), policy.names.index("color")
    for values, centre, scale in (
        (draws.value[draws.kind == rotate], 0, 3),
        (draws.value[draws.kind == color], 1, 0.09),
    ):
        assert_rate(values > centre, 0.5)
        strength = np.abs(values - centre) / scale
        assert_clipped_normal(strength[strength < 9.9999])
    both = (draws.kind == rotate).all(axis=0)
    first, second = draws.value[:, both]
    assert both.sum() > 50
    assert (first != second).all()
    assert abs(np.corrcoef(np.sign(first), np.sign(second))[0, 1]) < 3.3 / np.sqrt(both.sum())


def test_interpolation_and_place_are_uniform():
    draws = drawn(imgaug("", 2, 9), 9)
    assert_rate(draws.bicubic, 0.5)
    for axis in (0, 1):
        assert scipy.stats.kstest(draws.place[..., axis].ravel(), "uniform").pvalue > P_VALUE


def with_pillow(table: str, seed: int, images: np.ndarray) -> tuple[np.ndarray, list[set[str]]]:
    """Returns what Pillow makes of the same draws, and which operations each image went through."""
    policy = TABLES[table](SETTINGS["policy"], SETTINGS["num_ops"], SETTINGS["magnitude"])
    draws = drawn(policy, seed, len(images))
    results, used = [], []
    for i, pixels in enumerate(images):
        image, names = Image.fromarray(pixels), set()
        for turn, kind in enumerate(draws.kind[:, i]):
            if kind >= 0:
                name = policy.names[kind]
                names.add(name)
                place = draws.place[turn, i].tolist()
                image = apply_with_pillow(image, name, draws.value[turn, i], fill=FILLS[table][1], place=place)
        results.append(np.asarray(image))
        used.append(names)
    return np.stack(results).astype(np.float32), used


def sample() -> np.ndarray:
    """Returns 256 photographs, 60 of them of CIFAR-10."""
    return photographs()[-256:]


@pytest.mark.parametrize("table", TABLES)
def test_batches_are_what_pillow_makes_of_the_same_draws(table):
    images = sample()
    call = augment(tables=table, fill=FILLS[table][0])
    ours = np.asarray(call(jax.random.key(10), images.astype(np.float32)))
    theirs, used = with_pillow(table, 10, images)
    # Nearest: all exact, but for the levels that Pillow's autocontrast loses, with what follows, and a pixel in a
    # million of a rotation.
    exact = np.array([not names & {"auto_contrast", "rotate"} for names in used])
    assert 150 < exact.sum() < len(images)
    np.testing.assert_array_equal(ours[exact], theirs[exact])
    assert (ours[~exact] == theirs[~exact]).mean() > 0.98
    changed = (ours != images).any(axis=(1, 2, 3))
    assert changed.mean() > 0.6


def test_the_same_distribution_as_torchvisions_pipeline():
    images = sample()
    ours = np.asarray(
        augment(tables="torchvision", fill=FILLS["torchvision"][0])(jax.random.key(11), images.astype(np.float32))
    )
    rng = np.random.default_rng(11)
    theirs = np.stack([np.asarray(torchvision_style(rng, Image.fromarray(image), 2, 12)) for image in images])
    for seen in (
        lambda batch: np.abs(batch - images.astype(np.float32)).mean(axis=(1, 2, 3)),
        lambda batch: batch.mean(axis=(1, 2, 3)),
        lambda batch: batch.std(axis=(1, 2, 3)),
        lambda batch: (batch == 0).mean(axis=(1, 2, 3)),
    ):
        assert scipy.stats.ks_2samp(seen(ours), seen(theirs.astype(np.float32))).pvalue > P_VALUE


def test_probability_zero_changes_nothing():
    images = sample().astype(np.float32)
    result = augment(policy="rand-m9-p0", interpolation="default")(jax.random.key(0), images)
    np.testing.assert_array_equal(result, images)


def test_images_are_rounded_to_bytes_first():
    images = sample().astype(np.float32)
    shifted = np.clip(images + 0.4, 0, 300)
    call = augment(policy="rand-m9-p0", interpolation="default")
    np.testing.assert_array_equal(call(jax.random.key(0), shifted), images)


# All of torchvision's operations are imgaug's, and its draws are the simplest.
@pytest.mark.parametrize("table", [pytest.param("timm", marks=pytest.mark.slow), "imgaug"])
def test_a_sharded_batch_needs_no_other_device(mesh, table):
    apply = functools.partial(rand_augment, **SETTINGS | {"tables": table, "interpolation": "default"})
    assert_needs_no_other_device(apply, mesh, photographs()[:32].astype(np.float32))


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"tables": "autoaugment"}, "tables is 'autoaugment': choose one of timm, torchvision, imgaug"),
        (
            {"interpolation": "cubic"},
            "interpolation is 'cubic' (did you mean bicubic?): choose one of default, nearest",
        ),
        ({"fill": (1, 2)}, "fill is (1, 2): 3 grey levels from 0 to 255 are needed, one per channel, or ()"),
        ({"fill": (1, 2, 256)}, "fill is (1, 2, 256)"),
        ({"policy": "rand-q3"}, "policy is 'rand-q3'"),
        ({"tables": "torchvision", "magnitude": 31}, "magnitude is 31"),
        ({"tables": "imgaug", "num_ops": 19}, "num_ops is 19"),
    ],
)
def test_mistakes_name_their_field(changed, words):
    with pytest.raises(UserError) as raised:
        rand_augment(jax.random.key(0), photographs()[:1], **SETTINGS | changed)
    assert f"config.augment.rand_augment.{words}" in str(raised.value)


def test_grey_images_are_refused():
    with pytest.raises(UserError, match=r"needs images of 3 channels, not 1.*take rand_augment out of config.augment"):
        rand_augment(jax.random.key(0), photographs()[:1, ..., :1], **SETTINGS)
