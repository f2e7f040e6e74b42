"""The table of formats: weights into a file that other programs run, and such a file as a function of images.

    FORMATS["onnx"].write(weights, Path("model.onnx"))
    logits = FORMATS["onnx"].load(Path("model.onnx"))(images)        # float32 [B, H, W, C] to [B, classes]

To add a format, add a row to FORMATS. Nothing here imports JAX before a format is used, so that the command's help is
quick.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from convmixer_jax.runs.files import write_bytes, write_json

if TYPE_CHECKING:  # they import JAX
    import numpy as np

    from convmixer_jax.inference.description import Description
    from convmixer_jax.inference.loading import Weights

Run = Callable[["np.ndarray"], "np.ndarray"]


def write_stablehlo(weights: "Weights", path: Path) -> None:
    """Writes the program, and beside it, as path.json, what must be known to use it."""
    from convmixer_jax.exporting.comparison import reference
    from convmixer_jax.exporting.stablehlo import to_stablehlo
    from convmixer_jax.inference.description import to_record

    write_bytes(path, to_stablehlo(reference(weights), weights.description.image_shape))
    write_json(path.with_name(f"{path.name}.json"), to_record(weights.description))


def load_stablehlo(path: Path) -> Run:
    """Returns the program as JAX runs it."""
    from convmixer_jax.exporting import stablehlo

    return stablehlo.load_stablehlo(path)


def write_onnx(weights: "Weights", path: Path) -> None:
    """Writes the graph, with what must be known to use it as the metadata `description`, JSON."""
    from convmixer_jax.exporting.comparison import reference
    from convmixer_jax.exporting.onnx_file import to_onnx
    from convmixer_jax.inference.description import to_record

    description = json.dumps(to_record(weights.description))
    model = to_onnx(reference(weights), weights.description.image_shape, {"description": description})
    write_bytes(path, model.SerializeToString())


def load_onnx(path: Path) -> Run:
    """Returns the graph as onnxruntime runs it."""
    from convmixer_jax.exporting import onnx_file

    return onnx_file.load_onnx(path)


def write_safetensors(weights: "Weights", path: Path) -> None:
    """Writes PyTorch's tensors with timm's names."""
    from convmixer_jax.inference.saving import save

    save(weights, path, force=True)


def load_safetensors(path: Path) -> Run:
    """Returns the tensors' model, read as those of any other place."""
    from convmixer_jax.exporting.comparison import quickest
    from convmixer_jax.inference.loading import Asked, read_place

    weights = read_place(path, Asked())
    return quickest(weights.description)(weights.variables)


def nothing(description: "Description") -> list[str]:
    """Returns no notes: the file holds all that decides what is computed."""
    del description
    return []


def notes_for_torch(description: "Description") -> list[str]:
    """Returns what tensors do not say of themselves."""
    from convmixer_jax.inference.torch_weights import torch_differences

    return [f"to be set in PyTorch: {line}" for line in torch_differences(description)]


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of file. suffix: of its name. meaning: for people. packages: beyond those that everything here needs.

    write: weights to a file, and what else belongs beside it: the same name and each of `companions`. load: the file
    as a function of images. notes: what its user has to know besides, a line each.
    """

    suffix: str
    meaning: str
    write: Callable[["Weights", Path], None]
    load: Callable[[Path], Run]
    packages: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    notes: Callable[["Description"], list[str]] = nothing

    def files(self, path: Path) -> list[Path]:
        """Returns all that `write` writes for `path`."""
        return [path, *(path.with_name(f"{path.name}{ending}") for ending in self.companions)]


FORMATS: dict[str, Format] = {
    "stablehlo": Format(
        suffix=".stablehlo",
        meaning="a program with its weights, by jax.export, for CPU, CUDA and TPU",
        write=write_stablehlo,
        load=load_stablehlo,
        companions=(".json",),
    ),
    "onnx": Format(
        suffix=".onnx",
        meaning="a graph for onnxruntime and others; wants the packages onnx and onnxruntime",
        write=write_onnx,
        load=load_onnx,
        packages=("onnx", "onnxruntime"),
    ),
    "safetensors": Format(
        suffix=".safetensors",
        meaning="PyTorch's tensors with timm's names",
        write=write_safetensors,
        load=load_safetensors,
        notes=notes_for_torch,
    ),
}
