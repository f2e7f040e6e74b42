"""The depthwise convolution by the Pallas kernels of the platform that it is compiled for.

    y = PALLAS.forward(x, kernel)

Platforms without kernels of their own interpret those for TPU: right, and very slow, so `lacks` refuses them.
"""

import functools

import jax
from jax import lax
from jax.typing import DTypeLike

from convmixer_jax.ops.depthwise import pallas_gpu, pallas_tpu
from convmixer_jax.ops.depthwise.contract import by_correlation, zeros_before

# The GPU's kernel gradient keeps 6 k sums per thread: 209 of the 255 registers are in use at k 15 (ptxas, sm_90).
LARGEST_GPU_KERNEL = 15


def correlate(x: jax.Array, kernel: jax.Array, before: int) -> jax.Array:
    """Correlates x, [B, H, W, C], with the kernel, [k, k, C], after `before` rows and columns of zeros."""
    on_gpu = functools.partial(pallas_gpu.correlate, before=before, interpret=False)
    on_tpu = functools.partial(pallas_tpu.correlate, before=before, interpret=False)
    interpreted = functools.partial(pallas_tpu.correlate, before=before, interpret=True)
    return lax.platform_dependent(x, kernel, cuda=on_gpu, rocm=on_gpu, tpu=on_tpu, default=interpreted)


def kernel_grad(x: jax.Array, g: jax.Array, k: int) -> jax.Array:
    """See Depthwise.kernel_grad."""
    before = zeros_before(k)
    on_gpu = functools.partial(pallas_gpu.kernel_grad, k=k, before=before, interpret=False)
    on_tpu = functools.partial(pallas_tpu.kernel_grad, k=k, before=before, interpret=False)
    interpreted = functools.partial(pallas_tpu.kernel_grad, k=k, before=before, interpret=True)
    return lax.platform_dependent(x, g, cuda=on_gpu, rocm=on_gpu, tpu=on_tpu, default=interpreted)


def lacks(k: int, dtype: DTypeLike, size: tuple[int, int], platform: str) -> str | None:
    """See Depthwise.lacks. On TPU fewer than 128 channels leave lanes idle."""
    if platform == "tpu":
        return pallas_tpu.lacks(k, dtype, size)
    if platform == "gpu":
        if k <= LARGEST_GPU_KERNEL:
            return None
        return f"a {k}x{k} kernel does not fit into registers on gpu: Pallas has up to k {LARGEST_GPU_KERNEL}"
    return f"Pallas kernels are compiled for gpu and tpu; {platform} would interpret them, for tests"


PALLAS = by_correlation(correlate, kernel_grad, lacks)
