"""How a config becomes a run: where the data lie, and who crops."""

import dataclasses

import jax
import numpy as np
import pytest

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.training import assembly
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.runner import input_line
from tests.config_values import base_with

SMALL = {
    "dataset": "digits", "batch_size": 16, "model.dim": 8, "model.depth": 1, "model.patch_size": 4,
    "model.kernel_size": 3,
}  # fmt: skip
CROP_AND_FLIP = ("random_resized_crop", "horizontal_flip")
DATA_BYTES = (1437 + 360) * 8 * 8


@pytest.mark.parametrize(
    "limit, training, name",
    [
        (DATA_BYTES, True, "resident"),
        (DATA_BYTES - 1, True, "stream"),
        (None, True, "resident"),
        (360 * 64, False, "resident"),
        (360 * 64 - 1, False, "stream"),
    ],
)
def test_data_beyond_the_memory_are_streamed(monkeypatch, limit, training, name):
    monkeypatch.setattr(assembly, "memory_limit", lambda devices: limit)
    experiment = assemble(base_with(**SMALL), training=training)
    assert experiment.input_name == name
    line = input_line(experiment)
    assert (line == "") == (name == "resident")
    if line:
        assert line.startswith("config.input: stream, not resident (the data need 0.00 GB on each device and there are")


def crop_sizes(order, varied):
    """Whether the host crops, and the images that the device makes of a batch of noise."""
    dataset = dataclasses.replace(DATASETS["digits"], varied=varied)
    experiment = assemble(base_with(**SMALL, **{"augment.order": order}), dataset)
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
    prepared, _ = jax.jit(experiment.prepare)(np.uint32(0), 0, {"image": images, "label": np.zeros(16, np.int32)})
    return experiment.crop_on_host, experiment.input_name, np.asarray(prepared)


def test_the_host_crops_where_images_have_sizes_of_their_own():
    on_host, name, images = crop_sizes(CROP_AND_FLIP, varied=True)
    assert (on_host, name) == (True, "stream")
    _, _, flipped = crop_sizes(CROP_AND_FLIP[1:], varied=True)
    np.testing.assert_array_equal(images, flipped)  # the device does the rest, with the draws that it would have made
    on_host, name, cropped = crop_sizes(CROP_AND_FLIP, varied=False)
    assert (on_host, name) == (False, "resident")
    assert not np.array_equal(cropped, flipped)


def test_a_crop_that_comes_later_is_the_devices():
    on_host, name, _ = crop_sizes(CROP_AND_FLIP[::-1], varied=True)
    assert (on_host, name) == (False, "resident")
