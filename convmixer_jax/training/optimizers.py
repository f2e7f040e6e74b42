"""The table of optimisers, and the two conventions of weight decay.

    tx = make_optimizer("adamw", decay_mask="kernels", clip_norm=1.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = params + rate * updates

The transformations are built for a learning rate of 1: the step multiplies by its schedule's rate, so that the rate
follows the number of the update even where updates were skipped. To add one, give it a row in OPTIMIZERS.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from convmixer_jax.errors import lookup

Params = Any


def all_parameters(params: Params) -> Params:
    """Decays everything, biases and BatchNorm too: the authors' CIFAR script (torch's default)."""
    return jax.tree.map(lambda leaf: True, params)


def kernels_only(params: Params) -> Params:
    """Decays what has more than one axis, so neither biases nor BatchNorm: timm, the authors' ImageNet recipe."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


DECAY_MASKS: dict[str, Callable[[Params], Params]] = {"all": all_parameters, "kernels": kernels_only}


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """What the config gives to every optimiser; each row reads what it needs."""

    b1: float
    b2: float
    eps: float
    weight_decay: float
    decays: Callable[[Params], Params]


def adamw(settings: OptimizerSettings) -> optax.GradientTransformation:
    """AdamW (arXiv 1711.05101) as torch.optim.AdamW computes it: the decay is multiplied by the learning rate."""
    return optax.adamw(
        1.0,
        b1=settings.b1,
        b2=settings.b2,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        mask=settings.decays,
    )


OPTIMIZERS: dict[str, Callable[[OptimizerSettings], optax.GradientTransformation]] = {"adamw": adamw}


def make_optimizer(name: str, *, decay_mask: str, clip_norm: float, **settings: float) -> optax.GradientTransformation:
    """Returns clipping by the global norm (0 = none), then the optimiser, for a learning rate of 1.

    settings: fields of OptimizerSettings. Raises UserError for names that are not in OPTIMIZERS or DECAY_MASKS.
    """
    row = lookup(OPTIMIZERS, name, "config.optimizer.name")
    decays = lookup(DECAY_MASKS, decay_mask, "config.optimizer.decay_mask")
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*clip, row(OptimizerSettings(decays=decays, **settings)))
