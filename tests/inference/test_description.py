"""A description survives JSON, one that was damaged or edited is refused in one line, and people read its summary."""

import json

import pytest

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import build, describe, from_record, summary, to_record
from convmixer_jax.models.variants import VARIANTS
from tests.inference.random_weights import random_weights

DIGITS = describe({"model": {"dim": 16}, "mean": (), "std": ()}, DATASETS["digits"], "here")


def test_a_description_survives_json():
    assert from_record(json.loads(json.dumps(to_record(DIGITS))), "there") == DIGITS


RECORDS = {
    "nothing": ({"model": None}, "there has None for config.model, no fields"),
    "no number": ({"num_classes": "ten"}, "there does not describe weights"),
    "too few names": ({"class_names": ["a"]}, r"1 names of 10 classes"),
    "too many means": ({"mean": [0.1, 0.2]}, "2 means and 1 deviations of 1 channels"),
    "no image": ({"image_shape": [8, 8]}, "there does not describe weights"),
    "a row of pixels": ({"image_shape": [8, 1]}, "there does not describe weights"),
    "a huge image": ({"image_shape": [8, 100_000, 1]}, "image_shape is 100000: the model takes images of 2 to 4096"),
    "a text for a number": ({"model": {"depth": "x"}}, "there has 'x' for config.model.depth, no int: restore a copy"),
    "a fraction": ({"model": {"dim": 8.5}}, "there has 8.5 for config.model.dim, no int: restore a copy"),
    "a negative size": ({"model": {"kernel_size": -3}}, "there: config.model.kernel_size is -3: it must be a number f"),
    "a switch": ({"model": {"depth": True}}, "there: config.model.depth is True: it must be a number from 1 to 10000"),
    "no deviation": ({"std": [0.0]}, r"there: std is \(0.0,\): it must be numbers above 0"),
    "no number at all": ({"mean": [float("nan")]}, r"there: mean is \(nan,\): it must be numbers from 0 to 1"),
    "no classes": ({"num_classes": 0, "class_names": []}, "there: num_classes is 0, out of range"),
    "no part of the image": ({"crop_pct": -1}, "there: crop_pct is -1.0, out of range"),
    "a newer field": ({"model": {"spin": 1}}, "there has config.model.spin, which this version does not know"),
}


@pytest.mark.parametrize("change, words", RECORDS.values(), ids=RECORDS)
def test_a_damaged_description_is_told(change, words):
    with pytest.raises(UserError, match=words):
        from_record(to_record(DIGITS) | change, "there")


@pytest.mark.parametrize("fields", [{"block": "bottleneck", "bottleneck_factor": 3}, {"variant": "staged", "dim": 4}])
def test_a_model_whose_channels_cannot_be_divided_is_told(fields):
    description = from_record(to_record(DIGITS) | {"model": {"dim": 16} | fields}, "there")
    with pytest.raises(UserError, match="it must divide config.model.dim, which is 16|needs a multiple of 8"):
        build(description, "reference")


SUMMARIES = {
    "convmixer": "convmixer-8/1, patches of 1, kernels of 3, gelu; images of 32x32, 10 classes",
    "staged": "staged-8, gelu; images of 32x32, 10 classes",
    "cnn": "cnn; images of 32x32, 10 classes",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_summary_has_the_sizes_that_the_variant_reads(variant):
    description, _ = random_weights("cifar10", variant=variant)
    assert summary(description) == SUMMARIES[variant]
