"""How weights and biases start: PyTorch's default, which the paper used, flax's or Keras's.

    kernel_init, bias_init = INITIALIZERS["pytorch"](fan_in=81)

The choice is visible: a 9x9 depthwise kernel starts with a standard deviation of 0.064 in PyTorch, 0.111 in flax.
To add one, write a function of fan_in and give it a row in INITIALIZERS.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Callable[..., jax.Array]


def symmetric_uniform(bound: float) -> Initializer:
    """Returns an initializer that draws from the uniform distribution over [-bound, bound)."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def pytorch(fan_in: int) -> tuple[Initializer, Initializer]:
    """Weights and biases uniform over +-1/sqrt(fan_in): torch.nn.Conv2d's and torch.nn.Linear's default.

    fan_in: inputs per output value, k * k * input channels / groups.
    """
    init = symmetric_uniform(1 / math.sqrt(fan_in))
    return init, init


def lecun_normal(fan_in: int) -> tuple[Initializer, Initializer]:
    """Weights from a truncated normal distribution of variance 1/fan_in, biases zero: flax's default."""
    del fan_in  # flax reads it off the kernel's shape, [k, k, input channels / groups, output channels]
    return nn.initializers.lecun_normal(), nn.initializers.zeros_init()


def glorot_uniform(fan_in: int) -> tuple[Initializer, Initializer]:
    """Weights uniform with variance 2/(fan_in + fan_out), biases zero: Keras's default, for depthwise kernels too."""
    del fan_in  # flax reads both off the kernel's shape
    return nn.initializers.glorot_uniform(), nn.initializers.zeros_init()


INITIALIZERS: dict[str, Callable[[int], tuple[Initializer, Initializer]]] = {
    "pytorch": pytorch,
    "lecun_normal": lecun_normal,
    "glorot_uniform": glorot_uniform,
}
