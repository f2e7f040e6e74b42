"""The ONNX file computes what the model does, whatever the variant and the batch."""

import collections
import json

import numpy as np
import onnx
import pytest

from convmixer_jax.exporting.formats import FORMATS
from convmixer_jax.inference.description import from_record
from tests.exporting.models import BATCHES, MODELS, expected, small_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Sums of at most a few hundred float32 terms in another order, 2^-24 of their size each, through some ten layers whose
# values are of order one: 1e-5. A term that is folded where it may not be is off by 0.01 and more.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes each model once; returns its file."""
    folder, written = tmp_path_factory.mktemp("onnx"), {}

    def file(name):
        if name not in written:
            written[name] = folder / f"{len(written)}.onnx"
            FORMATS["onnx"].write(small_weights(name), written[name])
        return written[name]

    return file


def operations(path):
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_models(files, name):
    run, (images, logits) = FORMATS["onnx"].load(files(name)), expected(name)
    for batch in BATCHES:
        np.testing.assert_allclose(run(images[:batch]), logits[:batch], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_no_norm_is_left_and_one_transpose(files, name):
    found = operations(files(name))
    assert found["BatchNormalization"] == 0
    # Of the cnn's map, too, before it becomes one row: the rows of the next weights are in that order.
    assert found["Transpose"] == (2 if name == "cnn" else 1)


def test_what_can_be_folded_is(files):
    # Stem, two blocks of two convolutions. A norm before a padded convolution and a sum is Mul and Add; the branch's
    # is Mul alone, its shift goes through the sum into the pointwise convolution; the last one is in the classifier.
    assert operations(files("even kernel")) == {
        "Transpose": 1, "Conv": 5, "Gelu": 5, "Mul": 4, "Add": 4, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1,
    }  # fmt: skip
    # Two norms before products and none before a padded convolution.
    assert operations(files("head=bn_dropout"))["Mul"] == operations(files("relu"))["Mul"] == 2


def test_the_file_tells_what_it_takes(files):
    model = onnx.load(files("even kernel"))
    ends = {
        end.name: [axis.dim_param or axis.dim_value for axis in end.type.tensor_type.shape.dim]
        for end in (*model.graph.input, *model.graph.output)
    }
    assert ends == {"images": ["batch", 12, 12, 3], "logits": ["batch", 10]}
    notes = {entry.key: entry.value for entry in model.metadata_props}
    described = from_record(json.loads(notes["description"]), "the file")
    assert described.mean == (0.5, 0.5, 0.5)
    assert described.image_shape == (12, 12, 3)
