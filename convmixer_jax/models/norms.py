"""The table of norms: what follows each activation.

    x = NORMS["batch"](x, train, name="stem_norm", momentum=0.1, epsilon=1e-5, group_size=0,
                       dtype=jnp.float32, param_dtype=jnp.float32)      # inside of a module's compact method

To add one, write a function of these arguments and give it a row in NORMS.
"""

from collections.abc import Callable

import jax
from flax import linen as nn
from flax.typing import Dtype

from convmixer_jax.models.batch_norm import BatchNorm


def batch_norm(
    x: jax.Array,
    train: bool,
    *,
    name: str,
    momentum: float,
    epsilon: float,
    group_size: int,
    dtype: Dtype,
    param_dtype: Dtype,
) -> jax.Array:
    """Normalises every channel over the batch, or groups of it, and all positions; has running statistics."""
    norm = BatchNorm(momentum, epsilon, group_size, dtype, param_dtype, name=name)
    normalised: jax.Array = norm(x, train)
    return normalised


def layer_norm(
    x: jax.Array,
    train: bool,
    *,
    name: str,
    momentum: float,
    epsilon: float,
    group_size: int,
    dtype: Dtype,
    param_dtype: Dtype,
) -> jax.Array:
    """Normalises every position over its channels, the paper's ablation: the same in training and evaluation.

    Statistics are computed in float32 or wider, by two passes: see batch_norm.py for what one would lose.
    """
    del train, momentum, group_size  # it has no statistics of a batch
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, param_dtype=param_dtype, use_fast_variance=False, name=name)(x)


NORMS: dict[str, Callable[..., jax.Array]] = {"batch": batch_norm, "layer": layer_norm}
