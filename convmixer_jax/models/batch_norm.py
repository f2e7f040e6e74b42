"""Batch normalisation as torch.nn.BatchNorm2d computes it, over the global batch or groups of its examples.

It differs from flax.linen.BatchNorm in the running variance (here unbiased, N / (N - 1)), in the meaning of
momentum (here the weight of the new value) and in the variance formula (here always two passes: the single pass
E[x^2] - E[x]^2 loses all its digits at means a few hundred times the deviation).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype


def updated_statistics(
    running_mean: jax.Array, running_var: jax.Array, mean: jax.Array, var: jax.Array, count: int, momentum: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the running statistics after a batch with these biased moments of `count` values; all [C].

    Of groups these are the means of all groups' moments, each of `count` values.
    momentum: PyTorch's, the weight of the new ones. Like PyTorch's, the running variance is unbiased.
    """
    unbiased = var * (count / max(count - 1, 1))
    return running_mean + momentum * (mean - running_mean), running_var + momentum * (unbiased - running_var)


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance of [B, ..., C] over every axis but the last."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return mean, jnp.square(x - mean).mean(axes)


def normalised(
    x: jax.Array, mean: jax.Array, var: jax.Array, *, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """Returns (x - mean) / sqrt(var + epsilon) * scale + bias."""
    return (x - mean) * (jax.lax.rsqrt(var + epsilon) * scale) + bias


class BatchNorm(nn.Module):
    """Normalises [B, ..., C] over every axis but the last, then scales and shifts each channel.

    Under `jax.jit` a sharded batch is one array, so the statistics are those of the global batch on any number of
    devices. With `group_size` above 0, each so many consecutive examples have statistics of their own in training, for
    which a device that holds whole groups needs no other; means over the groups enter the running ones. Statistics are
    computed in float32 or wider, whatever the input's dtype; the output has dtype `dtype`.
    Variables: params `scale`, `bias`; batch_stats `mean`, `var`; all [C] of dtype `param_dtype`.
    """

    momentum: float = 0.1  # PyTorch's: running = (1 - momentum) * running + momentum * new
    epsilon: float = 1e-5
    group_size: int = 0  # examples; 0 = all; a divisor of the batch
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises with the batch's statistics (and updates the running ones) if `train`, else the running ones."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones_init(), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)

        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        normalise = functools.partial(normalised, scale=scale, bias=bias, epsilon=self.epsilon)
        if not train:
            return normalise(x, running_mean.value, running_var.value).astype(self.dtype)

        def by_its_own(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            mean, var = moments(x)
            return normalise(x, mean, var), mean, var

        if self.is_initializing():
            return by_its_own(x)[0].astype(self.dtype)
        if self.group_size:
            y, means, variances = jax.vmap(by_its_own)(x.reshape(-1, self.group_size, *x.shape[1:]))
            y, mean, var = y.reshape(x.shape), means.mean(0), variances.mean(0)
        else:
            y, mean, var = by_its_own(x)
        count = (self.group_size or len(x)) * math.prod(x.shape[1:-1])
        running_mean.value, running_var.value = updated_statistics(
            running_mean.value, running_var.value, mean, var, count, self.momentum
        )
        return y.astype(self.dtype)
