"""Whether fields that are sound alone fit each other, the data set and the devices. Each raises UserError."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from convmixer_jax.config import get_base
from convmixer_jax.data.datasets import Dataset, split_sizes
from convmixer_jax.errors import UserError
from convmixer_jax.models.variants import VARIANTS, check_dim, find_variant

# Fields of config.model that every variant takes: they say which model it is, or how it is computed.
OF_EVERY_VARIANT = ("variant", "preset", "ops")


def check_model(config: ConfigDict) -> None:
    """Raises UserError for fields of config.model that the variant does not read, or that do not fit each other."""
    model, base = config.model, get_base().model
    variant = find_variant(model.variant)
    for name, value in model.items():
        if name in OF_EVERY_VARIANT or variant.reads(name) or value == base[name]:
            continue
        others = ", ".join(other for other, row in VARIANTS.items() if row.reads(name))
        raise UserError(
            f"config.model.{name} is {value!r}: config.model.variant={model.variant} does not read it; leave it at "
            f"{base[name]!r}, or take a variant that does ({others})"
        )
    if model.head == "bn_dropout" and model.head_dropout:
        raise UserError(
            f"config.model.head_dropout is {model.head_dropout}: the head 'bn_dropout' has a dropout of its own; leave "
            "it at 0, or take the head 'linear'"
        )
    if model.bn_group_size and model.norm != "batch":
        raise UserError(
            f"config.model.bn_group_size is {model.bn_group_size}: the norm {model.norm!r} (config.model.norm) has no "
            "statistics of a batch; set it to 0, or take the norm 'batch'"
        )
    check_dim(model)


def check_against_dataset(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError for fields that are sound alone but do not fit the data set."""
    height, width, channels = dataset.image_shape
    for name in ("mean", "std"):
        if len(config[name]) not in (0, channels):
            raise UserError(
                f"config.{name} is {config[name]!r}: {config.dataset} has {channels} channels; give as many"
            )
    if find_variant(config.model.variant).reads("patch_size"):
        check_patches(config, height, width)
    check_padding(config, height, width)
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


def check_patches(config: ConfigDict, height: int, width: int) -> None:
    """Raises UserError where a patch, or weights of a kernel over patches, find nothing in images [height, width]."""
    patch = config.model.patch_size
    if patch > min(height, width):
        raise UserError(
            f"config.model.patch_size is {patch}: images of {config.dataset} are {height}x{width} pixels; a patch must "
            "fit into them"
        )
    check_kernel(config, height // patch, width // patch)


def check_kernel(config: ConfigDict, height: int, width: int) -> None:
    """Raises UserError where weights of the depthwise kernel would never meet the map [height, width] of patches."""
    # A kernel on the map's one corner reaches the opposite one with this size; larger ones see nothing but padding.
    largest = 2 * max(height, width) - 1
    if config.model.kernel_size > largest:
        raise UserError(
            f"config.model.kernel_size is {config.model.kernel_size}: patches of {config.model.patch_size} pixels make "
            f"a map of {height}x{width} from {config.dataset}, so that weights beyond a kernel of {largest} would only "
            "ever meet padding; take a smaller one, or a smaller config.model.patch_size"
        )


def check_padding(config: ConfigDict, height: int, width: int) -> None:
    """Raises UserError where pad_and_crop pads more than an image has."""
    pad = config.augment.pad_and_crop
    if "pad_and_crop" not in config.augment.order:
        return
    if pad.mode == "reflect" and pad.pixels >= min(height, width):
        raise UserError(
            f"config.augment.pad_and_crop.pixels is {pad.pixels}: with mode 'reflect' it must be below the image's "
            f"side ({min(height, width)})"
        )
    if pad.pixels > max(height, width):
        raise UserError(
            f"config.augment.pad_and_crop.pixels is {pad.pixels}: it must be at most the image's side, "
            f"{max(height, width)}"
        )


def check_average(config: ConfigDict) -> None:
    """Raises UserError where the moving average is to be evaluated but not kept."""
    if config.eval_params == "ema" and not config.ema_decay:
        raise UserError(
            "config.eval_params is 'ema': a run with config.ema_decay 0 keeps no moving average; take 'raw', or train "
            "with config.ema_decay (0.999, say)"
        )


def check_against_mesh(config: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError where the batch cannot be split evenly over the devices, micro-batches and pairs."""
    batch, parts = config.batch_size, config.accumulate_steps
    if batch % mesh.size:
        raise UserError(
            f"config.batch_size is {batch}: it must be a multiple of the {mesh.size} devices; "
            "change it, or use fewer with config.devices"
        )
    if batch % (mesh.size * parts):
        raise UserError(
            f"config.accumulate_steps is {parts}: each of the {mesh.size} devices has {batch // mesh.size} examples "
            f"of a batch of {batch} (config.batch_size); take a divisor of that"
        )
    check_groups(config, mesh)
    mixes = config.mixing.mixup_alpha or config.mixing.cutmix_alpha
    if mixes and (batch // mesh.size) % 2:
        raise UserError(
            f"config.batch_size is {batch}: mixing pairs the examples of a device, so each of the {mesh.size} needs an "
            "even number; change it, or set config.mixing.mixup_alpha and cutmix_alpha to 0"
        )


def check_groups(config: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError where BatchNorm's groups are not whole, in a micro-batch and on a device or several of them."""
    group, parts = config.model.bn_group_size, config.accumulate_steps
    micro_batch = config.batch_size // parts
    share = micro_batch // mesh.size
    if group and micro_batch % group:
        of = (
            f"config.batch_size / config.accumulate_steps, {config.batch_size} / {parts}"
            if parts > 1
            else (f"config.batch_size, {config.batch_size}")
        )
        raise UserError(
            f"config.model.bn_group_size is {group}: it must divide {of}; {share}, a device's share, does, and 0 takes "
            "all together"
        )
    if group and share % group and group % share:
        raise UserError(
            f"config.model.bn_group_size is {group}: each of the {mesh.size} devices has {share} examples of a "
            f"micro-batch of {micro_batch}; take a divisor or a multiple of that, or 0 for all together"
        )
