"""The layers of a model in the order in which an image passes them, found by tracing it, whatever the variant.

    layers = trace_layers(model, variables, (32, 32, 3))
    kernels = convolution_kernels(layers, variables["params"])
    stem, depthwise, last = patch_embedding(kernels), depthwise_kernels(kernels), last_map(layers)

Kernels are known by their shape and place, not by their name.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module that was called. path: the names that lead to it. shape: of its output for one image."""

    path: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The path in one word."""
        return "/".join(self.path)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A convolution's weights, float32 [kh, kw, in, out] as linen keeps them, and the name of its layer."""

    name: str
    weights: np.ndarray


def trace_layers(model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, ...]) -> list[Layer]:
    """Returns the modules in the order in which their calls end; computes nothing. image_shape: (H, W, C).

    model: computed by the reference operations; others do not call the modules.
    """
    called: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path:
            called.append((context.module.path, out.shape[1:]))
        return out

    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda variables, images: model.apply(variables, images, train=False), variables, images)
    return [Layer(path, shape) for path, shape in called]


def convolution_kernels(layers: Sequence[Layer], params: Mapping[str, Any]) -> list[Kernel]:
    """Returns the kernels of all convolutions among the layers."""
    kernels = []
    for layer in layers:
        node: Any = params
        for name in layer.path:
            node = node.get(name, {})
        if "kernel" in node and node["kernel"].ndim == 4:
            kernels.append(Kernel(layer.name, np.asarray(node["kernel"])))
    return kernels


def patch_embedding(kernels: Sequence[Kernel]) -> Kernel | None:
    """Returns the first kernel, which looks at the pixels themselves; None where there is none."""
    return kernels[0] if kernels else None


def depthwise_kernels(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Returns the depthwise kernels after the first: [kh, kw, 1, C], larger than 1x1."""
    return [
        kernel for kernel in kernels[1:] if kernel.weights.shape[2] == 1 and math.prod(kernel.weights.shape[:2]) > 1
    ]


def last_map(layers: Sequence[Layer]) -> Layer | None:
    """Returns the last layer whose output has positions, [H, W, C]; None where there is none."""
    return next((layer for layer in reversed(layers) if len(layer.shape) == 3), None)
