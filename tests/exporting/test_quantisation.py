"""The int8 model tells nearly all digits that the float32 one tells, and is int8 where it says so."""

import onnx
import pytest
from onnx import TensorProto

from convmixer_jax.exporting.formats import FORMATS
from convmixer_jax.exporting.quantisation import quantise
from convmixer_jax.exporting.study import Study
from tests.exporting.models import NOWHERE, compiled, digits_weights


@pytest.fixture(scope="module")
def study():
    return Study(digits_weights().description, NOWHERE)


@pytest.fixture(scope="module")
def files(tmp_path_factory, study):
    """The float32 and the int8 file."""
    folder = tmp_path_factory.mktemp("int8")
    FORMATS["onnx"].write(digits_weights(), folder / "model.onnx")
    quantise(folder / "model.onnx", folder / "int8.onnx", study.calibration(64))
    return folder / "model.onnx", folder / "int8.onnx"


def test_it_loses_little(files, study):
    plain, int8 = (study.top1(FORMATS["onnx"].load(file)) for file in files)
    assert plain == study.top1(compiled(digits_weights()))
    assert plain > 0.9
    # Half a step of 1/255 of a range, at five places: one part in a hundred of a logit. So near are few digits' best
    # two classes. A range of the wrong channel or sign would leave a guess, 0.1.
    assert int8 == pytest.approx(plain, abs=0.03)


def test_kernels_are_int8_with_a_scale_per_channel(files):
    graph = onnx.load(files[1]).graph
    weights = {weight.name: weight for weight in graph.initializer}
    kernels = [weight for weight in weights.values() if weight.data_type == TensorProto.INT8 and len(weight.dims) > 1]
    assert sorted(tuple(kernel.dims) for kernel in kernels) == [(10, 96), (96, 1, 3, 3), (96, 1, 4, 4), (96, 96, 1, 1)]
    scales = {tuple(weight.dims) for name, weight in weights.items() if name.endswith("_scale") and weight.dims}
    assert scales == {(96,), (10,)}
    assert {node.op_type for node in graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv", "Gemm", "Gelu"}


def test_calibration_is_repeatable_and_normalised(study):
    first, again = study.calibration(70), study.calibration(70)
    assert [len(batch) for batch in first] == [32, 32, 6]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert abs(first[0].mean()) < 0.2  # digits have mean 0 and deviation 1 over the training split
