"""Batch normalisation as torch.nn.BatchNorm2d computes it, over the global batch.

It differs from flax.linen.BatchNorm in the running variance (here unbiased, N / (N - 1)), in the meaning of
momentum (here the weight of the new value) and in the variance formula (here always two passes: the single pass
E[x^2] - E[x]^2 loses all its digits at means a few hundred times the deviation).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype


def updated_statistics(
    running_mean: jax.Array, running_var: jax.Array, mean: jax.Array, var: jax.Array, count: int, momentum: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the running statistics after a batch with these biased moments of `count` values; all [C].

    momentum: PyTorch's, the weight of the new ones. Like PyTorch's, the running variance is unbiased.
    """
    unbiased = var * (count / max(count - 1, 1))
    return running_mean + momentum * (mean - running_mean), running_var + momentum * (unbiased - running_var)


class BatchNorm(nn.Module):
    """Normalises [B, ..., C] over every axis but the last, then scales and shifts each channel.

    Under `jax.jit` a sharded batch is one array, so the statistics are those of the global batch on any number of
    devices. Statistics are computed in float32 or wider, whatever the input's dtype; the output has dtype `dtype`.
    Variables: params `scale`, `bias`; batch_stats `mean`, `var`; all [C] of dtype `param_dtype`.
    """

    momentum: float = 0.1  # PyTorch's: running = (1 - momentum) * running + momentum * new
    epsilon: float = 1e-5
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
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            var = jnp.square(x - mean).mean(axes)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                running_mean.value, running_var.value = updated_statistics(
                    running_mean.value, running_var.value, mean, var, count, self.momentum
                )
        else:
            mean, var = running_mean.value, running_var.value
        normalised = (x - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias
        return normalised.astype(self.dtype)
