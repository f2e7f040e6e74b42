"""How the config decides on what the host does to training images, and what is shown of them."""

import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.config import get_base
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.host_batches import Reading
from convmixer_jax.data.host_crops import ResizedCrop, crop_draws, draw_boxes, resize_box
from convmixer_jax.data.inputs import INPUTS
from convmixer_jax.data.order import batch_indices
from convmixer_jax.training import run_inputs
from convmixer_jax.training.mesh import make_mesh, over_data, replicated
from convmixer_jax.training.run_inputs import first_images, training_reading
from tests.augment.samples import photographs_64

COUNT = 8


def experiment_of(crop_on_host: bool, on_bad_example: str = "raise", interpolation: str = "random"):
    """Stands for an Experiment: what decides on the reading, and an update that only normalises."""
    config = get_base()
    config.augment.order = ("random_resized_crop",)
    config.augment.random_resized_crop.scale = (0.08, 1.0)
    config.augment.random_resized_crop.interpolation = interpolation
    config.on_bad_example, config.seed = on_bad_example, 4
    return types.SimpleNamespace(
        config=config,
        crop_on_host=crop_on_host,
        mesh=make_mesh(1),
        inputs=INPUTS["stream"],
        dataset=types.SimpleNamespace(channel_statistics=lambda mean, std: ((0.5,) * 3, (0.25,) * 3)),
        prepare=lambda seed, step, batch: ((batch["image"] / 255.0 - 0.5) / 0.25, batch["label"]),
    )


@pytest.mark.parametrize("interpolation", ["random", "bicubic"])
def test_the_config_says_how_images_are_read(interpolation):
    crop = ResizedCrop((0.08, 1.0), (3 / 4, 4 / 3), interpolation)
    assert training_reading(experiment_of(True, "raise", interpolation)) == Reading(crop, skip_bad=False)
    assert training_reading(experiment_of(True, "skip", interpolation)) == Reading(crop, skip_bad=True)
    assert training_reading(experiment_of(False, "skip", interpolation)) == Reading(None, skip_bad=True)


@pytest.mark.parametrize(
    "split, on_bad_example, skip_bad", [("val", "skip", True), ("val", "raise", False), ("test", "skip", False)]
)
def test_only_what_was_held_out_is_replaced_in_an_evaluation(monkeypatch, split, on_bad_example, skip_bad):
    experiment = experiment_of(False, on_bad_example)
    experiment.eval_batch_size = 6
    experiment.inputs = types.SimpleNamespace(evaluation=lambda *arguments: arguments)
    monkeypatch.setattr(run_inputs, "open_split", lambda dataset, split, *others: split)
    opened, *_, batch_size, reading = run_inputs.load_evaluation(experiment, Path(), split)
    assert (opened, batch_size, reading) == (split, 6, Reading(skip_bad=skip_bad))


def test_the_picture_shows_the_hosts_crops(tmp_path):
    images = photographs_64()[:COUNT]
    names = [f"{n}.png" for n in range(COUNT)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    files = ImageFiles(tmp_path, np.array(names), label=np.zeros(COUNT, np.int32), image_shape=(24, 24, 3))
    experiment = experiment_of(crop_on_host=True)
    grid, reading = experiment.mesh, training_reading(experiment)
    source = experiment.inputs.train(files, replicated(grid), over_data(grid), 4, COUNT, reading)
    seen = first_images(experiment, source)
    source.close()
    draws, sides = crop_draws(4, 0, COUNT), np.full(COUNT, 64)
    boxes = draw_boxes(draws, sides, sides, reading.crop)
    index = batch_indices(4, 0, COUNT, COUNT)
    for image, n, box, own in zip(seen, index, boxes, draws, strict=True):
        np.testing.assert_array_equal(image, resize_box(images[n], box, (24, 24), reading.crop.resize_options(own)))
