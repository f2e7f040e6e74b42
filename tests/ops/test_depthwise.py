"""Every implementation of the depthwise convolution against float64 sums, with the error bound of float32 sums."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from convmixer_jax.ops.depthwise import pallas_gpu, pallas_tpu
from convmixer_jax.ops.depthwise.contract import Depthwise, by_correlation, lacks_nothing, zeros_before
from convmixer_jax.ops.depthwise.implementations import IMPLEMENTATIONS

pytestmark = pytest.mark.usefixtures("quick_compilation")


def interpreted_gpu() -> Depthwise:
    """The GPU's kernels, which the row "pallas" would not choose on this platform."""

    def correlate(x, kernel, before):
        return pallas_gpu.correlate(x, kernel, before=before, interpret=True)

    def kernel_grad(x, g, k):
        return pallas_gpu.kernel_grad(x, g, k, before=zeros_before(k), interpret=True)

    return by_correlation(correlate, kernel_grad, lacks_nothing)


ALL = {**IMPLEMENTATIONS, "pallas_gpu": interpreted_gpu()}

F32, BF16 = jnp.float32, jnp.bfloat16

# B, H, W, C, k and dtypes. Kernels up to 9, even and odd, within and beyond maps of every shape.
CASES = {
    "plain product": (5, 3, 8, 1, 1, F32),
    "wider than a strip on TPU": (1, 1, 130, 1, 2, F32),
    "one pixel": (65, 1, 1, 1, 3, F32),
    "more channels than lanes": (2, 7, 5, 130, 4, F32),
    "more channels than lanes, bfloat16": (2, 7, 5, 130, 4, BF16),
    "odd batch": (65, 7, 5, 8, 5, F32),
    "one image": (1, 3, 8, 8, 6, BF16),
    "larger than the map": (2, 3, 8, 3, 7, F32),
    "one pixel, even": (1, 1, 1, 8, 8, BF16),
    "several tiles": (2, 10, 40, 2, 9, F32),
}
# The GPU's kernels are interpreted for seconds; to them these are like one of the others.
NOT_FOR_GPU = ("more channels than lanes", "odd batch", "one image", "one pixel, even", "larger than the map")
# Nor are those for TPU quick; there bfloat16 has the more involved tiles.
LEFT_OUT = {*(("pallas_gpu", case) for case in NOT_FOR_GPU), ("pallas", "more channels than lanes")}
# What is left of the interpreted ones, and takes seconds each.
SLOW = {*itertools.product(("pallas", "pallas_gpu"), ("several tiles", "more channels than lanes, bfloat16"))}
ROWS = [
    pytest.param(*row, marks=pytest.mark.slow) if row in SLOW else row
    for row in itertools.product(ALL, CASES)
    if row not in LEFT_OUT
]


def arrays(shape: tuple[int, ...], k: int, dtype) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns x, g and a float32 kernel that bfloat16 does not hold exactly."""
    generator = np.random.default_rng(0)
    x, g = (jnp.asarray(generator.normal(size=shape), dtype) for _ in range(2))
    return x, g, jnp.asarray(generator.normal(size=(k, k, shape[-1])), F32)


def exact(x, g, kernel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns y and both gradients in float64, one offset after the other, straight from the definition."""
    _, H, W, _ = x.shape
    k = len(kernel)
    before = (k - 1) // 2
    y, by_input, by_kernel = np.zeros_like(x), np.zeros_like(x), np.zeros_like(kernel)
    for i, j in itertools.product(range(k), repeat=2):
        down, right = i - before, j - before  # y[h, w] takes x[h + down, w + right]
        to = np.s_[:, max(0, -down) : max(0, H - down), max(0, -right) : max(0, W - right)]
        of = np.s_[:, max(0, down) : max(0, H + down), max(0, right) : max(0, W + right)]
        y[to] += x[of] * kernel[i, j]
        by_input[of] += g[to] * kernel[i, j]
        by_kernel[i, j] = (x[of] * g[to]).sum(axis=(0, 1, 2))
    return y, by_input, by_kernel


def exact_and_bounds(x, g, kernel):
    """Returns pairs (exact, bound of the error) for what `all_three` gives of the same arrays.

    n products summed in float32 in any order are off by at most n u / (1 - n u) times the sum of their sizes, with
    u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); rounding the sum to its dtype
    adds half a unit in the last place.
    """
    dtype = x.dtype
    x, g, kernel = (np.asarray(a.astype(dtype), np.float64) for a in (x, g, kernel))
    k = len(kernel)
    terms = (k * k, k * k, x[..., 0].size)
    roundings = (jnp.finfo(dtype).eps / 2, jnp.finfo(dtype).eps / 2, 0)
    sizes = exact(*map(np.abs, (x, g, kernel)))
    for value, size, n, rounding in zip(exact(x, g, kernel), sizes, terms, map(float, roundings), strict=True):
        error = n * 2**-24 / (1 - n * 2**-24) * size
        yield value, error + rounding * (np.abs(value) + error)


@functools.partial(jax.jit, static_argnums=0)
def all_three(depthwise: Depthwise, x, g, kernel):
    return depthwise.forward(x, kernel), depthwise.input_grad(g, kernel), depthwise.kernel_grad(x, g, len(kernel))


@pytest.mark.parametrize("name, case", ROWS)
def test_values_and_gradients(name, case):
    *shape, k, dtype = CASES[case]
    x, g, kernel = arrays(tuple(shape), k, dtype)
    results = all_three(ALL[name], x, g, kernel)
    assert [a.dtype for a in results] == [dtype, dtype, F32]
    for result, (value, bound) in zip(results, exact_and_bounds(x, g, kernel), strict=True):
        assert result.shape == value.shape
        assert (np.abs(np.asarray(result, np.float64) - value) <= bound).all()
    again = all_three(ALL[name], x, g, kernel)
    assert [np.asarray(a).tobytes() for a in results] == [np.asarray(a).tobytes() for a in again]


def test_the_bound_is_tight_enough_to_see_a_wrong_offset():
    x, g, kernel = arrays((2, 7, 5, 8), 4, F32)
    wrong = exact(*(np.asarray(a, np.float64) for a in (x, g, jnp.roll(kernel, 1, axis=0))))
    for off, (value, bound) in zip(wrong[:2], exact_and_bounds(x, g, kernel), strict=False):
        assert (np.abs(off - value) > 1000 * bound).mean() > 0.9


def test_xlas_grouped_convolution_is_flaxs_and_so_are_its_gradients():
    x, g, kernel = arrays((2, 7, 5, 8), 4, F32)
    conv = nn.Conv(8, (4, 4), feature_group_count=8, use_bias=False)
    y, gradients = jax.vjp(lambda kernel, x: conv.apply({"params": {"kernel": kernel[:, :, None]}}, x), kernel, x)
    by_kernel, by_input = gradients(g)
    for result, wanted in zip(all_three(ALL["lax"], x, g, kernel), (y, by_input, by_kernel), strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("name", ALL)
def test_nan_and_infinity_stay_visible_and_where_they_are(name):
    # A shape from above, whose program is there already; the GPU's kernels, interpreted, get a smaller kernel.
    *shape, k, dtype = (2, 3, 8, 3, 3, F32) if name == "pallas_gpu" else CASES["larger than the map"]
    x, g, kernel = arrays(tuple(shape), k, dtype)
    x = x.at[0, 1, 2, 0].set(jnp.nan).at[1, 0, 7, 1].set(jnp.inf)
    results = all_three(ALL[name], x, g, kernel)
    wanted = exact(*(np.asarray(a, np.float64) for a in (x, g, kernel)))
    # The pixel's k x k neighbours in its own channel, and no more: nothing leaks through masks or from unused lanes.
    np.testing.assert_array_equal(np.isnan(results[0]), np.isnan(wanted[0]))
    np.testing.assert_array_equal(np.isinf(results[0]), np.isinf(wanted[0]))
    assert np.isfinite(results[1]).all()
    # A sum may meet the infinity with one of the zeros around the map, so the kernel's gradient may have more of them.
    assert not np.isfinite(np.asarray(results[2])[~np.isfinite(wanted[2])]).any()
    assert np.isfinite(results[2][..., 2]).all()


@pytest.mark.parametrize("name", ALL)
def test_each_device_sees_its_part_of_the_batch(name, mesh):
    x, g, kernel = arrays((4, 3, 2, 2), 2, F32)
    batch, whole = PartitionSpec("data"), PartitionSpec()

    def on_one_device(x, g, kernel):
        y, by_input, by_kernel = all_three(ALL[name], x, g, kernel)
        return y, by_input, jax.lax.psum(by_kernel, "data")

    sharded = jax.shard_map(
        on_one_device, mesh=mesh(2), in_specs=(batch, batch, whole), out_specs=(batch, batch, whole), check_vma=False
    )
    for result, (value, bound) in zip(jax.jit(sharded)(x, g, kernel), exact_and_bounds(x, g, kernel), strict=True):
        assert (np.abs(result - value) <= bound).all()


@pytest.mark.parametrize("platform, call", {"tpu": "tpu_custom_call", "cuda": "triton", "cpu": "while"}.items())
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_pallas_is_lowered_to_the_kernels_of_its_platform(platform, call, dtype):
    x, g, kernel = arrays((3, 7, 9, 130), 4, dtype)
    lowered = all_three.trace(ALL["pallas"], x, g, kernel).lower(lowering_platforms=(platform,)).as_text()
    others = {"tpu_custom_call", "triton"} - {call}
    assert call in lowered
    assert not any(other in lowered for other in others)


LACKS = {
    "cpu": ((3, F32, (8, 8), "cpu"), "cpu would interpret"),
    "map of 224 px": ((9, BF16, (224, 224), "tpu"), "224x224 map and a 9x9 kernel take 76.3 MiB of VMEM"),
    "80 px, float32": ((9, F32, (80, 80), "tpu"), "16.8 MiB"),
    "80 px, bfloat16": ((9, BF16, (80, 80), "tpu"), None),
    "a usual layer on TPU": ((9, F32, (32, 32), "tpu"), None),
    "a large map on GPU": ((9, F32, (224, 224), "gpu"), None),
    "a large kernel on GPU": ((31, F32, (32, 32), "gpu"), "a 31x31 kernel"),
}


@pytest.mark.parametrize("question, answer", LACKS.values(), ids=LACKS)
def test_pallas_says_what_it_lacks(question, answer):
    line = ALL["pallas"].lacks(*question)
    assert (line is None) == (answer is None)
    assert answer is None or (answer in line and "\n" not in line)


@pytest.mark.parametrize("name", ["lax", "lax_nchw", "shifted"])
@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_others_lack_nothing(name, platform):
    assert ALL[name].lacks(31, BF16, (224, 224), platform) is None


def test_vmem_is_counted_as_mosaic_counts_it():
    # For float32 [2, 80, 80, 256] and k 9 the TPU compiler refused: "Scoped allocation with size 16.77M".
    # Four blocks of 80 x 80 rows, a scratch of 88 x 96 and two kernels of 9 x 16, each row of 128 values of 4 bytes.
    assert pallas_tpu.vmem_bytes(9, (80, 80), 4) == (4 * 80 * 80 + 88 * 96 + 2 * 9 * 16) * 512
    assert pallas_tpu.vmem_bytes(9, (80, 80), 4) / 2**20 == pytest.approx(16.77, abs=0.005)


@pytest.mark.parametrize(
    "batch, size, images", [(64, (32, 32), 1), (64, (16, 16), 4), (65, (16, 16), 1), (6, (16, 16), 3), (5, (7, 7), 5)]
)
def test_a_step_takes_whole_images_of_at_most_1024_pixels(batch, size, images):
    assert pallas_tpu.images_per_step((batch, *size, 256), 9, 4) == images
