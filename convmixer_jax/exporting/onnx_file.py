"""A model as an ONNX file, and one as a function of images.

    model = to_onnx(function, (32, 32, 3), {"source": "runs/cifar10"})
    path.write_bytes(model.SerializeToString())
    logits = load_onnx(path)(images)

The file takes "images", float32 [batch, H, W, C], normalised, and gives "logits", float32 [batch, classes].
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from convmixer_jax.errors import UserError
from convmixer_jax.exporting.graph import Graph, Value
from convmixer_jax.exporting.steps import WAY_OUT, trace
from convmixer_jax.exporting.translators import TRANSLATORS

INPUT, OUTPUT = "images", "logits"
# The first operator set that has GELU, with the format that came with it: older programs read as much as can be.
OPSET, FORMAT = 20, 9


def to_onnx(
    function: Callable[[jax.Array], jax.Array], image_shape: tuple[int, int, int], notes: Mapping[str, str]
) -> onnx.ModelProto:
    """Returns `function`, which maps float32 images [batch, H, W, C] to logits [batch, classes], for any batch.

    notes: written into the file. Raises UserError, naming it, for an operation that no row of TRANSLATORS has.
    """
    program = trace(function, image_shape)
    shapes = [
        tuple("batch" if axis == 0 else size for axis, size in enumerate(value.shape))
        for value in (program.images, program.output)
    ]
    graph = Graph(INPUT, program.images.shape)
    values: dict[object, Value] = {program.images: graph.images}
    for step in program.steps:
        if step.primitive not in TRANSLATORS:
            raise UserError(f"ONNX: the model computes {step.primitive!r}, which has no row in TRANSLATORS: {WAY_OUT}")
        operands = [operand if isinstance(operand, np.ndarray) else values[operand] for operand in step.operands]
        value = TRANSLATORS[step.primitive](graph, step, operands)
        # What is read once may still become part of its reader's weights; what is read again has to be there.
        values[step.result] = graph.written(value) if program.uses[step.result] > 1 else value
    graph.finish(values[program.output], OUTPUT)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip((INPUT, OUTPUT), shapes, strict=True)
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "convmixer_jax", ends[:1], ends[1:], graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
        producer_name="convmixer_jax",
    )
    helper.set_model_props(model, dict(notes))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    return inferred


def load_onnx(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function of images, float32 [B, H, W, C], to logits [B, classes], which runs the file on the CPU."""
    options = onnxruntime.SessionOptions()
    # Threads that wait for work by spinning keep the cores from whatever else runs, for a while after each call, too.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    runtime = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: runtime.run([OUTPUT], {INPUT: images})[0]
