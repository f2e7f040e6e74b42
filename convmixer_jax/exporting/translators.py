"""JAX's operations in ONNX's: the table of them, convolutions and what changes shapes.

    for step in program.steps:
        values[step.result] = TRANSLATORS[step.primitive](graph, step, operands)

To add an operation, add a function, see arithmetic.py, and a row to TRANSLATORS.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from convmixer_jax.exporting.arithmetic import (
    Operand,
    Translator,
    add,
    convert,
    divide,
    erf_of,
    known,
    maximum,
    multiply,
    negate,
    node_of,
    power,
    reciprocal_root,
    refuse,
    same,
    subtract,
    unknown,
)
from convmixer_jax.exporting.graph import FROM_FILE, TO_FILE, Graph, Linear, Tensor, Value
from convmixer_jax.exporting.steps import Step


def linear_operand(graph: Graph, value: Value, shift_too: bool) -> tuple[str, np.ndarray, np.ndarray]:
    """Returns (tensor, scale, shift) that a linear operation takes in; no shift unless `shift_too`. All [C]."""
    name, scale, shift = graph.source(value)
    if not shift_too and np.any(shift != 0):
        name, scale, shift = graph.tensor(Value(value.shape, Tensor(name), scale, shift)), np.ones(()), np.zeros(())
    channels = value.shape[-1:]
    return name, np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)


def convolve(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """A convolution of [B, H, W, C]. What is before it becomes part of its kernel, and of its bias.

    Not so a shift where the map is padded: the padding is of zeros behind the norm, which are no zeros before it.
    """
    params, value = step.params, unknown(step, operands[0])
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    dilated = any(size != 1 for size in params["lhs_dilation"])
    if numbers.lhs_spec != TO_FILE or numbers.out_spec != TO_FILE or params["batch_group_count"] != 1 or dilated:
        raise refuse(step, "with other dimensions than [B, H, W, C], groups of the batch or a dilated map")
    kernel = known(step, operands[1]).transpose(numbers.rhs_spec).astype(np.float64)
    padding = np.asarray(params["padding"])
    name, scale, shift = linear_operand(graph, value, shift_too=not padding.any())
    # The input channels of each output, [outputs, C / groups].
    inputs = np.arange(value.shape[-1]).reshape(groups, -1).repeat(len(kernel) // groups, axis=0)
    bias = np.einsum("oihw,oi->o", kernel, shift[inputs])
    attributes = {
        "kernel_shape": kernel.shape[2:],
        "strides": params["window_strides"],
        "pads": padding.T.ravel(),
        "dilations": params["rhs_dilation"],
        "group": groups,
    }
    return Value(step.result.shape, Linear("Conv", name, kernel * scale[inputs][:, :, None, None], bias, attributes))


def product(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """Values [B, C] times weights [C, outputs]. What is before it becomes part of the weights and the bias."""
    value, kernel = unknown(step, operands[0]), known(step, operands[1]).astype(np.float64)
    if len(value.shape) != 2 or step.params["dimension_numbers"] != (((1,), (0,)), ((), ())):
        raise refuse(step, "other than [B, C] times [C, outputs]")
    name, scale, shift = linear_operand(graph, value, shift_too=True)
    return Value(step.result.shape, Linear("Gemm", name, (scale[:, None] * kernel).T, shift @ kernel, {"transB": 1}))


def total(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """A sum over axes; over height and width a mean times the positions, for what comes next is a division by them."""
    value, axes = unknown(step, operands[0]), tuple(step.params["axes"])
    shape = step.result.shape
    if len(value.shape) == 4 and axes == (1, 2):
        name, scale, shift = graph.source(value)
        positions = value.shape[1] * value.shape[2]
        pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [name])])
        return Value(shape, Tensor(pooled), scale * positions, shift * positions)
    if len(value.shape) == 4:
        if axes != (3,):
            raise refuse(step, f"over the axes {axes} of [B, H, W, C]")
        axes = (TO_FILE.index(3),)
    names = [graph.tensor(value), graph.weight(np.asarray(axes), "int64")]
    return Value(shape, Tensor(graph.node("ReduceSum", names, keepdims=0)))


def max_pool(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """The largest of each window of height and width."""
    params, value = step.params, unknown(step, operands[0])
    window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    ends = [(sizes[0], sizes[3]) for sizes in (window, strides) if len(sizes) == 4]
    if ends != [(1, 1), (1, 1)] or {*params["base_dilation"], *params["window_dilation"]} != {1}:
        raise refuse(step, "over other axes than height and width, or dilated")
    attributes = {"kernel_shape": window[1:3], "strides": strides[1:3], "pads": np.asarray(padding)[1:3].T.ravel()}
    return Value(step.result.shape, Tensor(graph.node("MaxPool", [graph.tensor(value)], **attributes)))


def lies_alike(shape: Sequence[Any]) -> bool:
    """Whether numbers of this shape have the same order here and in the file."""
    return len(shape) != 4 or shape[3] == 1 or tuple(shape[1:3]) == (1, 1)


def reshape(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """Another shape of the same numbers in the same order; the batch stays in front."""
    value, shape = unknown(step, operands[0]), step.result.shape
    if value.shape[0] != shape[0]:
        raise refuse(step, "of the batch")
    name, scale, shift = graph.source(value)
    if value.shape[-1] != shape[-1]:  # the channels are no longer what they were
        name, scale, shift = graph.tensor(Value(value.shape, Tensor(name), scale, shift)), np.ones(()), np.zeros(())
    if not lies_alike(value.shape):
        name = graph.node("Transpose", [name], perm=FROM_FILE)
    target = np.asarray([0, *shape[1:]])  # 0 keeps the batch
    if len(shape) == 4 and lies_alike(shape):
        target = target[list(TO_FILE)]
    name = graph.node("Reshape", [name, graph.weight(target, "int64")])
    if not lies_alike(shape):
        name = graph.node("Transpose", [name], perm=TO_FILE)
    return Value(shape, Tensor(name), scale, shift)


def broadcast(graph: Graph, step: Step, operands: Sequence[Operand]) -> Value:
    """New axes of size 1, among them, in their order, those that are there."""
    value, shape = unknown(step, operands[0]), step.result.shape
    kept = step.params["broadcast_dimensions"]
    if tuple(shape[axis] for axis in kept) != value.shape or math.prod(shape[1:]) != math.prod(value.shape[1:]):
        raise refuse(step, f"to {shape}")
    return reshape(graph, step, operands)


TRANSLATORS: dict[str, Translator] = {
    "add": add,
    "broadcast_in_dim": broadcast,
    "conv_general_dilated": convolve,
    "convert_element_type": convert,
    "copy": same,
    "div": divide,
    "dot_general": product,
    "erf": erf_of(1.0, 0.0),
    "erfc": erf_of(-1.0, 1.0),
    "exp": node_of("Exp"),
    "integer_pow": power,
    "logistic": node_of("Sigmoid"),
    "max": maximum,
    "mul": multiply,
    "neg": negate,
    "reduce_sum": total,
    "reduce_window_max": max_pool,
    "reshape": reshape,
    "rsqrt": reciprocal_root,
    "sqrt": node_of("Sqrt"),
    "square": power,
    "squeeze": reshape,
    "sub": subtract,
    "tanh": node_of("Tanh"),
}
