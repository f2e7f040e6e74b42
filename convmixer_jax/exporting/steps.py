"""A model's computation as a flat list of steps, each one operation on values that depend on the images.

    program = trace(lambda images: model.apply(variables, images, train=False), image_shape=(32, 32, 3))
    for step in program.steps: print(step.primitive, step.operands, step.result.shape)

JAX traces the function, calls within it are written out in their places, and all that depends on weights alone is
computed here, once.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from convmixer_jax.errors import UserError

WAY_OUT = "write it by --format stablehlo, which has every operation, or add it to exporting/translators.py"

# Primitives that only call a program of their own, with the name of the parameter that holds it.
CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr"}


@dataclasses.dataclass(frozen=True, eq=False)
class Unknown:
    """A value that depends on the images. shape: the first dimension is the batch, a symbol; float32 always."""

    shape: tuple[Any, ...]


# A weight, or what was computed of weights alone, is an array.
Operand = Unknown | np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One operation. primitive: JAX's name of it; params: JAX's settings of it."""

    primitive: str
    params: Mapping[str, Any]
    operands: tuple[Operand, ...]
    result: Unknown


@dataclasses.dataclass(frozen=True)
class Program:
    """steps: in an order in which they can be made. uses: how many operands each value is, the output counted too."""

    images: Unknown
    steps: list[Step]
    output: Unknown
    uses: Mapping[Unknown, int]


def fold(equation: Any, operands: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the result of an equation of arrays. Repeated over the batch it is made for one image."""
    params = dict(equation.params)
    if "shape" in params:
        params["shape"] = tuple(size if isinstance(size, int) else 1 for size in params["shape"])
    return np.asarray(equation.primitive.bind(*operands, **params))


def flatten(program: Jaxpr, inputs: Sequence[Operand], constants: Sequence[Any], steps: list[Step]) -> list[Operand]:
    """Adds the steps of a program to `steps`, calls written out; returns its outputs.

    Raises UserError for an operation of several results, which no model here has.
    """
    values: dict[Any, Operand] = dict(zip(program.invars, inputs, strict=True))
    values |= {variable: np.asarray(array) for variable, array in zip(program.constvars, constants, strict=True)}

    def value(atom: Any) -> Operand:
        return np.asarray(atom.val) if isinstance(atom, Literal) else values[atom]

    for equation in program.eqns:
        name = equation.primitive.name
        operands = [value(atom) for atom in equation.invars]
        arrays = [operand for operand in operands if isinstance(operand, np.ndarray)]
        results: list[Operand]
        if name in CALLS:
            body: ClosedJaxpr = equation.params[CALLS[name]]
            results = flatten(body.jaxpr, operands, body.consts, steps)
        elif len(arrays) == len(operands):
            results = [fold(equation, arrays)]
        elif len(equation.outvars) == 1:
            made: Any = equation.outvars[0].aval
            result = Unknown(made.shape)
            steps.append(Step(name, equation.params, tuple(operands), result))
            results = [result]
        else:
            raise UserError(f"the model computes {name!r}, which has several results: {WAY_OUT}")
        values |= dict(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in program.outvars]


def needed(steps: Sequence[Step], output: Unknown) -> tuple[list[Step], collections.Counter[Unknown]]:
    """Returns the steps that the output depends on, and how often each value is used by them."""
    uses = collections.Counter([output])
    kept = []
    for step in reversed(steps):
        if step.result in uses:
            kept.append(step)
            uses.update(operand for operand in step.operands if isinstance(operand, Unknown))
    return kept[::-1], uses


def trace(function: Callable[[jax.Array], jax.Array], image_shape: tuple[int, int, int]) -> Program:
    """Returns the steps of `function`, which maps float32 images [batch, H, W, C] to one array, for any batch."""
    (batch,) = export.symbolic_shape("batch")
    images = Unknown((batch, *image_shape))
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(images.shape, np.float32))
    steps: list[Step] = []
    (output,) = flatten(closed.jaxpr, [images], closed.consts, steps)
    assert isinstance(output, Unknown), "no weight makes logits independent of the images"
    kept, uses = needed(steps, output)
    return Program(images, kept, output, uses)
