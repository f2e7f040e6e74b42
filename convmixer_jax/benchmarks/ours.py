"""Our side of every comparison: the compiled programs of a run, fed with what the benchmark wants to be measured.

    side = build_step(config, FixedBatch(image_size=0, num_classes=0))
    side.run(10)                       # ten updates, waited for

`assembled` is the one place that knows how a run is put together.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convmixer_jax.benchmarks.work import Shape, multiply_adds
from convmixer_jax.commands import start_jax
from convmixer_jax.data.datasets import Dataset, named_dataset, split_sizes
from convmixer_jax.data.examples import Examples
from convmixer_jax.data.inputs import TrainInput
from convmixer_jax.data.placing import put
from convmixer_jax.ops.choice import REFERENCE
from convmixer_jax.runs import provenance
from convmixer_jax.runs.memory import device_peak_bytes
from convmixer_jax.training.assembly import Experiment, assemble, assemble_steps, eval_batch_size
from convmixer_jax.training.checks import check_against_dataset, check_against_mesh
from convmixer_jax.training.dispatch import next_batches
from convmixer_jax.training.mesh import make_mesh, over_data, replicated

# The side of the square matrices whose product is taken for what the machine can do.
PRODUCT_SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


@dataclasses.dataclass(frozen=True)
class FixedBatch:
    """What a fixed batch looks like where not as the data set's: pixels of a side and classes, 0 for the data set's."""

    image_size: int
    num_classes: int

    def of(self, dataset: Dataset) -> Dataset:
        """Returns the data set with images of that size and so many classes."""
        height, width, channels = dataset.image_shape
        shape = (self.image_size or height, self.image_size or width, channels)
        names = tuple(map(str, range(self.num_classes))) or dataset.class_names
        return dataclasses.replace(dataset, image_shape=shape, class_names=names)


def random_batch(dataset: Dataset, batch_size: int) -> dict[str, np.ndarray]:
    """Returns a batch of noise, always the same, in float32: {image [B, H, W, C], target [B, classes], label, mask}.

    image: as if normalised. target: two classes mixed, so that training on one batch does not drive the gradients into
    denormal numbers. label: int32 [B]. mask: bool [B], True.
    """
    draw = np.random.default_rng(0)
    label = draw.integers(0, dataset.num_classes, batch_size, np.int32)
    classes = np.eye(dataset.num_classes, dtype=np.float32)
    return {
        "image": draw.normal(size=(batch_size, *dataset.image_shape)).astype(np.float32),
        "target": 0.7 * classes[label] + 0.3 * classes[np.roll(label, 1)],
        "label": label,
        "mask": np.ones(batch_size, bool),
    }


def work_shape(config: ConfigDict, dataset: Dataset) -> Shape:
    """Returns the sizes that the arithmetic of the config's model follows from."""
    model = config.model
    sizes = (model.dim, model.depth, model.patch_size, model.kernel_size)
    return Shape(*sizes, dataset.num_classes, dataset.image_shape)


def assembled(config: ConfigDict, fixed: FixedBatch | None, dataset: Dataset | None = None) -> Experiment:
    """Returns the run; with `fixed`, see `on_fixed_batch`. dataset: see `assemble`.

    The compilation cache is off: the time of a compilation is measured.
    """
    start_jax(compilation_cache=False)
    if fixed is None:
        return assemble(config, dataset)
    return on_fixed_batch(config, fixed, make_mesh(config.devices, config.fsdp_devices))


def on_fixed_batch(config: ConfigDict, fixed: FixedBatch, mesh: Mesh) -> Experiment:
    """Returns the run with steps that take for their batch what they get as `data`, ready for the model.

    Model, optimiser, operations and compiler options are those of a run of `config` on the mesh. The batch may be
    larger than the training split.
    """
    # The run on the data set's own images, which may be too small for this model's patches and kernels.
    own = config.copy_and_resolve_references()
    own.model.patch_size, own.model.kernel_size, own.model.ops = 1, 1, REFERENCE
    own.devices = own.fsdp_devices = 1
    sizes = split_sizes(named_dataset(config.dataset, "config.dataset"), config.val_fraction, config.train_examples)
    own.batch_size = min(config.batch_size, sizes["train"] or 1)
    experiment = assemble(own, training=False)
    dataset, stacks = fixed.of(experiment.dataset), experiment.inputs.stack
    check_against_dataset(config, dataset)
    check_against_mesh(config, mesh)
    inputs = dataclasses.replace(
        experiment.inputs,
        take=lambda data, batch: jax.lax.with_sharding_constraint(data, over_data(mesh)),
        stack=(lambda source, step, count, capacity: {}) if stacks else None,
    )
    steps = assemble_steps(
        config,
        dataset,
        mesh,
        inputs,
        experiment.schedule,
        prepare=lambda seed, step, batch: (batch["image"], batch["target"]),
        to_input=lambda images: images,
        steps_per_epoch=experiment.steps_per_epoch,
    )
    return dataclasses.replace(experiment, config=config, dataset=dataset, mesh=mesh, inputs=inputs, **steps)


def placed(experiment: Experiment, batch_size: int, names: Sequence[str]) -> dict[str, jax.Array]:
    """Returns these arrays of `random_batch`, whole on each device; the image is of config.dtype, as in a run."""
    arrays = random_batch(experiment.dataset, batch_size)
    arrays["image"] = arrays["image"].astype(jnp.dtype(experiment.config.dtype))
    return {name: put(arrays[name], replicated(experiment.mesh)) for name in names}


def compile_timed(step: jax.stages.Wrapped, images: int, *given: Any) -> tuple[jax.stages.Compiled, dict[str, Any]]:
    """Returns the program with facts about it: compile_seconds and, where the platform tells, what it needs.

    That is program_bytes and compiler_flops_per_image, by the compiler's own count of all operations on one of its
    devices; it counts a loop once, which is to say one update. images: that one device handles in a pass.
    """
    began = time.perf_counter()
    compiled = step.lower(*given).compile()
    facts: dict[str, Any] = {"compile_seconds": time.perf_counter() - began}
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    if memory is not None:
        parts = {"arguments": memory.argument_size_in_bytes, "temporaries": memory.temp_size_in_bytes}
        facts["program_bytes"] = parts | {"outputs": memory.output_size_in_bytes}
    if costs:
        facts["compiler_flops_per_image"] = costs.get("flops", 0.0) / images
    return compiled, facts


@dataclasses.dataclass
class OurSide:
    """See workers.Side. hand_over: (count) to what the device makes of so many, at_once at most; does not wait."""

    hand_over: Callable[[int], Any]
    images: int
    facts: dict[str, Any]
    at_once: int = 1

    def run(self, count: int) -> None:
        """Runs `count` times and waits for all."""
        before = None
        while count:
            made = self.hand_over(min(count, self.at_once))
            count -= min(count, self.at_once)
            jax.block_until_ready(before)  # two under way, as in the training loop: each has its temporaries
            before = made
        jax.block_until_ready(before)

    def device_peak_bytes(self) -> int | None:
        """See workers.Side."""
        return device_peak_bytes()


def _facts(experiment: Experiment, pass_name: str) -> dict[str, Any]:
    config = experiment.config
    macs = multiply_adds(work_shape(config, experiment.dataset))[pass_name]
    return {
        "dtype": config.dtype,
        "devices": experiment.mesh.size,
        "platform": jax.devices()[0].platform,
        "flops_per_image": 2 * macs,
        "provenance": provenance.describe(),
    }


class Updates:
    """The compiled dispatch of a run with its state, which moves on with every call."""

    def __init__(self, experiment: Experiment, data: Any, source: TrainInput | None):
        """Compiles. data: what the steps take theirs from, on the devices; source: where their batches come from."""
        self.experiment, self.data, self.source, self.number = experiment, data, source, 0
        self.seed = np.uint32(experiment.config.seed)
        example = (experiment.abstract_state, self.seed, data, self.batches(1), np.int32(1))
        part = experiment.config.batch_size // experiment.mesh.size
        self.program, self.facts = compile_timed(experiment.dispatch, part, *example)
        self.state = experiment.init_state(self.seed)

    def batches(self, count: int) -> Any:
        """Returns the batches of the next updates as the program takes them."""
        if self.source is None:
            return {}
        return next_batches(self.experiment.inputs, self.source, self.number, count, self.experiment.plan)

    def __call__(self, count: int) -> Any:
        """Hands the next updates over, at most so many as the plan allows; returns what they are watched by."""
        self.state, watch = self.program(self.state, self.seed, self.data, self.batches(count), np.int32(count))
        self.number += count
        return watch


def _training_side(experiment: Experiment, data: Any, source: TrainInput | None) -> OurSide:
    updates = Updates(experiment, data, source)
    facts = _facts(experiment, "training") | updates.facts
    return OurSide(updates, experiment.config.batch_size, facts, at_once=experiment.plan.capacity)


def build_step(config: ConfigDict, fixed: FixedBatch) -> OurSide:
    """Returns the update on one batch of config.batch_size."""
    experiment = assembled(config, fixed)
    return _training_side(experiment, placed(experiment, config.batch_size, ("image", "target")), None)


def build_train(config: ConfigDict) -> OurSide:
    """Returns the whole train step, with gathering and augmentation, on resident noise in the data set's sizes.

    Noise, for the time does not depend on what the pixels show, and nothing needs to be downloaded.
    """
    experiment = assembled(config, None)
    draw, size = np.random.default_rng(0), experiment.sizes["train"]
    images = draw.integers(0, 256, (size, *experiment.dataset.image_shape), np.uint8)
    examples = Examples(images, draw.integers(0, experiment.dataset.num_classes, size, np.int32))
    whole, split = replicated(experiment.mesh), over_data(experiment.mesh)
    source = experiment.inputs.train(examples, whole, split, config.seed, config.batch_size)
    return _training_side(experiment, source.data, source)


def eval_size(config: ConfigDict) -> int:
    """Returns the examples of an evaluation batch, whatever the splits hold."""
    size: int = config.eval_batch_size or config.batch_size
    return size


def build_eval(config: ConfigDict, fixed: FixedBatch) -> OurSide:
    """Returns the evaluation of one batch, by running statistics, of config.eval_batch_size or batch_size.

    That is rounded up to a multiple of the devices.
    """
    experiment = assembled(config, fixed)
    # As in a run whose split has that many examples.
    size = eval_batch_size(config, {"test": eval_size(config)}, experiment.mesh)
    variables = experiment.init_state(np.uint32(config.seed)).variables("raw")
    batch = placed(experiment, size, ("image", "label", "mask"))
    given: tuple[Any, ...] = (variables["params"], variables["batch_stats"], batch, {})
    step, facts = compile_timed(experiment.eval_step, size // experiment.mesh.size, *given)
    return OurSide(lambda count: step(*given), size, _facts(experiment, "inference") | facts)


def build_product(dtype: str) -> OurSide:
    """Returns one product of two large square matrices; facts has its flops. `images` is 1 product."""
    start_jax(compilation_cache=False)
    side = PRODUCT_SIDE[jax.default_backend()]
    left, right = jax.random.normal(jax.random.key(0), (2, side, side), jnp.dtype(dtype))
    product, facts = compile_timed(jax.jit(jnp.matmul), 1, left, right)
    return OurSide(lambda count: product(left, right), 1, facts | {"flops": 2 * side**3, "side": side})
