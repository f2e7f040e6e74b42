"""Weights into a converted directory, or into a file for PyTorch's users.

save(weights, Path("converted"), force=False)
save(weights, Path("model.safetensors"), force=False)
"""

import json
from pathlib import Path

import numpy as np

from convmixer_jax.config_record import CONFIG_FILE
from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import to_record
from convmixer_jax.inference.loading import Weights
from convmixer_jax.inference.torch_weights import to_timm
from convmixer_jax.weights.converted import Converted, is_converted, write_converted, write_torch_safetensors
from convmixer_jax.weights.names import flat
from convmixer_jax.weights.reading import PICKLES, SAFETENSORS, has_suffix


def is_torch_target(path: Path) -> bool:
    """Whether weights are to go into a file with timm's names; else into a directory."""
    return has_suffix(path, SAFETENSORS)


def check_target(path: Path, force: bool) -> None:
    """Raises UserError where nothing is to be written, or something is in the way.

    force: whether weights that are there may be replaced; nothing else ever is.
    """
    if has_suffix(path, PICKLES):
        raise UserError(f"--to {path}: of PyTorch's formats .safetensors is written; name a .safetensors or a folder")
    if is_torch_target(path):
        if path.is_dir():
            raise UserError(f"--to {path} is a folder: name a file, or a folder of another name")
        in_the_way = path.exists()
    else:
        if path.exists() and not path.is_dir():
            raise UserError(f"--to {path} is a file: name a folder, or a file that ends in .safetensors")
        if (path / CONFIG_FILE).exists():
            raise UserError(f"--to {path} is a run's workdir: name another folder")
        in_the_way = is_converted(path) or (path.is_dir() and any(path.iterdir()))
    if in_the_way and not force:
        raise UserError(f"--to {path} is there already: give --force to write there, or name another place")


def save(weights: Weights, path: Path, force: bool) -> None:
    """Writes the weights, float32, to a place that `check_target` accepts. Raises UserError."""
    check_target(path, force)
    if is_torch_target(path):
        tensors, counters = to_timm(weights.description, weights.variables, weights.counters)
        write_torch_safetensors(path, tensors, counters, json.dumps(to_record(weights.description)))
        return
    variables = {name: array.astype(np.float32) for name, array in flat(weights.variables).items()}
    write_converted(path, Converted(to_record(weights.description), variables, dict(weights.counters)))
