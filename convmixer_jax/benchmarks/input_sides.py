"""Our input, whole and by its parts, as sides: from the stored bytes to the batches of a run, and updates with them.

    side = build_input(config, data_dir)
    side.run(10)                       # ten times IN_A_RUN batches, waited for

Every part works as in a run: read and decoded by the pipeline's threads, the next batch on its way meanwhile.
"""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from convmixer_jax.augment.pipeline import make_augment
from convmixer_jax.benchmarks.memory_slope import stream_batches
from convmixer_jax.benchmarks.ours import OurSide, Updates, assembled
from convmixer_jax.benchmarks.workers import IN_A_RUN, UnavailableError
from convmixer_jax.data.datasets import Dataset, find_dataset, open_split
from convmixer_jax.data.examples import EncodedImages, Stored
from convmixer_jax.data.host_batches import Crops, HostBatches, reading_threads
from convmixer_jax.data.host_crops import ResizedCrop, crop_draws
from convmixer_jax.data.inputs import TrainInput
from convmixer_jax.data.order import batch_indices
from convmixer_jax.runs import provenance
from convmixer_jax.runs.clock import RunClock
from convmixer_jax.runs.memory import device_peak_bytes
from convmixer_jax.training.assembly import Experiment, augment_settings, channel_statistics, crops_on_host
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.prepare import Prepare
from convmixer_jax.training.run_inputs import training_reading
from convmixer_jax.training.state import step_key

_NO_END = np.iinfo(np.int64).max


def opened(config: ConfigDict, data_dir: Path) -> tuple[Dataset, Stored]:
    """Returns the data set and its training split."""
    dataset = find_dataset(config.dataset, data_dir, image_size=config.image_size, crop_pct=config.crop_pct)
    return dataset, open_split(dataset, "train", data_dir, config.val_fraction, config.train_examples)


def encoded(config: ConfigDict, data_dir: Path) -> tuple[Dataset, EncodedImages, Callable[[int], np.ndarray]]:
    """Returns data set, training split and the examples of batch n. Raises UnavailableError where no file is read."""
    dataset, examples = opened(config, data_dir)
    if not isinstance(examples, EncodedImages):
        raise UnavailableError(f"{config.dataset} lies in memory as it is")
    sizes = {"batch_size": config.batch_size, "num_examples": len(examples)}
    return dataset, examples, functools.partial(batch_indices, config.seed, **sizes)


def training_input(experiment: Experiment, examples: Stored) -> TrainInput:
    """Returns the training batches as the run gets them."""
    config, layout = experiment.config, (replicated(experiment.mesh), over_data(experiment.mesh))
    return experiment.inputs.train(examples, *layout, config.seed, config.batch_size, training_reading(experiment))


class HostSide:
    """See workers.Side."""

    def __init__(self, batches: Iterator[Any], batch_size: int):
        """batches: without end, in the host's memory."""
        self.batches, self.images = batches, IN_A_RUN * batch_size
        self.facts: dict[str, Any] = {}

    def run(self, count: int) -> None:
        """Takes the next `count` times IN_A_RUN batches."""
        for _ in range(count * IN_A_RUN):
            next(self.batches)

    def device_peak_bytes(self) -> None:
        """See workers.Side."""


class DeviceSide(OurSide):
    """See workers.Side: batches that end on the devices."""

    def run(self, count: int) -> None:
        """Takes the next `count` times IN_A_RUN batches and waits for all."""
        super().run(count * IN_A_RUN)


def ahead(made: Callable[[int], Any]) -> Iterator[Any]:
    """Yields made(0), made(1) and so on without end, made by as many threads as a pipeline has."""
    with concurrent.futures.ThreadPoolExecutor(reading_threads()) as pool:
        under_way = [pool.submit(made, number) for number in range(reading_threads())]
        for number in itertools.count(len(under_way)):
            yield under_way.pop(0).result()
            under_way.append(pool.submit(made, number))


def build_read(config: ConfigDict, data_dir: Path) -> HostSide:
    """Returns the bytes of batches: encoded images, read and left as they are."""
    _, images, indices = encoded(config, data_dir)
    batches = ahead(lambda step: [images.read(index) for index in indices(step)])
    return HostSide(batches, config.batch_size)


def build_decode(config: ConfigDict, data_dir: Path) -> HostSide:
    """Returns batches that are read and decoded; images of another size are resized as evaluation does it."""
    _, images, indices = encoded(config, data_dir)
    batches = HostBatches(images, indices, range(_NO_END))
    return HostSide(batches, config.batch_size)


def build_crop(config: ConfigDict, data_dir: Path) -> HostSide:
    """Returns batches that are read, decoded and cropped, where the host does that."""
    dataset, images, indices = encoded(config, data_dir)
    if not crops_on_host(config, dataset):
        raise UnavailableError("nothing is cropped on the host")
    crop = ResizedCrop(**config.augment.random_resized_crop)
    crops = Crops(crop, lambda step: crop_draws(config.seed, step, config.batch_size))
    batches = HostBatches(images, indices, range(_NO_END), crops)
    return HostSide(batches, config.batch_size)


class RunBatches:
    """Batches of the run, one after the other, on the devices. source: where from, `data` on the devices included."""

    def __init__(self, config: ConfigDict, data_dir: Path):
        dataset, examples = opened(config, data_dir)
        self.experiment = assembled(config, None, dataset)
        self.source = training_input(self.experiment, examples)
        self.numbers = itertools.count()

    def __call__(self, count: int) -> Any:
        """Returns the next batch."""
        return self.source.batch(next(self.numbers))


def augment_bytes(experiment: Experiment) -> Prepare:
    """Returns (seed, step, examples) to (images uint8, labels) as a DataLoader gives them: augmented and no more.

    With the draws of the run. Of augmentations of grey levels only.
    """
    config = experiment.config
    order = config.augment.order[1:] if experiment.crop_on_host else config.augment.order
    mean, _ = channel_statistics(config, experiment.dataset)
    to_bytes = lambda levels: jnp.round(levels).astype(jnp.uint8)  # noqa: E731
    augment = make_augment(order, augment_settings(config, mean), to_bytes)
    return lambda seed, step, examples: (augment(step_key(seed, "augment", step), examples["image"]), examples["label"])


class DoneBatches(RunBatches):
    """The same batches after what `choose` says that the devices do to them."""

    def __init__(self, config: ConfigDict, data_dir: Path, choose: Callable[[Experiment], Prepare]):
        super().__init__(config, data_dir)
        work, take = choose(self.experiment), self.experiment.inputs.take

        def done(seed: jax.Array, step: jax.Array, data: Any, batch: Any) -> Any:
            return work(seed, step, take(data, batch))

        self.done = jax.jit(done, out_shardings=over_data(self.experiment.mesh))

    def __call__(self, count: int) -> Any:
        """Returns the next images, and targets or labels."""
        step, seed = next(self.numbers), self.experiment.config.seed
        return self.done(np.uint32(seed), np.int32(step), self.source.data, self.source.batch(step))


def build_input(config: ConfigDict, data_dir: Path) -> DeviceSide:
    """Returns the input alone: reading, decoding, the host's crop, and sending batches, or indices, to the devices."""
    batches = RunBatches(config, data_dir)
    facts = {"platform": jax.devices()[0].platform, "provenance": provenance.describe()}
    path = {"path": batches.experiment.input_name, "crop_on_host": batches.experiment.crop_on_host}
    return DeviceSide(batches, IN_A_RUN * config.batch_size, facts | path)


def build_augmented(config: ConfigDict, data_dir: Path) -> DeviceSide:
    """Returns the input with its augmentation alone, which a DataLoader's workers do too; both at once as in a run."""
    return DeviceSide(DoneBatches(config, data_dir, augment_bytes), IN_A_RUN * config.batch_size, {})


def build_prepared(config: ConfigDict, data_dir: Path) -> DeviceSide:
    """Returns the input with all that the devices then do to it: augmentation, normalising, mixing."""
    batches = DoneBatches(config, data_dir, lambda experiment: experiment.prepare)
    return DeviceSide(batches, IN_A_RUN * config.batch_size, {})


def build_memory(config: ConfigDict, data_dir: Path, count: int) -> DeviceSide:
    """Takes `count` batches of the input; facts["memory"]: see `stream_batches`."""
    batches = RunBatches(config, data_dir)
    facts = {"memory": stream_batches(batches.source, count)}
    batches.numbers = itertools.count(count)
    return DeviceSide(batches, IN_A_RUN * config.batch_size, facts)


class WatchedUpdates(Updates):
    """Updates of the run, with the share of their time that goes by until their batches are there."""

    def __init__(self, experiment: Experiment, source: TrainInput):
        self.clock = RunClock()
        super().__init__(experiment, source.data, source)

    def batches(self, count: int) -> Any:
        """Returns the batches of the next updates as the program takes them."""
        with self.clock.waiting_for_input():
            return super().batches(count)


class UpdateSide:
    """See workers.Side: updates with their input. facts["input_wait"]: share of the time, in [0, 1]."""

    def __init__(self, updates: WatchedUpdates, images: int, at_once: int):
        self.clock = updates.clock
        self.side = OurSide(updates, images, dict(updates.facts), at_once)
        self.images, self.facts = images, self.side.facts
        self.seconds = self.waited = 0.0
        self.side.run(1)  # the pipeline starts, which is no wait of a run in full swing

    def run(self, count: int) -> None:
        """Makes `count` updates and waits for all."""
        self.clock.lap()
        self.side.run(count)
        seconds, waited = self.clock.lap()
        self.seconds, self.waited = self.seconds + seconds, self.waited + waited
        self.facts["input_wait"] = self.waited / self.seconds

    def device_peak_bytes(self) -> int | None:
        """See workers.Side."""
        return device_peak_bytes()


def build_updates(config: ConfigDict, data_dir: Path) -> UpdateSide:
    """Returns the train step with its input from the data, and how long it waits for that."""
    batches = RunBatches(config, data_dir)
    updates = WatchedUpdates(batches.experiment, batches.source)
    return UpdateSide(updates, config.batch_size, batches.experiment.plan.capacity)
