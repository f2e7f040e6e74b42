"""Every part of the input does what the run does: the same examples, read, decoded, cropped, prepared."""

import jax
import numpy as np
import pytest

from convmixer_jax.benchmarks import input_sides
from convmixer_jax.benchmarks.input_sides import (
    UpdateSide,
    ahead,
    build_augmented,
    build_crop,
    build_decode,
    build_input,
    build_memory,
    build_prepared,
    build_read,
    build_updates,
    opened,
)
from convmixer_jax.benchmarks.made_up import write_photographs
from convmixer_jax.benchmarks.ours import OurSide
from convmixer_jax.benchmarks.workers import IN_A_RUN, UnavailableError
from convmixer_jax.data.order import batch_indices
from tests.benchmarks.sides import small_config

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 12)
    return folder


@pytest.fixture
def files(photographs):
    config = small_config()
    config.dataset, config.train_examples, config.image_size = f"folder:{photographs}", 0, 32
    config.augment.order = ("random_resized_crop", "horizontal_flip")
    config.augment.horizontal_flip.probability = 1.0
    return config


@pytest.fixture
def digits():
    config = small_config()
    config.dataset, config.augment.order, config.train_examples = "digits", (), 0
    return config


def indices(config, step):
    return batch_indices(config.seed, step, config.batch_size, 12)


def test_what_is_made_ahead_keeps_its_order():
    made = ahead(lambda number: number)
    assert [next(made) for _ in range(50)] == list(range(50))


def test_bytes_and_pixels_are_those_of_the_runs_examples(files, tmp_path):
    _, examples = opened(files, tmp_path)
    read = build_read(files, tmp_path)
    assert read.images == IN_A_RUN * 6
    read.run(1)
    assert next(read.batches) == [examples.read(index) for index in indices(files, IN_A_RUN)]
    batch = next(build_decode(files, tmp_path).batches)
    assert batch["image"].shape == (6, 32, 32, 3)
    assert batch["label"].tolist() == examples.label[indices(files, 0)].tolist()


def test_the_hosts_crop_is_the_runs(files, tmp_path):
    cropped, whole = build_crop(files, tmp_path), build_input(files, tmp_path)
    assert whole.facts["crop_on_host"]
    for _ in range(2):
        ours = jax.device_get(whole.hand_over(1))
        for name, values in next(cropped.batches).items():
            np.testing.assert_array_equal(values, ours[name])
    whole.hand_over.source.close()


def test_the_devices_do_what_is_left(files, tmp_path):
    files.mean, files.std = (0.0,) * 3, (1.0,) * 3
    batch = next(build_crop(files, tmp_path).batches)
    prepared = build_prepared(files, tmp_path)
    images, targets = prepared.hand_over(1)
    # Flipped, and on the scale 0-1; float32 of 1/255 and its multiples.
    np.testing.assert_allclose(images, batch["image"][:, :, ::-1] / np.float32(255), atol=1e-6)
    assert np.asarray(targets).argmax(1).tolist() == batch["label"].tolist()
    augmented = build_augmented(files, tmp_path)
    images, labels = augmented.hand_over(1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, batch["image"][:, :, ::-1])
    np.testing.assert_array_equal(labels, batch["label"])
    for side in (prepared, augmented):
        side.hand_over.source.close()


def test_what_lies_in_memory_has_no_files(digits, files, tmp_path):
    for build in (build_read, build_decode, build_crop):
        with pytest.raises(UnavailableError, match="digits lies in memory as it is"):
            build(digits, tmp_path)
    files.augment.order = ("horizontal_flip",)
    with pytest.raises(UnavailableError, match="nothing is cropped on the host"):
        build_crop(files, tmp_path)


def test_the_input_gives_the_runs_batches(digits, tmp_path):
    side = build_input(digits, tmp_path)
    assert side.facts["path"] == "resident"
    first, second = side.hand_over(1), side.hand_over(1)
    np.testing.assert_array_equal(first["index"], batch_indices(0, 0, 6, 1437))
    np.testing.assert_array_equal(second["index"], batch_indices(0, 1, 6, 1437))
    side.run(2)
    assert next(side.hand_over.numbers) == 2 + 2 * IN_A_RUN


def test_streamed_batches_are_counted_for_memory(digits, tmp_path):
    side = build_memory(digits, tmp_path, 30)
    assert side.facts["memory"]["batches"] == 30
    assert next(side.hand_over.numbers) == 30


def test_updates_of_the_run_tell_their_wait(digits, tmp_path):
    digits.model.patch_size = 2
    side = build_updates(digits, tmp_path)
    side.run(3)
    assert int(side.side.hand_over.state.step) == 4
    assert 0 < side.facts["input_wait"] < 1


class Clock:
    """Seconds and seconds of waiting of laps, in turn."""

    def __init__(self, *laps):
        self.laps = list(laps)

    def lap(self):
        return self.laps.pop(0)


def test_the_wait_is_a_share_of_all_calls(monkeypatch):
    class Updates:
        clock = Clock((9.0, 9.0), (2.0, 1.0), (50.0, 0.0), (6.0, 1.0))
        facts = {"compile_seconds": 1.0}  # noqa: RUF012

    monkeypatch.setattr(input_sides, "OurSide", lambda updates, images, facts, at_once: Silent(facts))
    side = UpdateSide(Updates(), 6, 1)
    side.run(1)
    assert side.facts == {"compile_seconds": 1.0, "input_wait": 0.5}
    side.run(1)  # what lies between two calls does not count
    assert side.facts["input_wait"] == pytest.approx(2 / 8)


class Silent(OurSide):
    def __init__(self, facts):
        super().__init__(lambda count: None, 6, facts)
