"""Our own directory of weights: `model.json`, what must be known of them, beside `variables.safetensors`.

    write_converted(directory, description, variables, counters={})
    content = read_converted(directory)

model.json is written last and carries the SHA-256 of the other file, so half a directory, or a bit that flipped on a
disk, is found.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import read_json, write_bytes, write_json
from convmixer_jax.weights.names import Arrays

DESCRIPTION_FILE = "model.json"
VARIABLES_FILE = "variables.safetensors"
FORMAT = 1
DESCRIPTION_KEY = "convmixer_jax"  # under which a .safetensors of ours carries its description, as JSON
_WAY_OUT = "convert the weights again (python -m convmixer_jax.convert)"


@dataclasses.dataclass(frozen=True)
class Converted:
    """description: a JSON object. variables: float32, named as in `names`. counters: see `names.COUNTER`."""

    description: dict[str, Any]
    variables: Arrays
    counters: dict[str, int]


def is_converted(path: Path) -> bool:
    """Whether the path is such a directory, or what is left of one."""
    return (path / DESCRIPTION_FILE).is_file() or (path / VARIABLES_FILE).is_file()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): name a place that can, or free this one"
        ) from error


def check_ours(path: Path) -> None:
    """Raises UserError where a DESCRIPTION_FILE is another program's."""
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        record = None
    if not (isinstance(record, dict) and {"format", "sha256"} <= record.keys()):
        raise UserError(f"{path} is not of a conversion, so it is not replaced: move it away, or name another folder")


def write_converted(directory: Path, content: Converted) -> None:
    """Writes both files, in place of earlier ones; each appears whole or not at all. Raises UserError.

    A DESCRIPTION_FILE that is not ours is left as it is, and refused.
    """
    from safetensors.numpy import save

    # Bytes as they lie are what is saved, whatever the strides say.
    packed = save({name: np.ascontiguousarray(array) for name, array in content.variables.items()})
    record = {
        "format": FORMAT,
        "sha256": hashlib.sha256(packed).hexdigest(),
        "description": content.description,
        "counters": content.counters,
    }
    with _writing(directory):
        check_ours(directory / DESCRIPTION_FILE)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / DESCRIPTION_FILE).unlink(missing_ok=True)
        write_bytes(directory / VARIABLES_FILE, packed)
        write_json(directory / DESCRIPTION_FILE, record)


def read_converted(directory: Path) -> Converted:
    """Returns what `write_converted` wrote. Raises UserError where that is not what is there."""
    from safetensors.numpy import load

    record = read_json(directory / DESCRIPTION_FILE)
    if record is None:
        raise UserError(f"{directory} has {VARIABLES_FILE} but no {DESCRIPTION_FILE}: {_WAY_OUT}")
    if record.get("format") != FORMAT:
        found = record.get("format")
        raise UserError(f"{directory / DESCRIPTION_FILE} has format {found!r}, this version reads {FORMAT}: {_WAY_OUT}")
    path = directory / VARIABLES_FILE
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {_WAY_OUT}") from error
    if hashlib.sha256(packed).hexdigest() != record.get("sha256"):
        raise UserError(f"{path} is damaged: its SHA-256 is not the one in {DESCRIPTION_FILE}; {_WAY_OUT}")
    description, counters = record.get("description"), record.get("counters")
    if (
        not (isinstance(description, dict) and isinstance(counters, dict))
        or any(type(count) is not int for count in counters.values())
    ):  # fmt: skip
        raise UserError(f"{directory / DESCRIPTION_FILE} has no description of the weights: {_WAY_OUT}")
    return Converted(description, load(packed), counters)


def write_torch_safetensors(path: Path, tensors: Arrays, counters: dict[str, int], description: str) -> None:
    """Writes PyTorch's tensors, with the folders above. Raises UserError.

    counters: by tensor name. description: JSON, kept as metadata, which PyTorch's users never see.
    """
    from safetensors.numpy import save

    arrays = tensors | {name: np.asarray(count, np.int64) for name, count in counters.items()}
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(arrays, metadata={"format": "pt", DESCRIPTION_KEY: description}))
