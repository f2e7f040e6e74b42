"""An ONNX graph that is being written, with what a norm does kept back until an operation can take it in.

    graph = Graph("images", ("batch", 32, 32, 3))
    x = graph.images                                        # a Value; changed(...) and the methods make others
    graph.finish(x, "logits")

A value is source * scale + shift, per channel. At inference BatchNorm is no more than a scale and a shift, and so is a
bias: they become part of a convolution's or product's weights, before or behind it, wherever that is exact. Where it
is not, `tensor` writes them as Mul and Add.

Values have JAX's shapes, channels last; tensors of four dimensions lie as [B, C, H, W] in the file.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

# From [B, H, W, C] to the order in the file, and back.
TO_FILE, FROM_FILE = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A result that is in the file, by its name there."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """A convolution or product, not yet in the file, so that a scale and a shift behind it become part of it.

    kernel: outputs first, float64. bias: float64 [outputs].
    """

    operation: str
    operand: str
    kernel: np.ndarray
    bias: np.ndarray
    attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Erf:
    """The error function of `operand` * factor, not yet in the file: it may turn out to be a part of GELU."""

    operand: str
    factor: float


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """source * scale + shift. shape: JAX's. scale, shift: float64, one number or one per index of the last axis."""

    shape: tuple[Any, ...]
    source: Tensor | Linear | Erf
    scale: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(()))
    shift: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))

    def changed(self, scale: Any = 1.0, shift: Any = 0.0) -> "Value":
        """Returns this value * scale + shift."""
        return dataclasses.replace(self, scale=self.scale * scale, shift=self.shift * scale + shift)


class Graph:
    """Nodes and weights in the order of the file."""

    def __init__(self, name: str, shape: tuple[Any, ...]):
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.images = Value(shape, Tensor(self.node("Transpose", [name], perm=TO_FILE)))

    def node(self, operation: str, operands: Sequence[str], **attributes: Any) -> str:
        """Writes an operation; returns the name of its result."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, operands, [name], name=name, **attributes))
        return name

    def weight(self, array: np.ndarray, dtype: str = "float32") -> str:
        """Writes an array as it is; returns its name."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype), name))
        return name

    def constant(self, array: np.ndarray) -> str:
        """Writes an array of JAX's shape in the order of the file; returns its name."""
        return self.weight(array.transpose(TO_FILE) if array.ndim == 4 else array)

    def per_channel(self, numbers: np.ndarray, rank: int) -> str:
        """Writes numbers of the last axis so that they meet the channels of a tensor of `rank` dimensions."""
        return self.weight(numbers.reshape(-1, 1, 1) if rank == 4 and numbers.ndim else numbers)

    def source(self, value: Value) -> tuple[str, np.ndarray, np.ndarray]:
        """Returns (tensor, scale, shift) of a value whose source is in the file then.

        What is not there yet takes the scale and the shift in, if it can.
        """
        source = value.source
        if isinstance(source, Tensor):
            return source.name, value.scale, value.shift
        if isinstance(source, Erf):
            scaled = self.node("Mul", [source.operand, self.weight(np.asarray(source.factor))])
            return self.node("Erf", [scaled]), value.scale, value.shift
        scale = np.broadcast_to(value.scale, source.bias.shape)
        kernel = source.kernel * scale.reshape(-1, *[1] * (source.kernel.ndim - 1))
        operands = [source.operand, self.weight(kernel), self.weight(source.bias * scale + value.shift)]
        return self.node(source.operation, operands, **source.attributes), np.ones(()), np.zeros(())

    def scaled(self, value: Value) -> tuple[str, np.ndarray]:
        """Returns (tensor, shift) of a value: only the shift is not written."""
        name, scale, shift = self.source(value)
        if np.any(scale != 1):
            name = self.node("Mul", [name, self.per_channel(scale, len(value.shape))])
        return name, shift

    def tensor(self, value: Value) -> str:
        """Returns the name of a value that is wholly in the file then."""
        name, shift = self.scaled(value)
        if np.any(shift != 0):
            name = self.node("Add", [name, self.per_channel(shift, len(value.shape))])
        return name

    def written(self, value: Value) -> Value:
        """Returns the value, wholly in the file."""
        return Value(value.shape, Tensor(self.tensor(value)))

    def finish(self, value: Value, name: str) -> None:
        """Gives the tensor of a value, which nothing else reads, its final name."""
        last = self.tensor(value)
        for node in self.nodes:
            node.output[:] = [name if output == last else output for output in node.output]
