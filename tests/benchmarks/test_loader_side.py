"""The DataLoader does the work that ours is put beside: the same examples, decoded, cropped and flipped by Pillow."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.benchmarks import torch_side
from convmixer_jax.benchmarks.loader_side import EndlessBatches, PillowImages, build_loader, loader_steps
from convmixer_jax.benchmarks.made_up import write_photographs
from convmixer_jax.benchmarks.workers import IN_A_RUN, Worker
from convmixer_jax.data.datasets import find_dataset, open_split
from convmixer_jax.data.examples import Examples
from convmixer_jax.data.order import batch_indices
from convmixer_jax.errors import UserError
from tests.benchmarks.sides import small_config

WHOLE = {"scale": (1.0, 1.0), "ratio": (4 / 3, 4 / 3), "interpolation": "bilinear"}
FLIP = ("horizontal_flip", {"probability": 1.0})


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 12)
    return folder


@pytest.fixture
def config(photographs):
    config = small_config()
    config.dataset, config.train_examples, config.batch_size = f"folder:{photographs}", 0, 5
    config.augment.order = ("random_resized_crop", "horizontal_flip")
    return config


def pillow(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def test_an_example_is_decoded_cropped_and_flipped(config, tmp_path):
    examples = open_split(find_dataset(config.dataset, tmp_path), "train", tmp_path)
    # The only box of the whole area and shape: all of 500 x 375.
    images = PillowImages(examples, [("random_resized_crop", WHOLE), FLIP])
    pixels, label = images[7]
    whole = np.asarray(pillow(examples.read(7)).resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels.numpy(), whole[:, ::-1])
    assert label == examples.label[7]
    small = PillowImages(examples, [("random_resized_crop", WHOLE | {"scale": (0.1, 0.2)})])
    first, second = (small[7][0].numpy() for _ in range(2))
    assert first.shape == (224, 224, 3)
    assert (first != second).any()
    centre = PillowImages(examples, [])[7][0].numpy()
    # Of 500 x 375 the middle 375 x 375.
    middle = pillow(examples.read(7)).resize((224, 224), Image.Resampling.BICUBIC, box=(62.5, 0, 437.5, 375))
    np.testing.assert_array_equal(centre, np.asarray(middle))


def test_what_has_its_size_stays_as_it_is():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 1), np.uint8)
    pixels, label = PillowImages(Examples(images, np.array([4, 5, 6], np.int32)), [])[1]
    np.testing.assert_array_equal(pixels.numpy(), images[1])
    assert label == 5


def test_batches_are_those_of_a_run_without_end():
    batches = iter(EndlessBatches(3, 5, 12))
    for step in range(5):  # two in an epoch
        assert next(batches) == batch_indices(3, step, 5, 12).tolist()


def test_batches_hold_the_runs_examples(config, tmp_path):
    side = build_loader(config, tmp_path, workers=0)
    pixels, labels = next(side.batches)
    assert (pixels.shape, str(pixels.dtype)) == ((5, 224, 224, 3), "torch.uint8")
    examples = open_split(find_dataset(config.dataset, tmp_path), "train", tmp_path)
    assert labels.tolist() == examples.label[batch_indices(config.seed, 0, 5, 12)].tolist()
    side.run(1)  # beyond the epoch
    assert side.images == IN_A_RUN * 5
    assert side.device_peak_bytes() is None


@pytest.mark.slow
def test_its_workers_work(config, tmp_path):
    # In a process of its own, since it forks.
    worker = Worker("it", build_loader, (config, tmp_path, 2), allocator="kept", call_seconds=0.1)
    with contextlib.closing(worker):
        worker.wait_until_ready()
        worker.call()
        assert worker.peaks()["host"] < 2e9
        assert worker.images % (IN_A_RUN * 5) == 0


def test_what_the_loader_cannot_do_is_refused(config, monkeypatch):
    assert [name for name, _ in loader_steps(config)] == ["random_resized_crop", "horizontal_flip"]
    config.augment.order = ("random_resized_crop", "random_erasing")
    with pytest.raises(UserError, match=r"config.augment.order has random_erasing: .* set --config.augment.order="):
        loader_steps(config)
    monkeypatch.setattr(torch_side.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install -r requirements-test.txt"):
        loader_steps(config)
