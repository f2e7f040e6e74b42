"""Activations with their slopes, for operations that recompute them in the backward pass.

    value = ACTIVATIONS["gelu"].value(u, again=False)
    value, slope = ACTIVATIONS["gelu"].value_and_slope(u)

Common-subexpression elimination would merge the forward and the backward pass's values into one array that is kept
from the one to the other, which takes more memory and more time than computing it again; so the backward pass, `again`,
spells a constant differently: an ulp from the nearest.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

DENSITY = 1 / math.sqrt(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class Activation:
    """value: (u, again) to act(u); value_and_slope: to (act(u), act'(u)) in the backward pass, where `again` is True.

    Both are elementwise, in float32 or wider.
    """

    value: Callable[[jax.Array, bool], jax.Array]
    value_and_slope: Callable[[jax.Array], tuple[jax.Array, jax.Array]]


def wide(u: jax.Array) -> jax.Array:
    """Returns u in float32 or wider."""
    return u.astype(jnp.promote_types(u.dtype, jnp.float32))


def normal_cdf(u: jax.Array, again: bool) -> jax.Array:
    """Returns the distribution function of the standard normal distribution."""
    root = u.dtype.type(math.sqrt(0.5))
    return 0.5 + 0.5 * jax.lax.erf(u * (np.nextafter(root, u.dtype.type(1)) if again else root))


def gelu(u: jax.Array, again: bool) -> jax.Array:
    """Returns u * Phi(u), exactly, as torch.nn.GELU: arXiv 1606.08415."""
    u = wide(u)
    return u * normal_cdf(u, again)


def gelu_and_slope(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns u * Phi(u) and Phi(u) + u * phi(u)."""
    u = wide(u)
    cdf = normal_cdf(u, again=True)
    return u * cdf, cdf + u * (DENSITY * jnp.exp(-0.5 * u * u))


def relu(u: jax.Array, again: bool) -> jax.Array:
    """Returns max(u, 0)."""
    del again  # so cheap that nothing is gained by keeping it
    return jnp.maximum(wide(u), 0)


def relu_and_slope(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns max(u, 0), and 1 where u is above 0, else 0, as PyTorch."""
    value = relu(u, again=True)
    return value, (value > 0).astype(value.dtype)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(gelu, gelu_and_slope),
    "relu": Activation(relu, relu_and_slope),
}
