"""The StableHLO program computes what the model does, for any batch."""

import json

import jax
import numpy as np
import pytest
from jax import export

from convmixer_jax.exporting.formats import FORMATS
from convmixer_jax.inference.description import from_record
from tests.exporting.models import BATCHES, expected, small_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", ["even kernel", "cnn"])
def test_logits_are_the_models(name, tmp_path):
    FORMATS["stablehlo"].write(small_weights(name), tmp_path / "model.stablehlo")
    run, (images, logits) = FORMATS["stablehlo"].load(tmp_path / "model.stablehlo"), expected(name)
    for batch in BATCHES:
        # The same operations, which another batch may sum in another order: some ulps of values of order one.
        np.testing.assert_allclose(run(images[:batch]), logits[:batch], rtol=0, atol=1e-6)


def test_it_is_for_every_platform_and_told_of(tmp_path):
    FORMATS["stablehlo"].write(small_weights("even kernel"), tmp_path / "model.stablehlo")
    program = export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    (images,) = program.in_avals
    assert (str(images.shape), images.dtype) == ("(batch, 12, 12, 3)", np.float32)
    described = from_record(json.loads((tmp_path / "model.stablehlo.json").read_text()), "the file")
    assert (described.mean, described.image_shape, described.num_classes) == ((0.5, 0.5, 0.5), (12, 12, 3), 10)
    assert jax.tree.leaves(program.out_avals)[0].shape[1:] == (10,)
