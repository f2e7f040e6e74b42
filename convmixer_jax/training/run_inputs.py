"""What a run reads: the batches to train on, the splits to evaluate, and the first images as an update sees them.

inputs = load_inputs(experiment, data_dir)
picture = image_grid(first_images(experiment, inputs.source))
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convmixer_jax.data.datasets import open_split
from convmixer_jax.data.host_batches import Reading
from convmixer_jax.data.host_crops import ResizedCrop
from convmixer_jax.data.inputs import EvalInput, TrainInput
from convmixer_jax.training.assembly import Experiment, channel_statistics
from convmixer_jax.training.mesh import over_data, replicated

GRID_IMAGES = 64


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a training run reads: the training batches, a digest of what they are made of, the splits to evaluate."""

    digest: str
    source: TrainInput
    evaluations: dict[str, EvalInput]


def load_evaluation(experiment: Experiment, data_dir: Path, split: str) -> EvalInput:
    """Returns a split in batches for evaluation."""
    config, mesh = experiment.config, experiment.mesh
    examples = open_split(experiment.dataset, split, data_dir, config.val_fraction, config.train_examples)
    # "val" are training images held out, with the same bad ones among them. A test split gives a score to compare with
    # that of others, so it is whole or an error.
    reading = Reading(skip_bad=split == "val" and config.on_bad_example == "skip")
    layout = replicated(mesh), over_data(mesh)
    return experiment.inputs.evaluation(examples, *layout, experiment.eval_batch_size, reading)


def training_reading(experiment: Experiment) -> Reading:
    """Returns how training images are read: what the host does to them, and what becomes of bad ones."""
    config = experiment.config
    crop = ResizedCrop(**config.augment.random_resized_crop) if experiment.crop_on_host else None
    return Reading(crop, skip_bad=config.on_bad_example == "skip")


def load_inputs(experiment: Experiment, data_dir: Path) -> Inputs:
    """Opens the splits; the resident path reads them whole and puts them on the devices."""
    config, mesh = experiment.config, experiment.mesh
    train = open_split(experiment.dataset, "train", data_dir, config.val_fraction, config.train_examples)
    layout = replicated(mesh), over_data(mesh)
    source = experiment.inputs.train(train, *layout, config.seed, config.batch_size, training_reading(experiment))
    splits = dict.fromkeys([experiment.eval_split, "test"])
    evaluations = {split: load_evaluation(experiment, data_dir, split) for split in splits}
    return Inputs(train.digest(), source, evaluations)


def first_images(experiment: Experiment, source: TrainInput) -> np.ndarray:
    """Returns the first images of the first batch as the first update sees them, uint8 [n, H, W, C].

    Augmented, mixed, and turned back from normalised values to grey levels. All processes take part.
    """
    mesh, (mean, std) = experiment.mesh, channel_statistics(experiment.config, experiment.dataset)

    def see(seed: jax.Array, data: Any, batch: Any) -> jax.Array:
        images, _ = experiment.prepare(seed, 0, experiment.inputs.take(data, batch))
        levels = 255 * (images[:GRID_IMAGES].astype(jnp.float32) * jnp.asarray(std) + jnp.asarray(mean))
        return jnp.clip(jnp.round(levels), 0, 255).astype(jnp.uint8)

    shown = jax.jit(see, out_shardings=replicated(mesh))
    return np.asarray(shown(np.uint32(experiment.config.seed), source.data, source.batch(0)).addressable_data(0))
