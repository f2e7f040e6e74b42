"""What each field of the config accepts: one rule a field, and the check of a whole config.

check(config)        # raises UserError for the first value that is out of range, or contradicts the preset
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.config import flatten
from convmixer_jax.errors import UserError
from convmixer_jax.presets import check_preset

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
PROBABILITY: Rule = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
SWITCH: Rule = (lambda value: isinstance(value, bool), "True or False")
TEXT: Rule = (lambda value: isinstance(value, str), "a name")
COMPUTE_DTYPES = ("float32", "bfloat16")
EVAL_PARAMS = ("raw", "ema")
ON_BAD_EXAMPLE = ("raise", "skip")


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
    "image_size": between(0, 65_536),
    "crop_pct": (lambda value: 0 <= value <= 1, "a number above 0, up to 1, or 0 for the data set's own"),
    "input": TEXT,
    "on_bad_example": (lambda value: value in ON_BAD_EXAMPLE, " or ".join(ON_BAD_EXAMPLE)),
    "train_examples": between(0, 2_147_483_648),
    "val_fraction": SHARE,
    "mean": (lambda v: all(is_number(x) and 0 <= x <= 1 for x in v), "numbers from 0 to 1"),
    "std": (lambda v: all(is_number(x) and 0 < x <= 1 for x in v), "numbers above 0, up to 1"),
    "seed": (lambda value: 0 <= value < 2**32, "an integer from 0 to 4294967295"),
    "init_from": (lambda value: isinstance(value, str), "a path, or '' for fresh weights"),
    "batch_size": between(1, 16_777_216),
    "eval_batch_size": between(0, 16_777_216),
    "epochs": between(1, 1_000_000),
    "dtype": (lambda value: value in COMPUTE_DTYPES, " or ".join(COMPUTE_DTYPES)),
    "devices": between(0, 16_777_216),
    "fsdp_devices": between(1, 16_777_216),
    "steps_per_dispatch": between(0, 65_536),
    "accumulate_steps": between(1, 65_536),
    "model.preset": TEXT,
    "model.variant": TEXT,
    "model.dim": between(1, 65_536),
    "model.depth": between(1, 10_000),
    "model.patch_size": between(1, 4_096),
    "model.kernel_size": between(1, 4_096),
    "model.activation": TEXT,
    "model.initializer": TEXT,
    "model.norm": TEXT,
    "model.norm_momentum": (lambda value: 0 < value <= 1, "a number above 0, up to 1"),
    "model.ops": TEXT,
    "model.remat": SWITCH,
    "model.norm_epsilon": (lambda value: value > 0, "a number above 0"),
    # Of a single image the pooled features would be the last norm's bias, whatever it shows.
    "model.bn_group_size": (
        lambda value: value == 0 or 2 <= value <= 16_777_216,
        "0 (all) or a number from 2 to 16777216",
    ),
    "model.block": TEXT,
    "model.bottleneck_factor": between(1, 65_536),
    "model.layer_scale": at_least(0),
    "model.drop_path": SHARE,
    "model.head": TEXT,
    "model.head_dropout": SHARE,
    "augment.order": (lambda value: all(isinstance(name, str) for name in value), "names in a tuple"),
    "augment.pad_and_crop.pixels": at_least(0),
    "augment.pad_and_crop.mode": TEXT,
    "augment.random_resized_crop.scale": (lambda v: is_range(v, 0, 1), "(low, high) with 0 < low <= high <= 1"),
    "augment.random_resized_crop.ratio": (lambda v: is_range(v, 0, 100), "(low, high) with 0 < low <= high <= 100"),
    "augment.random_resized_crop.interpolation": TEXT,
    "augment.horizontal_flip.probability": PROBABILITY,
    "augment.rand_augment.tables": TEXT,
    "augment.rand_augment.policy": TEXT,
    "augment.rand_augment.num_ops": between(1, 100),
    "augment.rand_augment.magnitude": between(0, 30),
    "augment.rand_augment.interpolation": TEXT,
    "augment.rand_augment.fill": (lambda v: all(is_number(x) and 0 <= x <= 255 for x in v), "numbers from 0 to 255"),
    "augment.colour_jitter.brightness": at_least(0),
    "augment.colour_jitter.contrast": at_least(0),
    "augment.colour_jitter.saturation": at_least(0),
    "augment.colour_jitter.hue": between(0, 0.5),
    "augment.colour_jitter.probability": PROBABILITY,
    "augment.affine.rotation": between(0, 180),
    "augment.affine.shift": between(0, 1),
    "augment.affine.zoom": SHARE,
    "augment.affine.interpolation": TEXT,
    "augment.affine.edges": TEXT,
    "augment.channel_shift.levels": between(0, 255),
    "augment.cutout.half_side": at_least(1),
    "augment.cutout.probability": PROBABILITY,
    "augment.random_erasing.probability": PROBABILITY,
    "augment.random_erasing.area": (lambda v: is_range(v, 0, 1), "(low, high) with 0 < low <= high <= 1"),
    "augment.random_erasing.aspect": (lambda v: is_range(v, 0, 100), "(low, high) with 0 < low <= high <= 100"),
    "augment.random_erasing.fill": TEXT,
    "mixing.mixup_alpha": between(0, 1000),
    "mixing.cutmix_alpha": between(0, 1000),
    "mixing.probability": PROBABILITY,
    "mixing.switch_probability": PROBABILITY,
    "mixing.per": TEXT,
    "label_smoothing": SHARE,
    "l2": at_least(0),
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
    "schedule.offset_epochs": at_least(0),
    "ema_decay": SHARE,
    "eval_params": (lambda value: value in EVAL_PARAMS, " or ".join(EVAL_PARAMS)),
    "eval_flip": SWITCH,
    "report_every_steps": at_least(1),
    "eval_every_epochs": at_least(1),
    "checkpoint_every_steps": at_least(1),
    "keep_checkpoints": at_least(1),
    "wandb_project": (lambda value: isinstance(value, str), "the name of a project, or '' for none"),
    "compilation_cache": SWITCH,
    "max_skipped_steps": at_least(1),
    "stop_grace_seconds": (lambda value: value > 0, "a number above 0"),
    "watchdog_seconds": at_least(0),
    "watchdog_compile_seconds": at_least(0),
}


def check(config: ConfigDict) -> None:
    """Raises UserError, naming field, value and what is accepted, for the first field whose value is out of range.

    Or, after those, for the first field of the model that contradicts the preset.
    config: with the fields of the base; ConfigDict would let None through for any of them.
    """
    for name, value in flatten(config):
        check_value(name, value, f"config.{name}")
    check_preset(config.model.preset, config.model)


def check_value(name: str, value: Any, called: str) -> None:
    """Raises UserError for a value, of the field's type, that the rule of the field `name` does not accept.

    called: what the message calls the field.
    """
    accepts, description = RULES[name]
    # NaN and infinity pass comparisons that they should not, and no field has a use for them.
    finite = not isinstance(value, float) or abs(value) < float("inf")
    # To Python True is a number, 1.
    right_kind = value is not None and isinstance(value, bool) == (RULES[name] is SWITCH)
    if not (right_kind and finite and accepts(value)):
        raise UserError(f"{called} is {value!r}: it must be {description}")
