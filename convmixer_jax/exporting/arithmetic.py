"""Arithmetic of single numbers in ONNX: what of it is kept back for weights to take in, what becomes GELU.

    value = multiply(graph, step, [x, np.asarray([2.0, 3.0])])

A translator gets a step and the values of its operands, arrays where they are weights; it returns the value of the
result. The table of them is in translators.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convmixer_jax.errors import UserError
from convmixer_jax.exporting.graph import Erf, Graph, Tensor, Value
from convmixer_jax.exporting.steps import WAY_OUT, Step

Operand = Value | np.ndarray
Translator = Callable[[Graph, Step, Sequence[Operand]], Value]


def refuse(step: Step, what: str) -> UserError:
    """Returns the error for a form of an operation that no translator has."""
    return UserError(f"ONNX: the model computes {step.primitive!r} {what}: {WAY_OUT}")


def unknown(step: Step, operand: Operand) -> Value:
    """Returns the operand. Raises UserError where it is an array."""
    if isinstance(operand, np.ndarray):
        raise refuse(step, "of weights, by what depends on the images")
    return operand


def known(step: Step, operand: Operand) -> np.ndarray:
    """Returns the operand. Raises UserError where it depends on the images."""
    if isinstance(operand, Value):
        raise refuse(step, "by what depends on the images")
    return operand


def as_channels(array: np.ndarray, shape: Sequence[Any]) -> np.ndarray | None:
    """Returns an array that meets values of `shape` as numbers of the last axis, None where it is no such array."""
    if array.size == 1:
        return array.reshape(()).astype(np.float64)
    along_last = array.shape[-1] == shape[-1] == array.size
    return array.reshape(-1).astype(np.float64) if along_last else None


def name_of(graph: Graph, operand: Operand) -> str:
    """Returns the name of an operand that is wholly in the file then."""
    return graph.constant(operand) if isinstance(operand, np.ndarray) else graph.tensor(operand)


def node_of(operation: str) -> Translator:
    """Returns the translator to one operation, of the operands as they are."""

    def translate(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
        names = [name_of(graph, operand) for operand in operands]
        return Value(step.result.shape, Tensor(graph.node(operation, names)))

    return translate


def same(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """An operation that changes nothing at inference."""
    return unknown(step, operands[0])


def convert(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """From float32 to float32."""
    if step.params["new_dtype"] != np.float32:
        raise refuse(step, f"to {step.params['new_dtype']}")
    return unknown(step, operands[0])


def negate(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """-x."""
    return unknown(step, operands[0]).changed(scale=-1.0)


def add(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """x + y: numbers per channel are kept back, the shifts of two values, too."""
    for value, array in (operands, operands[::-1]):
        if isinstance(value, Value) and isinstance(array, np.ndarray):
            numbers = as_channels(array, value.shape)
            if numbers is not None:
                return value.changed(shift=numbers)
            name, shift = graph.scaled(value)
            return Value(step.result.shape, Tensor(graph.node("Add", [name, graph.constant(array)])), shift=shift)
    (x, x_shift), (y, y_shift) = (graph.scaled(unknown(step, operand)) for operand in operands)
    return Value(step.result.shape, Tensor(graph.node("Add", [x, y])), shift=x_shift + y_shift)


def subtract(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """x - y, likewise."""
    x, y = operands
    if isinstance(y, np.ndarray):
        return add(graph, step, [x, np.asarray(-y)])  # of no dimensions, -y is no array
    if isinstance(x, np.ndarray):
        return add(graph, step, [x, y.changed(scale=-1.0)])
    (minuend, shift), (subtrahend, less) = graph.scaled(x), graph.scaled(y)
    return Value(step.result.shape, Tensor(graph.node("Sub", [minuend, subtrahend])), shift=shift - less)


def multiply(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """x * y: numbers per channel are kept back; x * (1 + erf(x / sqrt 2)) becomes GELU."""
    for value, array in (operands, operands[::-1]):
        if isinstance(value, Value) and isinstance(array, np.ndarray):
            numbers = as_channels(array, value.shape)
            if numbers is not None:
                return value.changed(scale=numbers)
        elif isinstance(value, Value) and isinstance(array, Value):
            gelu = as_gelu(graph, value, array)
            if gelu is not None:
                return gelu
    return node_of("Mul")(graph, step, operands)


def as_gelu(graph: Graph, x: Value, share: Value) -> Value | None:
    """Returns x * share where that is GELU's 2 Phi(x) * x, 2 Phi(x) = 1 + erf(x / sqrt 2), times a number."""
    erf = share.source
    if not (isinstance(x.source, Tensor) and isinstance(erf, Erf)) or x.source.name != erf.operand:
        return None
    # erf is odd, so the sign of its factor is one of its scale.
    scale = math.copysign(1.0, erf.factor) * share.scale
    is_gelu = (
        math.isclose(abs(erf.factor), math.sqrt(0.5), rel_tol=1e-6)
        and np.all(x.shift == 0)
        and scale.ndim == 0
        and np.all(scale == share.shift)
    )
    if not is_gelu:
        return None
    return Value(x.shape, Tensor(graph.node("Gelu", [x.source.name])), scale=2 * x.scale * scale)


def divide(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """x / y: numbers per channel are kept back."""
    x, y = operands
    if isinstance(x, Value) and isinstance(y, np.ndarray):
        numbers = as_channels(y, x.shape)
        if numbers is not None:
            # Divided, not multiplied by a reciprocal: a sum over 49 positions by 49 is then a mean exactly.
            return Value(x.shape, x.source, x.scale / numbers, x.shift / numbers)
    return node_of("Div")(graph, step, operands)


def maximum(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """max(x, y), by ReLU where y is 0."""
    for value, array in (operands, operands[::-1]):
        if isinstance(value, Value) and isinstance(array, np.ndarray) and not array.any():
            return Value(step.result.shape, Tensor(graph.node("Relu", [graph.tensor(value)])))
    return node_of("Max")(graph, step, operands)


def erf_of(scale: float, shift: float) -> Translator:
    """Returns the translator of scale * erf(x) + shift."""

    def translate(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
        name, factor, offset = graph.source(unknown(step, operands[0]))
        if factor.ndim or np.any(offset != 0):
            name, factor = graph.tensor(Value(step.result.shape, Tensor(name), factor, offset)), np.ones(())
        return Value(step.result.shape, Erf(name, float(factor))).changed(scale, shift)

    return translate


def reciprocal_root(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """1 / sqrt(x)."""
    root = graph.node("Sqrt", [graph.tensor(unknown(step, operands[0]))])
    return Value(step.result.shape, Tensor(graph.node("Reciprocal", [root])))


def power(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """x^y for a whole y, and x^2."""
    name = graph.tensor(unknown(step, operands[0]))
    exponent = step.params.get("y", 2)
    if exponent == 2:
        return Value(step.result.shape, Tensor(graph.node("Mul", [name, name])))
    return Value(step.result.shape, Tensor(graph.node("Pow", [name, graph.weight(np.asarray(exponent))])))
