"""The table of model variants, and the one place that builds a model from plain settings.

    model = make_model("convmixer", num_classes=10, dtype="bfloat16", mesh=None, **fields_of_config_model)

To add a variant, add a row to VARIANTS; the parameter-count table in the tests then asks for its count. A field of
config.model that a variant reads is an attribute of its module, of the same name; other variants refuse it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from jax.sharding import Mesh

from convmixer_jax.errors import UserError, lookup
from convmixer_jax.models.blocks import BLOCKS
from convmixer_jax.models.cnn import CNN, SMALLEST
from convmixer_jax.models.convmixer import ConvMixer, beyond_fast
from convmixer_jax.models.heads import HEADS
from convmixer_jax.models.initializers import INITIALIZERS
from convmixer_jax.models.norms import NORMS
from convmixer_jax.models.staged import STAGES, Staged
from convmixer_jax.ops.activations import ACTIVATIONS
from convmixer_jax.ops.choice import REFERENCE, choose, ops_case


def convmixer_maps(model: Mapping[str, Any], height: int, width: int) -> list[int]:
    """Returns the values in the map of each block, for one image of these sides."""
    patch: int = model["patch_size"]
    return [(height // patch) * (width // patch) * model["dim"]] * model["depth"]


def staged_maps(model: Mapping[str, Any], height: int, width: int) -> list[int]:
    """Returns what `convmixer_maps` does. From stage to stage a quarter of the positions has twice the channels."""
    first: int = (height // 2) * (width // 2) * model["dim"]
    return [first // 2**number for number, stage in enumerate(STAGES) for _ in range(stage.blocks)]


@dataclasses.dataclass(frozen=True)
class Variant:
    """module: takes the fields of config.model that it reads. maps: values of each block's map, of what remat keeps.

    smallest: pixels that a side of an image has at least.
    """

    module: type[nn.Module]
    maps: Callable[[Mapping[str, Any], int, int], list[int]]
    smallest: Callable[[Mapping[str, Any]], int]

    def reads(self, field: str) -> bool:
        """Whether the module has an attribute of this name."""
        return field in self.module.__dataclass_fields__


VARIANTS: dict[str, Variant] = {
    "convmixer": Variant(ConvMixer, convmixer_maps, smallest=lambda model: int(model["patch_size"])),
    "staged": Variant(Staged, staged_maps, smallest=lambda model: 1),
    "cnn": Variant(CNN, lambda model, height, width: [], smallest=lambda model: SMALLEST),
}


def find_variant(name: str) -> Variant:
    """Returns a row of VARIANTS. Raises UserError, naming the config's field."""
    return lookup(VARIANTS, name, "config.model.variant")


def check_dim(model: Mapping[str, Any]) -> None:
    """Raises UserError where parts of a model with these fields of config.model cannot divide its channels evenly."""
    dim, factor = model["dim"], model["bottleneck_factor"]
    if model["block"] == "bottleneck" and dim % factor:
        raise UserError(f"config.model.bottleneck_factor is {factor}: it must divide config.model.dim, which is {dim}")
    if model["variant"] == "staged" and dim % 8:
        raise UserError(f"config.model.dim is {dim}: the variant 'staged' needs a multiple of 8; 128 is report E's")


def beyond_fast_ops(model: Mapping[str, Any]) -> str | None:
    """Returns why only the reference computes a model with these fields of config.model, in a few words, or None."""
    if model["variant"] != "convmixer":
        return f"it does not know the variant {model['variant']!r}"
    return beyond_fast(model["block"], model["norm"], model["layer_scale"])


def choose_ops(
    model: Mapping[str, Any], dtype: str, image_shape: tuple[int, int, int], platform: str
) -> tuple[str, str | None]:
    """Returns the operations that run, a row of OPS, and why not those that model["ops"] asks for, or None.

    model: fields of config.model. Raises UserError as `choose`.
    """
    sizes = {"kernel_size": model["kernel_size"], "patch_size": model["patch_size"], "image_shape": image_shape}
    chosen, why = choose(model["ops"], ops_case(platform, dtype, **sizes))
    beyond = beyond_fast_ops(model)
    return (REFERENCE, f"{chosen}: {beyond}") if beyond and chosen != REFERENCE else (chosen, why)


def make_model(
    variant: str,
    *,
    num_classes: int,
    dtype: str,
    preset: str,
    dim: int,
    depth: int,
    patch_size: int,
    kernel_size: int,
    activation: str,
    initializer: str,
    norm: str,
    norm_momentum: float,
    norm_epsilon: float,
    bn_group_size: int,
    block: str,
    bottleneck_factor: int,
    layer_scale: float,
    drop_path: float,
    head: str,
    head_dropout: float,
    remat: bool,
    ops: str,
    mesh: Mesh | None,
) -> nn.Module:
    """Returns the model; raises UserError, naming the config's field, where a choice is not in its table.

    dtype: of the computation ("float32" or "bfloat16"); parameters and statistics are float32 always. preset: where
    the other fields come from, which computes nothing. ops: a row of OPS, see ops/choice.py; mesh: the devices that a
    batch is split over. What a variant does not read is left out.
    """
    del preset
    lookup(ACTIVATIONS, activation, "config.model.activation")
    lookup(INITIALIZERS, initializer, "config.model.initializer")
    lookup(NORMS, norm, "config.model.norm")
    lookup(BLOCKS, block, "config.model.block")
    lookup(HEADS, head, "config.model.head")
    settings = {
        "dim": dim,
        "depth": depth,
        "patch_size": patch_size,
        "kernel_size": kernel_size,
        "activation": activation,
        "initializer": initializer,
        "norm": norm,
        "norm_momentum": norm_momentum,
        "norm_epsilon": norm_epsilon,
        "bn_group_size": bn_group_size,
        "block": block,
        "bottleneck_factor": bottleneck_factor,
        "layer_scale": layer_scale,
        "drop_path": drop_path,
        "head": head,
        "head_dropout": head_dropout,
        "remat": remat,
        "ops": ops,
        "mesh": mesh,
    }
    row = find_variant(variant)
    read = {name: value for name, value in settings.items() if row.reads(name)}
    return row.module(num_classes=num_classes, dtype=dtype, **read)
