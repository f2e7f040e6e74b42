"""Maps [C, H, W, B] whose operations between two products are compiled from C++ for this processor: `spatial.cc`.

    layout = Native()
    if layout.lacks(9, "float32", (32, 32), "cpu") is None:
        y, moments = spatial(v, params, None, keep, layout, settings)

XLA's CPU backend makes a loop over memory of each step of a formula, reads its operands again for each output of a
convolution, and computes an activation again in each loop that wants it. Here a channel goes through all of it while
it lies in the cache. What the C++ does not know (float64, statistics over groups or devices, kernels above 9x9), and
what it would be slow at (a few examples), is computed by the formulas, as ChannelMajor does.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from convmixer_jax.ops.activations import ACTIVATIONS
from convmixer_jax.ops.channel_major import ChannelMajor
from convmixer_jax.ops.native.library import lacking, target
from convmixer_jax.ops.spatial import Moments, Norm, Settings, SpatialParams

LARGEST_KERNEL = 9  # in spatial.cc, which has a program for each size
NUMBERS = {ACTIVATIONS[name]: number for number, name in enumerate(("gelu", "relu"))}  # as spatial.cc counts them
DTYPES = ("float32", "bfloat16")
NOTHING = np.zeros(0, np.float32)  # in the place of an operand that is left out
BLOCK = 16  # examples that the C++ takes at once, the last ones with idle lanes; fewer on processors without AVX-512


@dataclasses.dataclass(frozen=True)
class Native(ChannelMajor):
    """A Layout for CPUs.

    least_share: of lanes in use, from 0 to 1, below which the formulas are quicker, since they merge examples and rows:
    with 4 examples, an update of ConvMixer-768/32 was 1.08 times as fast as PyTorch's in C++, and 1.42 times by them.
    """

    least_share: float = 0.75

    def lacks(self, kernel_size: int, dtype: DTypeLike, map_size: tuple[int, int], platform: str) -> str | None:
        """See Layout. Compiles the C++ where that is what remains to be known."""
        if platform != "cpu":
            return f"it is for CPUs, not for a {platform}"
        if kernel_size > LARGEST_KERNEL:
            return f"a {kernel_size}x{kernel_size} kernel is larger than {LARGEST_KERNEL}x{LARGEST_KERNEL}"
        if jnp.dtype(dtype).name not in DTYPES:
            return f"it computes in {' or '.join(DTYPES)}, not in {jnp.dtype(dtype).name}"
        return lacking()

    def across_devices(self) -> ChannelMajor:
        """See Layout: sums over devices stand between the steps, which are XLA's then."""
        return ChannelMajor().across_devices()

    def unfused(self, examples: int, sharing: Any) -> str | None:
        """See Layout."""
        if sharing.together > 1:
            return "BatchNorm's statistics are of several devices"
        if sharing.groups > 1:
            return "BatchNorm's statistics are of parts of a device's batch"
        share = examples / (max(1, -(-examples // BLOCK)) * BLOCK)
        if share < self.least_share:
            least = f"less than {self.least_share:.0%}"
            return f"{examples} examples on a device fill {share:.0%} of blocks of {BLOCK}, {least}"
        return None

    def fused(self, v: jax.Array, params: SpatialParams, settings: Settings) -> "FusedSpatial | None":
        """See Layout."""
        known = v.dtype.name in DTYPES and params.kernel.shape[1] <= LARGEST_KERNEL and settings.activation in NUMBERS
        if not known or self.unfused(v.shape[-1], settings.sharing):
            return None
        return FusedSpatial(NUMBERS[settings.activation], settings.epsilon)


@dataclasses.dataclass(frozen=True)
class FusedSpatial:
    """`spatial` and its gradients, each in one call. activation: as in NUMBERS."""

    activation: int
    epsilon: float

    def forward(
        self,
        v: jax.Array,
        params: SpatialParams,
        given: tuple[Moments, Moments] | None,
        keep: jax.Array | None,
        with_u: bool,
    ) -> tuple[jax.Array, jax.Array, tuple[Moments, Moments]]:
        """See Fused."""
        results = (like(v), like(v) if with_u else like(v, 0), jax.ShapeDtypeStruct((len(v), 4), jnp.float32))
        given_columns = NOTHING if given is None else columns(*given)
        operands = (v, params.kernel, columns(params.entry, params.norm), optional(keep), given_columns)
        y, u, moments = self.call("spatial_forward", results, *operands)
        return y, u, (Moments(*moments[:, :2].T), Moments(*moments[:, 2:].T))

    def backward(
        self,
        grad: jax.Array,
        v: jax.Array,
        u: jax.Array,
        params: SpatialParams,
        moments: tuple[Moments, Moments],
        keep: jax.Array | None,
    ) -> tuple[jax.Array, SpatialParams]:
        """See Fused."""
        vectors = columns(params.entry, params.norm)
        operands = (grad, v, u, params.kernel, vectors, optional(keep), columns(*moments))
        results = (like(v), like(params.kernel), like(vectors))
        v_grad, kernel, grads = self.call("spatial_backward", results, *operands)
        return v_grad, SpatialParams(Norm(*grads[:, :3].T), kernel, Norm(*grads[:, 3:].T))

    def call(self, operation: str, results: Any, *operands: Any) -> Any:
        """Calls one of OPERATIONS."""
        attributes = {"activation": np.int64(self.activation), "epsilon": np.float32(self.epsilon)}
        return jax.ffi.ffi_call(target(operation), results)(*operands, **attributes)


def like(array: jax.Array, *shape: int) -> jax.ShapeDtypeStruct:
    """Returns what describes an array of the same dtype, and of the same shape where none is given."""
    return jax.ShapeDtypeStruct(shape or array.shape, array.dtype)


def columns(*tuples: Norm | Moments) -> jax.Array:
    """Returns the vectors of all as the columns of float32 [C, n], in their order."""
    return jnp.stack([vector for each in tuples for vector in each], axis=1).astype(jnp.float32)


def optional(keep: jax.Array | None) -> jax.Array | np.ndarray:
    """Returns keep, float32 [B], or what stands for None."""
    return NOTHING if keep is None else jnp.asarray(keep, jnp.float32)
