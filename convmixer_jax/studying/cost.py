"""What a model costs: its parameters, and the arithmetic of one image, counted in the program of its forward pass.

    cost = model_cost(config.model.to_dict(), num_classes=10, image_shape=(32, 32, 3))
    cost.params, cost.flops

Nothing is computed. Counted are convolutions and products of matrices, two operations for each multiply-add, taps on
the padding among them, whatever the variant; for the published model it is the hand-made count of benchmarks/work.py.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from convmixer_jax.config import get_base
from convmixer_jax.models.variants import make_model


@dataclasses.dataclass(frozen=True)
class Cost:
    """params: trainable ones. flops: floating-point operations of the forward pass of one image."""

    params: int
    flops: int


def model_cost(model: Mapping[str, Any], num_classes: int, image_shape: tuple[int, int, int]) -> Cost:
    """Returns the cost of a model. model: fields of config.model; missing ones have the base's value.

    image_shape: (H, W, C). Raises UserError for a model that there is not.
    """
    # The reference is made of JAX's own convolutions and products; others compute the same in other ways.
    settings = get_base().model.to_dict() | dict(model) | {"ops": "reference", "mesh": None}
    module = make_model(num_classes=num_classes, dtype="float32", **settings)
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    # The initial weights come with a forward pass: one trace tells both.
    traced = jax.make_jaxpr(lambda seed, x: module.init(jax.random.key(seed), x, train=False), return_shape=True)
    program, variables = traced(np.uint32(0), image)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return Cost(params, 2 * sum(map(multiply_adds, equations(program.jaxpr))))


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yields the equations of a program and of the programs that these call."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def multiply_adds(equation: Any) -> int:
    """Returns the multiply-adds of an equation: for each value that comes out, as many as are added up for it."""
    name, out = equation.primitive.name, math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel, place = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec[0]
        return out * math.prod(kernel) // kernel[place]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 0
