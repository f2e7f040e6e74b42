"""The base config: every field of a run with its default, unit and meaning, and the checks of their values.

    config = get_base()
    config.batch_size = 512          # a recipe assigns existing fields only: the config is locked
    check(config)

A recipe is a file in `configs/` whose `get_config()` starts from `get_base()`. Library code has no defaults of its
own: what is not here cannot be configured.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.errors import UserError


def model_fields() -> ConfigDict:
    """Returns the fields of `config.model`."""
    model = ConfigDict()
    model.variant = "convmixer"  # a row of VARIANTS
    model.dim = 256  # channels of every block (h)
    model.depth = 8  # blocks (d)
    model.patch_size = 2  # pixels (p)
    model.kernel_size = 5  # patches (k), of the depthwise convolutions; may be even
    model.activation = "gelu"  # gelu (exact), relu
    model.initializer = "pytorch"  # pytorch (the paper's), lecun_normal (flax's)
    return model


def augment_fields() -> ConfigDict:
    """Returns the fields of `config.augment`: what the device does to training images on the scale 0-255."""
    augment = ConfigDict()
    augment.order = ("pad_and_crop", "horizontal_flip")  # rows of AUGMENTATIONS, applied in this order
    augment.pad_and_crop = ConfigDict()
    augment.pad_and_crop.pixels = 4  # pixels added to each side
    augment.pad_and_crop.mode = "zero"  # zero (black), reflect
    augment.random_resized_crop = ConfigDict()
    augment.random_resized_crop.scale = (0.75, 1.0)  # share of the area; (0.08, 1.0) breaks CIFAR
    augment.random_resized_crop.ratio = (3 / 4, 4 / 3)  # width to height
    augment.random_resized_crop.interpolation = "bilinear"  # bilinear, bicubic; both with antialias
    augment.horizontal_flip = ConfigDict()
    augment.horizontal_flip.probability = 0.5  # per image
    return augment


def optimizer_fields() -> ConfigDict:
    """Returns the fields of `config.optimizer`."""
    optimizer = ConfigDict()
    optimizer.name = "adamw"  # a row of OPTIMIZERS
    optimizer.b1 = 0.9  # decay of the first moment
    optimizer.b2 = 0.999  # decay of the second moment
    optimizer.eps = 1e-8  # added to the root of the second moment; the ImageNet recipe has 1e-3
    optimizer.weight_decay = 0.005  # times the learning rate, per update
    optimizer.decay_mask = "all"  # all (the CIFAR script), kernels (timm: no biases, no BatchNorm)
    optimizer.clip_norm = 1.0  # largest global norm of the gradient; 0 = no clipping
    return optimizer


def schedule_fields() -> ConfigDict:
    """Returns the fields of `config.schedule`: the learning rate."""
    schedule = ConfigDict()
    schedule.name = "triangle"  # a row of SCHEDULES: triangle (the authors'), slanted_triangle, one_cycle, ...
    schedule.learning_rate = 0.05  # the peak
    schedule.warmup_epochs = 0.0  # epochs of linear rise from 0; read by: cosine
    schedule.final_learning_rate = 0.0  # at the last update; read by: cosine
    return schedule


def get_base() -> ConfigDict:
    """Returns the locked base config. Its values train a ConvMixer-256/8 on CIFAR-10.

    A field that is added later gets, here, the value that leaves a run as it was without the field: workdirs of before
    are then still recognised (see `differences`).
    """
    config = ConfigDict()

    # Data
    config.dataset = "cifar10"  # a row of DATASETS: cifar10, digits
    config.train_examples = 0  # examples: train on a fixed, stratified subset of this size; 0 = all
    config.val_fraction = 0.0  # share of the training split held out for validation, stratified; 0 = none
    config.mean = ()  # per channel, scale 0-1; empty = the data set's own
    config.std = ()  # per channel, scale 0-1; empty = the data set's own

    # Run
    config.seed = 0  # decides initial weights, order of examples and augmentation
    config.batch_size = 512  # examples per update over all devices
    config.eval_batch_size = 0  # examples over all devices, rounded up to a multiple of them; 0 = batch_size
    config.epochs = 25  # passes over the training split; the tail that does not fill a batch is left out
    config.dtype = "float32"  # of the computation: float32, bfloat16; parameters, statistics, loss stay float32
    config.devices = 0  # devices to use, the first ones found; 0 = all

    config.model = model_fields()
    config.augment = augment_fields()
    config.label_smoothing = 0.0  # share of each target spread evenly over all classes, in [0, 1)
    config.optimizer = optimizer_fields()
    config.schedule = schedule_fields()

    # What is written when; all of this may change when a run is resumed
    config.report_every_steps = 50  # updates between rows of metrics.jsonl
    config.eval_every_epochs = 1  # epochs between evaluations; the last step is always evaluated
    config.checkpoint_every_steps = 500  # updates between checkpoints; the last step is always saved
    config.keep_checkpoints = 2  # newest checkpoints kept; the best is kept too where there is a validation split
    config.compilation_cache = True  # keep compiled programs on disk, so that the next start is quicker

    # When things go wrong
    config.max_skipped_steps = 10  # updates in a row with a non-finite loss or gradient that stop the run
    return config.lock()


# May differ between the start of a run and its resumption: none of them changes what is computed, but for the order
# in which `devices` makes float32 sums.
RESUME_MAY_CHANGE = frozenset({
    "devices",
    "eval_batch_size",
    "report_every_steps",
    "eval_every_epochs",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "compilation_cache",
    "max_skipped_steps",
})  # fmt: skip

Rule = tuple[Callable[[Any], bool], str]


def at_least(least: float) -> Rule:
    """A number of at least `least`."""
    return (lambda value: value >= least), f"a number of at least {least}"


def between(least: float, most: float) -> Rule:
    """A number from `least` to `most`; `most` is far beyond use, where arithmetic on shapes would overflow."""
    return (lambda value: least <= value <= most), f"a number from {least} to {most}"


def share(value: float) -> bool:
    """Whether value is in [0, 1)."""
    return 0 <= value < 1


SHARE: Rule = (share, "a number from 0 to below 1")
SWITCH: Rule = (lambda value: isinstance(value, bool), "True or False")
TEXT: Rule = (lambda value: isinstance(value, str), "a name")
COMPUTE_DTYPES = ("float32", "bfloat16")


def is_number(value: Any) -> bool:
    """Whether value is an int or a float; to Python True is one, too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_range(value: Any, least: float, most: float) -> bool:
    """Whether value is a pair (low, high) of numbers with least < low <= high <= most."""
    return (
        len(value) == 2
        and all(is_number(v) for v in value)
        and least < value[0] <= value[1] <= most
    )  # fmt: skip


# One row for each field: what its value must satisfy, and how the error says so. Names that pick a row of a table
# are looked up where the table is, so only their kind is checked here.
RULES: dict[str, Rule] = {
    "dataset": TEXT,
    "train_examples": between(0, 2_147_483_648),
    "val_fraction": SHARE,
    "mean": (lambda v: all(is_number(x) and 0 <= x <= 1 for x in v), "numbers from 0 to 1"),
    "std": (lambda v: all(is_number(x) and 0 < x <= 1 for x in v), "numbers above 0, up to 1"),
    "seed": (lambda value: 0 <= value < 2**32, "an integer from 0 to 4294967295"),
    "batch_size": between(1, 16_777_216),
    "eval_batch_size": between(0, 16_777_216),
    "epochs": between(1, 1_000_000),
    "dtype": (lambda value: value in COMPUTE_DTYPES, " or ".join(COMPUTE_DTYPES)),
    "devices": between(0, 16_777_216),
    "model.variant": TEXT,
    "model.dim": between(1, 65_536),
    "model.depth": between(1, 10_000),
    "model.patch_size": between(1, 4_096),
    "model.kernel_size": between(1, 4_096),
    "model.activation": TEXT,
    "model.initializer": TEXT,
    "augment.order": (lambda value: all(isinstance(name, str) for name in value), "names in a tuple"),
    "augment.pad_and_crop.pixels": at_least(0),
    "augment.pad_and_crop.mode": TEXT,
    "augment.random_resized_crop.scale": (lambda v: is_range(v, 0, 1), "(low, high) with 0 < low <= high <= 1"),
    "augment.random_resized_crop.ratio": (lambda v: is_range(v, 0, 100), "(low, high) with 0 < low <= high <= 100"),
    "augment.random_resized_crop.interpolation": TEXT,
    "augment.horizontal_flip.probability": (lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "label_smoothing": SHARE,
    "optimizer.name": TEXT,
    "optimizer.b1": SHARE,
    "optimizer.b2": SHARE,
    "optimizer.eps": (lambda value: value > 0, "a number above 0"),
    "optimizer.weight_decay": at_least(0),
    "optimizer.decay_mask": TEXT,
    "optimizer.clip_norm": at_least(0),
    "schedule.name": TEXT,
    "schedule.learning_rate": (lambda value: value > 0, "a number above 0"),
    "schedule.warmup_epochs": at_least(0),
    "schedule.final_learning_rate": at_least(0),
    "report_every_steps": at_least(1),
    "eval_every_epochs": at_least(1),
    "checkpoint_every_steps": at_least(1),
    "keep_checkpoints": at_least(1),
    "compilation_cache": SWITCH,
    "max_skipped_steps": at_least(1),
}


def flatten(config: ConfigDict | dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field of a config or of what `to_plain` made of one."""
    for name, value in config.items():
        if isinstance(value, ConfigDict | dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check(config: ConfigDict) -> None:
    """Raises UserError, naming field, value and what is accepted, for the first field whose value is out of range.

    config: with the fields of the base; ConfigDict would let None through for any of them.
    """
    for name, value in flatten(config):
        accepts, description = RULES[name]
        # NaN and infinity pass comparisons that they should not, and no field has a use for them.
        finite = not isinstance(value, float) or abs(value) < float("inf")
        # To Python True is a number, 1.
        right_kind = value is not None and isinstance(value, bool) == (RULES[name] is SWITCH)
        if not (right_kind and finite and accepts(value)):
            raise UserError(f"config.{name} is {value!r}: it must be {description}")


def to_plain(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields as nested dicts of values that survive JSON unchanged (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def digest(config: ConfigDict) -> str:
    """Returns a SHA-256, in hexadecimal, of the fields that decide what a run computes and are not as in the base."""
    base = dict(flatten(to_plain(get_base())))
    deciding = {
        name: value
        for name, value in flatten(to_plain(config))
        if name not in RESUME_MAY_CHANGE and value != base[name]
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def differences(saved: dict[str, Any], config: ConfigDict) -> list[str]:
    """Returns "name: saved value -> new value" for each field that may not change on resume but did.

    saved: what `to_plain` made of the other config. A field that did not exist then had the base's value.
    """
    base, old, new = (dict(flatten(values)) for values in (to_plain(get_base()), saved, to_plain(config)))
    old = base | old
    return [
        f"config.{name}: {old[name]!r} -> {new.get(name, 'no such field any more')!r}"
        for name in sorted(old)
        if name not in RESUME_MAY_CHANGE and old[name] != new.get(name)
    ]
