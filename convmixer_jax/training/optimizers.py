"""The table of optimisers, and the two conventions of weight decay.

    tx = make_optimizer("adamw", decay_mask="kernels", clip_norm=1.0, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)
    decay = make_decay("adamw", decay_mask="kernels", weight_decay=0.01)         # None: it has its part in the updates
    updates, opt_state = tx.update(grads, opt_state, params)
    params = (decay(params) if decay else params) + rate * updates

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


def adam(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980), for optimisers whose decay is none of the learning rate's business."""
    return optax.adam(1.0, b1=settings.b1, b2=settings.b2, eps=settings.eps)


OPTIMIZERS: dict[str, Callable[[OptimizerSettings], optax.GradientTransformation]] = {
    "adamw": adamw,
    "adamw_fixed_decay": adam,
}
# Where an update takes weight_decay off the parameters themselves, at whatever learning rate: tensorflow-addons' AdamW.
FIXED_DECAY = frozenset({"adamw_fixed_decay"})


def make_optimizer(name: str, *, decay_mask: str, clip_norm: float, **settings: float) -> optax.GradientTransformation:
    """Returns clipping by the global norm (0 = none), then the optimiser, for a learning rate of 1.

    settings: fields of OptimizerSettings. Raises UserError for names that are not in OPTIMIZERS or DECAY_MASKS.
    """
    row = lookup(OPTIMIZERS, name, "config.optimizer.name")
    decays = lookup(DECAY_MASKS, decay_mask, "config.optimizer.decay_mask")
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*clip, row(OptimizerSettings(decays=decays, **settings)))


def make_decay(name: str, *, decay_mask: str, weight_decay: float, **rest: float) -> Callable[[Params], Params] | None:
    """Returns what an update does to parameters before the transformation's part is added, or None for nothing.

    rest: the other fields of config.optimizer. Raises UserError for a name that is not in DECAY_MASKS.
    """
    del rest
    decays = lookup(DECAY_MASKS, decay_mask, "config.optimizer.decay_mask")
    if name not in FIXED_DECAY:
        return None

    def decay(params: Params) -> Params:
        return jax.tree.map(lambda leaf, on: leaf - weight_decay * leaf if on else leaf, params, decays(params))

    return decay
