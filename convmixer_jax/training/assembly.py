"""From a config to everything that a run needs, checked and shape-evaluated before any data is read.

    experiment = assemble(config)

This is the one place where fields of the config become plain values for the rooms below.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convmixer_jax.augment.mixing import make_mix
from convmixer_jax.augment.pipeline import check_order, make_augment, normalise
from convmixer_jax.config_rules import check
from convmixer_jax.data.datasets import Dataset, named_dataset, split_sizes
from convmixer_jax.data.inputs import INPUTS, InputPath, choose_input
from convmixer_jax.errors import UserError
from convmixer_jax.models import variants
from convmixer_jax.ops.choice import compiler_options, loops_well
from convmixer_jax.runs.memory import memory_limit
from convmixer_jax.training.checks import check_against_dataset, check_against_mesh, check_average, check_model
from convmixer_jax.training.dispatch import DispatchPlan, abstract_batches, jit_dispatch, plan_dispatches
from convmixer_jax.training.mesh import least_of_processes, make_gather, make_mesh, over_data, replicated
from convmixer_jax.training.optimizers import make_decay, make_optimizer
from convmixer_jax.training.prepare import Prepare, make_prepare
from convmixer_jax.training.schedules import Schedule, ScheduleSettings, make_schedule
from convmixer_jax.training.state import TrainState, create_state, state_layout
from convmixer_jax.training.step import Normalise, jit_eval_step, make_eval_step, make_train_step
from convmixer_jax.training.update import UpdateSettings, make_update

RESIZED_CROP = "random_resized_crop"  # the row of AUGMENTATIONS that the host may do instead


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run before its data: plain values, the model and its compiled-once steps.

    sizes: examples per split. input_name: the row of INPUTS that `inputs` is; input_told: why it is not the one asked
    for, or None. crop_on_host: whether random_resized_crop chooses from whole images of any size, before they reach the
    device. abstract_state: shapes and shardings of the TrainState. eval_batch_size: a multiple of
    the number of devices. dispatch: updates, as many in a call as `plan` says.
    """

    config: ConfigDict
    dataset: Dataset
    sizes: dict[str, int]
    steps_per_epoch: int
    total_steps: int
    eval_batch_size: int
    mesh: Mesh
    schedule: Schedule
    input_name: str
    input_told: str | None
    inputs: InputPath
    crop_on_host: bool
    prepare: Prepare
    plan: DispatchPlan
    init_state: jax.stages.Wrapped
    dispatch: jax.stages.Wrapped
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
        offset_epochs=config.schedule.offset_epochs,
    )
    return make_schedule(config.schedule.name, settings)


def crops_on_host(config: ConfigDict, dataset: Dataset) -> bool:
    """Whether random_resized_crop is the host's: it comes first, and there is more to choose from than evaluation sees.

    A device has images of one size only, so there it could choose from their centre alone.
    """
    return dataset.varied and config.augment.order[:1] == (RESIZED_CROP,)


def assemble_images(config: ConfigDict, dataset: Dataset) -> tuple[Prepare, Normalise]:
    """Returns what the device does to training examples, and what it does to all images."""
    order = config.augment.order[1:] if crops_on_host(config, dataset) else config.augment.order
    mean, std = channel_statistics(config, dataset)
    to_input = functools.partial(normalise, mean=mean, std=std, dtype=config.dtype)
    check_order(config.augment.order)
    augment = make_augment(order, augment_settings(config, mean), to_input)
    mix = make_mix(**config.mixing)
    prepare = make_prepare(augment, mix, num_classes=dataset.num_classes, label_smoothing=config.label_smoothing)
    return prepare, to_input


def augment_settings(config: ConfigDict, mean: tuple[float, ...]) -> dict[str, dict[str, Any]]:
    """Returns the settings of every augmentation by name.

    Where timm's scripts use RandAugment, they fill what a warp leaves empty with the mean colour, on the scale 0-1.
    """
    settings = config.augment.to_dict()
    own = settings["rand_augment"]
    if own["tables"] == "timm" and not own["fill"]:
        own["fill"] = tuple(min(255, round(255 * value)) for value in mean)
    return settings


def channel_statistics(config: ConfigDict, dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, std) per channel on the scale 0-1: the config's, else the data set's."""
    return dataset.channel_statistics(config.mean, config.std)


def platform_of(mesh: Mesh) -> str:
    """Returns cpu, gpu or tpu."""
    platform: str = mesh.devices.flat[0].platform
    return platform


def choose_ops(config: ConfigDict, dataset: Dataset, mesh: Mesh) -> tuple[str, str | None]:
    """Returns the operations that run, a row of OPS, and why not those asked for, or None."""
    return variants.choose_ops(config.model, config.dtype, dataset.image_shape, platform_of(mesh))


def assemble_steps(
    config: ConfigDict,
    dataset: Dataset,
    mesh: Mesh,
    inputs: InputPath,
    schedule: Schedule,
    prepare: Prepare,
    to_input: Normalise,
    steps_per_epoch: int,
) -> dict[str, Any]:
    """Returns the fields of Experiment that hold the model: its states, its steps and how they are dispatched."""
    ops, _ = choose_ops(config, dataset, mesh)
    settings_of_model = config.model.to_dict() | {"ops": ops, "mesh": mesh}
    model = variants.make_model(num_classes=dataset.num_classes, dtype=config.dtype, **settings_of_model)
    tx = make_optimizer(**config.optimizer)
    create = functools.partial(
        create_state, model=model, tx=tx, image_shape=dataset.image_shape, with_ema=config.ema_decay > 0
    )
    abstract, layout = abstract_state(create, mesh)
    gather = make_gather(mesh, layout.params)
    in_loops = loops_well(ops, platform_of(mesh))
    settings = UpdateSettings(
        config.accumulate_steps,
        config.ema_decay,
        config.l2,
        unroll=not in_loops,
        decay=make_decay(**config.optimizer),
    )
    update = make_update(model, tx, schedule, settings, gather)
    train_step = make_train_step(update, schedule, take=inputs.take, prepare=prepare)
    eval_step = make_eval_step(model, take=inputs.take, normalise=to_input, flip=config.eval_flip, gather=gather)
    plan = plan_dispatches(
        config.steps_per_dispatch, steps_per_epoch, stacks=inputs.stack is not None, loops_well=in_loops
    )
    options = compiler_options(ops, platform_of(mesh))
    return {
        "plan": plan,
        "init_state": jax.jit(create, out_shardings=layout),
        "dispatch": jit_dispatch(train_step, plan, mesh, layout, config.max_skipped_steps, options),
        "eval_step": jit_eval_step(eval_step, mesh, layout.params, options),
        "abstract_state": abstract,
    }


def choose_input_path(
    config: ConfigDict, dataset: Dataset, sizes: dict[str, int], limit: int | None, training: bool
) -> tuple[str, str | None]:
    """Returns the row of INPUTS that runs, the same in all processes, and why it is not the one asked for, or None.

    limit: bytes that each device has, None for unknown.
    """
    examples = sum(sizes.values()) if training else sizes["test"]
    crops = training and crops_on_host(config, dataset)
    return choose_input(config.input, examples * math.prod(dataset.image_shape), limit, crops)


def assemble(
    config: ConfigDict,
    dataset: Dataset | None = None,
    training: bool = True,
    absent: tuple[Mesh, int] | None = None,
) -> Experiment:
    """Returns the assembled run. Raises UserError for any value that the config's fields cannot have together.

    dataset: what config.dataset names; None where that is a row of DATASETS.
    training: False for an evaluation, which works on any number of devices, whatever the batch size.
    absent: devices that are only compiled for, and the bytes that each has; None for those that there are.
    """
    check(config)
    dataset = dataset or named_dataset(config.dataset, "config.dataset")
    check_model(config)
    check_against_dataset(config, dataset)
    check_average(config)
    sizes = split_sizes(dataset, config.val_fraction, config.train_examples)
    steps_per_epoch, total_steps = epochs_to_steps(config, sizes["train"])
    schedule = assemble_schedule(config, steps_per_epoch)
    prepare, to_input = assemble_images(config, dataset)
    limit: int | None
    if absent:
        mesh, limit = absent
    else:
        mesh = make_mesh(config.devices, config.fsdp_devices if training else 1)
        limit = least_of_processes(memory_limit(list(mesh.devices.flat)))
    input_name, input_told = choose_input_path(config, dataset, sizes, limit, training)
    inputs = INPUTS[input_name]
    experiment = Experiment(
        config=config,
        dataset=dataset,
        sizes=sizes,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        eval_batch_size=eval_batch_size(config, sizes, mesh),
        mesh=mesh,
        schedule=schedule,
        input_name=input_name,
        input_told=input_told,
        inputs=inputs,
        crop_on_host=crops_on_host(config, dataset),
        prepare=prepare,
        **assemble_steps(config, dataset, mesh, inputs, schedule, prepare, to_input, steps_per_epoch),
    )
    if training:
        check_against_mesh(config, mesh)
        check_shapes(experiment)
    return experiment


def abstract_state(create: Callable[..., TrainState], mesh: Mesh) -> tuple[TrainState, TrainState]:
    """Returns the TrainState as jax.ShapeDtypeStruct leaves, and as the layouts that they name; computes nothing."""
    shapes = jax.eval_shape(create, np.uint32(0))
    layout = state_layout(mesh, shapes)

    def laid_out(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(laid_out, shapes, layout), layout


def abstract_inputs(experiment: Experiment) -> tuple[Any, Any, Any]:
    """Returns (seed, data, batch) of a train step as jax.ShapeDtypeStruct leaves with their shardings."""
    whole, split = replicated(experiment.mesh), over_data(experiment.mesh)
    shape, batch_size = experiment.dataset.image_shape, experiment.config.batch_size
    data, batch = experiment.inputs.abstract(experiment.sizes["train"], shape, batch_size, whole, split)
    return jax.ShapeDtypeStruct((), np.uint32, sharding=whole), data, batch


def abstract_arguments(experiment: Experiment) -> tuple[Any, ...]:
    """Returns all arguments of a dispatch as jax.ShapeDtypeStruct leaves with their shardings."""
    seed, data, batch = abstract_inputs(experiment)
    count = jax.ShapeDtypeStruct((), np.int32, sharding=replicated(experiment.mesh))
    return experiment.abstract_state, seed, data, abstract_batches(batch, experiment.plan), count


def check_shapes(experiment: Experiment) -> None:
    """Traces a whole dispatch without computing it: what does not fit together fails here, before data is read."""
    before = experiment.abstract_state
    after, _ = jax.eval_shape(experiment.dispatch, *abstract_arguments(experiment))
    kinds = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) for state in (before, after)]
    if kinds[0] != kinds[1]:
        raise RuntimeError("a dispatch changes the shape or dtype of its state")
