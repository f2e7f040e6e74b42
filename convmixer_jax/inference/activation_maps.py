"""Class-activation maps: where in an image the evidence for the predicted class is.

    activation_maps = make_activation_maps(model, last_map(layers))
    activation_maps(variables, images).evidence[0]        # [H', W'], a value for each position of the last map

The evidence is the gradient of the class's logit with respect to the last map, times that map, summed over the
channels. With mean pooling and a linear head that is the head's weights for the class times the map, the exact
class-activation map of arXiv 1512.04150: its mean over the positions is the logit, but for the head's constant. For
any other head it is HiResCAM, arXiv 2011.08891, which is the exact one of the head linearised at the image.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from convmixer_jax.inference.examination import check_finite
from convmixer_jax.inference.layers import Layer


@dataclasses.dataclass(frozen=True)
class ActivationMaps:
    """For N images: label [N], the predicted class; probability float32 [N]; logit float32 [N], of that class.

    evidence: float32 [N, H', W'], on the scale of the logit. exact: whether the head is linear in the last map.
    """

    label: np.ndarray
    probability: np.ndarray
    logit: np.ndarray
    evidence: np.ndarray
    exact: bool


def shifted(model: nn.Module, variables: Any, images: jax.Array, last: Layer, shift: jax.Array) -> Any:
    """Returns (logits [N, classes], the last map [N, H', W', C]) where `shift` was added to that map."""
    seen: list[jax.Array] = []

    def add(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path == last.path:
            seen.append(out)
            return out + shift
        return out

    with nn.intercept_methods(add):
        logits = model.apply(variables, images, train=False)
    return logits, seen[0]


def make_activation_maps(model: nn.Module, last: Layer) -> Callable[[Any, np.ndarray], ActivationMaps]:
    """Returns (variables, normalised images float32 [N, H, W, C]) to their maps; compiled once for each N.

    model: computed by the reference operations. last: its last layer with positions, see `last_map`. The function
    raises UserError where logits are not finite.
    """

    @jax.jit
    def explain(variables: Any, images: jax.Array) -> tuple[jax.Array, ...]:
        def score(shift: jax.Array, label: jax.Array | None) -> Any:
            logits, seen = shifted(model, variables, images, last, shift)
            label = logits.argmax(-1) if label is None else label
            # Images do not depend on each other in evaluation, so that the sum's gradient is that of each.
            return jnp.take_along_axis(logits, label[:, None], axis=1).sum(), (logits, seen, label)

        slope = jax.grad(score, has_aux=True)
        gradient, (logits, seen, label) = slope(jnp.zeros((len(images), *last.shape)), None)
        elsewhere, _ = slope(-seen, label)
        positions = last.shape[0] * last.shape[1]
        return logits, positions * (gradient * seen).sum(-1), gradient, elsewhere

    def activation_maps(variables: Any, images: np.ndarray) -> ActivationMaps:
        logits, evidence, gradient, elsewhere = map(np.asarray, explain(variables, images))
        check_finite(logits)
        label = logits.argmax(-1)
        probability = np.asarray(jax.nn.softmax(logits))
        rows = np.arange(len(label))
        # A linear head has the same gradient at the map and at nothing; only rounding may differ.
        exact = np.allclose(gradient, elsewhere, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())
        return ActivationMaps(label, probability[rows, label], logits[rows, label], evidence, exact)

    return activation_maps
