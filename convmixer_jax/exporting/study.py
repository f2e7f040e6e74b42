"""What smaller models cost in accuracy and win in time: int8 beside float32, and kernels with zeros.

study = Study(description, Path("data"))
print(study.top1(run), study.calibration(512))
print(study.milliseconds({"onnx": run}, batch_size=1, repetitions=31))
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.data.datasets import open_split
from convmixer_jax.data.examples import Stored
from convmixer_jax.data.host_batches import in_memory
from convmixer_jax.exporting.formats import Run
from convmixer_jax.inference.description import Description
from convmixer_jax.inference.examination import dataset_of, examine
from convmixer_jax.inference.preprocess import make_preprocess
from convmixer_jax.measuring.timing import measure_together

EVALUATED_AT_ONCE = 250  # images
CALIBRATED_AT_ONCE = 32


class Study:
    """The examples that weights are for."""

    def __init__(self, description: Description, data_dir: Path):
        """Raises UserError where there is no data set for the model."""
        self._classes = description.num_classes
        self._dataset = dataset_of(description, data_dir)
        self._data_dir = data_dir
        self._normalise = make_preprocess(description).normalise

    @functools.cached_property
    def test(self) -> Stored:
        """The test split."""
        return open_split(self._dataset, "test", self._data_dir)

    def top1(self, run: Run) -> float:
        """Returns the fraction of the test split that is taken for what it is."""

        def classify(levels: np.ndarray) -> np.ndarray:
            return run(self._normalise(levels))

        return examine(classify, self.test, EVALUATED_AT_ONCE, keep=0, num_classes=self._classes).top1

    def calibration(self, count: int) -> list[np.ndarray]:
        """Returns `count` images of the training split, normalised, in batches; the same ones every time."""
        train = open_split(self._dataset, "train", self._data_dir)
        chosen = np.random.default_rng(0).permutation(len(train))[:count]
        images = self._normalise(in_memory(train.take(chosen)).image)
        return [images[first : first + CALIBRATED_AT_ONCE] for first in range(0, len(images), CALIBRATED_AT_ONCE)]

    def milliseconds(self, runs: Mapping[str, Run], batch_size: int, repetitions: int) -> dict[str, dict[str, float]]:
        """Returns the median and the quartiles of a call of each on `batch_size` images, timed in turn."""
        levels = in_memory(self.test.take(np.arange(batch_size) % len(self.test))).image
        images = self._normalise(levels)
        calls: dict[str, Callable[[], Any]] = {name: functools.partial(run, images) for name, run in runs.items()}
        timings = measure_together(calls, repetitions)
        return {
            name: {"median": 1e3 * timing.median, "low": 1e3 * timing.low, "high": 1e3 * timing.high}
            for name, timing in timings.items()
        }
