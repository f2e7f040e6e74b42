"""From a config to everything that a run needs, checked and shape-evaluated before any data is read.

    experiment = assemble(config)

This is the one place where fields of the config become plain values for the rooms below.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convmixer_jax.augment.pipeline import make_augment, normalise
from convmixer_jax.config import check
from convmixer_jax.data import resident
from convmixer_jax.data.datasets import DATASETS, Dataset, split_sizes
from convmixer_jax.errors import UserError, lookup
from convmixer_jax.models.variants import make_model
from convmixer_jax.training.mesh import make_mesh, over_data, replicated
from convmixer_jax.training.optimizers import make_optimizer
from convmixer_jax.training.schedules import Schedule, ScheduleSettings, make_schedule
from convmixer_jax.training.state import TrainState, create_state
from convmixer_jax.training.step import (
    Augment,
    Normalise,
    jit_eval_step,
    jit_train_step,
    make_eval_step,
    make_train_step,
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run before its data: plain values, the model and its compiled-once steps.

    sizes: examples per split. abstract_state: shapes and shardings of the TrainState. eval_batch_size: a multiple of
    the number of devices.
    """

    config: ConfigDict
    dataset: Dataset
    sizes: dict[str, int]
    steps_per_epoch: int
    total_steps: int
    eval_batch_size: int
    mesh: Mesh
    schedule: Schedule
    augment: Augment
    init_state: jax.stages.Wrapped
    train_step: jax.stages.Wrapped
    eval_step: jax.stages.Wrapped
    abstract_state: TrainState

    @property
    def eval_split(self) -> str:
        """The split that is evaluated while training: "val" where there is one, else "test"."""
        return "val" if "val" in self.sizes else "test"

    @property
    def num_params(self) -> int:
        """Trainable parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_state.params))


def epochs_to_steps(config: ConfigDict, train_size: int) -> tuple[int, int]:
    """Returns (steps_per_epoch, total_steps); the tail of an epoch that does not fill a batch is left out."""
    if config.batch_size > train_size:
        raise UserError(
            f"config.batch_size is {config.batch_size}: the training split has {train_size} examples; "
            "take a batch of at most that many"
        )
    steps_per_epoch = train_size // config.batch_size
    return steps_per_epoch, steps_per_epoch * config.epochs


def check_against_dataset(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError for fields that are sound alone but do not fit the data set."""
    height, width, channels = dataset.image_shape
    for name in ("mean", "std"):
        if len(config[name]) not in (0, channels):
            raise UserError(
                f"config.{name} is {config[name]!r}: {config.dataset} has {channels} channels; give as many"
            )
    if config.model.patch_size > min(height, width):
        raise UserError(
            f"config.model.patch_size is {config.model.patch_size}: images of {config.dataset} are {height}x{width} "
            "pixels; a patch must fit into them"
        )
    pad = config.augment.pad_and_crop
    if "pad_and_crop" in config.augment.order and pad.pixels > max(height, width):
        raise UserError(
            f"config.augment.pad_and_crop.pixels is {pad.pixels}: it must be at most the image's side, "
            f"{max(height, width)}"
        )
    if "pad_and_crop" in config.augment.order and pad.mode == "reflect" and pad.pixels >= min(height, width):
        raise UserError(
            f"config.augment.pad_and_crop.pixels is {pad.pixels}: with mode 'reflect' it must be below the image's "
            f"side ({min(height, width)})"
        )
    sizes = split_sizes(dataset, config.val_fraction, 0)
    if config.val_fraction and not ("val" in sizes and sizes["train"]):
        raise UserError(
            f"config.val_fraction is {config.val_fraction}: of {dataset.num_examples['train']} training examples that "
            "leaves none to validate or none to train on; 0.1 is usual, 0 holds nothing out"
        )
    available = sizes["train"]
    if config.train_examples > available:
        raise UserError(
            f"config.train_examples is {config.train_examples}: the training split has {available}; 0 takes all"
        )


def check_against_mesh(config: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError where the batch cannot be split evenly over the devices."""
    if config.batch_size % mesh.size:
        raise UserError(
            f"config.batch_size is {config.batch_size}: it must be a multiple of the {mesh.size} devices; "
            "change it, or use fewer with config.devices"
        )


def eval_batch_size(config: ConfigDict, sizes: dict[str, int], mesh: Mesh) -> int:
    """Returns the batch size of evaluations: no larger than the splits need, a multiple of the devices."""
    largest = max(sizes["test"], sizes.get("val", 0))
    wanted = min(config.eval_batch_size or config.batch_size, largest)
    return -(-wanted // mesh.size) * mesh.size


def assemble_schedule(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    """Returns the learning rate as a function of the number of the update."""
    settings = ScheduleSettings(
        learning_rate=config.schedule.learning_rate,
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=config.schedule.warmup_epochs,
        final_learning_rate=config.schedule.final_learning_rate,
    )
    return make_schedule(config.schedule.name, settings)


def assemble_images(config: ConfigDict, dataset: Dataset) -> tuple[Augment, Normalise]:
    """Returns what the device does to training images, and what it does to all images."""
    augment = make_augment(config.augment.order, config.augment.to_dict())
    mean, std = config.mean or dataset.mean, config.std or dataset.std
    return augment, functools.partial(normalise, mean=mean, std=std, dtype=config.dtype)


def assemble(config: ConfigDict, training: bool = True) -> Experiment:
    """Returns the assembled run. Raises UserError for any value that the config's fields cannot have together.

    training: False for an evaluation, which works on any number of devices, whatever the batch size.
    """
    check(config)
    dataset = lookup(DATASETS, config.dataset, "config.dataset")
    check_against_dataset(config, dataset)
    sizes = split_sizes(dataset, config.val_fraction, config.train_examples)
    steps_per_epoch, total_steps = epochs_to_steps(config, sizes["train"])
    schedule = assemble_schedule(config, steps_per_epoch)
    model = make_model(num_classes=dataset.num_classes, dtype=config.dtype, **config.model)
    tx = make_optimizer(**config.optimizer)
    augment, to_input = assemble_images(config, dataset)
    mesh = make_mesh(config.devices)
    train_step = make_train_step(
        model,
        tx,
        schedule,
        take=resident.take,
        augment=augment,
        normalise=to_input,
        label_smoothing=config.label_smoothing,
    )
    create = functools.partial(create_state, model=model, tx=tx, image_shape=dataset.image_shape)
    init_state = jax.jit(create, out_shardings=replicated(mesh))
    experiment = Experiment(
        config=config,
        dataset=dataset,
        sizes=sizes,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        eval_batch_size=eval_batch_size(config, sizes, mesh),
        mesh=mesh,
        schedule=schedule,
        augment=augment,
        init_state=init_state,
        train_step=jit_train_step(train_step, mesh),
        eval_step=jit_eval_step(make_eval_step(model, take=resident.take, normalise=to_input), mesh),
        abstract_state=abstract_state(init_state, mesh),
    )
    if training:
        check_against_mesh(config, mesh)
        check_shapes(experiment)
    return experiment


def abstract_state(init_state: jax.stages.Wrapped, mesh: Mesh) -> TrainState:
    """Returns the TrainState as jax.ShapeDtypeStruct leaves, replicated over the mesh; nothing is computed."""
    shapes = jax.eval_shape(init_state, np.uint32(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), shapes)


def abstract_inputs(experiment: Experiment) -> tuple[Any, Any, Any]:
    """Returns (seed, data, batch) of a train step as jax.ShapeDtypeStruct leaves with their shardings."""
    whole, split = replicated(experiment.mesh), over_data(experiment.mesh)
    n = experiment.sizes["train"]
    data = {
        "image": jax.ShapeDtypeStruct((n, *experiment.dataset.image_shape), np.uint8, sharding=whole),
        "label": jax.ShapeDtypeStruct((n,), np.int32, sharding=whole),
    }
    batch = {"index": jax.ShapeDtypeStruct((experiment.config.batch_size,), np.int32, sharding=split)}
    return jax.ShapeDtypeStruct((), np.uint32, sharding=whole), data, batch


def check_shapes(experiment: Experiment) -> None:
    """Traces a whole train step without computing it: what does not fit together fails here, before data is read."""
    before = experiment.abstract_state
    after, _ = jax.eval_shape(experiment.train_step, before, *abstract_inputs(experiment))
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (before, after)]
    if kinds[0] != kinds[1]:
        raise RuntimeError("a train step changes the shape or dtype of its state")
