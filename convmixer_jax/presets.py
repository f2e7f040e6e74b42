"""Named models: presets of fields of config.model.

    python -m convmixer_jax.main --config FILE --config.model.preset=convmixer_768_32

A preset fills the fields that still have the base's value. One that a recipe or the command line set to something
else contradicts it, and is refused. To add one, give it a row in PRESETS.
"""

from collections.abc import Container, Mapping, MutableMapping
from typing import Any

from convmixer_jax.errors import UserError, lookup


def convmixer(dim: int, depth: int, patch_size: int, kernel_size: int, activation: str = "gelu") -> dict[str, Any]:
    """Returns the fields that make a ConvMixer what was published: its shape, and what computes its values."""
    return {
        "variant": "convmixer",
        "dim": dim,
        "depth": depth,
        "patch_size": patch_size,
        "kernel_size": kernel_size,
        "activation": activation,
        "norm": "batch",
        "norm_epsilon": 1e-5,
        "block": "plain",
        "layer_scale": 0.0,
        "head": "linear",
    }


PRESETS: dict[str, dict[str, Any]] = {
    # The released ImageNet models, by timm's names, and a small one.
    "convmixer_1536_20": convmixer(1536, 20, patch_size=7, kernel_size=9),
    "convmixer_768_32": convmixer(768, 32, patch_size=7, kernel_size=7, activation="relu"),
    "convmixer_1024_20_ks9_p14": convmixer(1024, 20, patch_size=14, kernel_size=9),
    "convmixer_512_16": convmixer(512, 16, patch_size=7, kernel_size=8),
    # The paper's on CIFAR-10, and those of its reproductions: patch, then kernel.
    "convmixer_256_8_p1_k9": convmixer(256, 8, patch_size=1, kernel_size=9),
    "convmixer_256_8_p1_k7": convmixer(256, 8, patch_size=1, kernel_size=7),
    "convmixer_256_8_p1_k3": convmixer(256, 8, patch_size=1, kernel_size=3),
    "convmixer_256_8_p2_k5": convmixer(256, 8, patch_size=2, kernel_size=5),
    "convmixer_256_8_p2_k9": convmixer(256, 8, patch_size=2, kernel_size=9),
    "convmixer_256_8_p4_k9": convmixer(256, 8, patch_size=4, kernel_size=9),
    "convmixer_128_4_p1_k8": convmixer(128, 4, patch_size=1, kernel_size=8),
    "convmixer_128_8_p1_k8": convmixer(128, 8, patch_size=1, kernel_size=8),
    "convmixer_256_4_p1_k8": convmixer(256, 4, patch_size=1, kernel_size=8),
    "convmixer_256_16_p1_k8": convmixer(256, 16, patch_size=1, kernel_size=8),
}


def fill(model: MutableMapping[str, Any], base: Mapping[str, Any], explicit: Container[str]) -> None:
    """Gives the fields of config.model the preset's values where they are the base's and were not asked for.

    explicit: fields that the command line named. An unknown preset fills nothing: `check_preset` tells of it.
    """
    preset = model["preset"]
    for name, value in PRESETS.get(preset, {}).items() if isinstance(preset, str) else ():
        if name not in explicit and model[name] == base[name]:
            model[name] = value


def check_preset(preset: str, model: Mapping[str, Any]) -> None:
    """Raises UserError for an unknown preset, and for the first field of config.model that it contradicts."""
    for name, value in lookup(PRESETS, preset, "config.model.preset").items() if preset else ():
        if model[name] != value:
            raise UserError(
                f"config.model.{name} is {model[name]!r}: config.model.preset={preset} has {value!r} there; drop the "
                "one that was not meant, or take no preset: --config.model.preset=''"
            )
