"""Static int8 quantisation of an ONNX file by onnxruntime's own tools.

    quantise(Path("model.onnx"), Path("model.int8.onnx"), [images, ...])

Convolutions and products are quantised, with Q and DQ nodes around them: weights to int8 with a scale per output
channel, their inputs and outputs to uint8 with one scale each, which the largest and smallest values over the
calibration images decide. Sums, GELU and the pool stay float32: on ConvMixers quantising them, too, cost more accuracy
and won no time.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from convmixer_jax.exporting.onnx_file import INPUT
from convmixer_jax.runs.files import write_bytes

QUANTISED = ("Conv", "Gemm")


class Batches(CalibrationDataReader):
    """Gives onnxruntime's calibration one batch after the other."""

    def __init__(self, batches: Iterable[np.ndarray]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next batch by the name of the model's input, None behind the last."""
        images = next(self._batches, None)
        return None if images is None else {INPUT: images}


def quantise(source: Path, target: Path, batches: Iterable[np.ndarray]) -> None:
    """Writes the quantised model of `source` to `target`. batches: images, float32 [B, H, W, C], normalised."""
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        # Shapes are all that is inferred: onnxruntime's optimisations would fuse what is to be quantised.
        quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            Batches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        write_bytes(target, quantised.read_bytes())
