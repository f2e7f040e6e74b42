"""The tensors in a file of PyTorch weights: .safetensors, or what torch.save wrote.

    file = read_torch_file(Path("model_best.pth.tar"), ema=False)
    file.tensors["stem.0.weight"]           # float32, without the prefixes of wrappers

What torch.save wrote is a pickle, a program: PyTorch's weights-only reader runs no function of it but its own.
"""

import argparse
import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.errors import UserError
from convmixer_jax.weights.names import COUNTER, Arrays

SAFETENSORS = (".safetensors",)
PICKLES = (".pth", ".pth.tar", ".pt", ".bin")
SUFFIXES = (*SAFETENSORS, *PICKLES)
# Entries of a training script's file that hold the tensors: the trained ones, and their moving average.
RAW_ENTRIES = ("state_dict", "model")
EMA_ENTRIES = ("state_dict_ema", "model_ema")
# What DataParallel, DistributedDataParallel and torch.compile put before every name.
WRAPPERS = ("module.", "_orig_mod.")
_FLOATS = "weights are dense floats; quantised ones cannot be read"
_EXACT = ("float32", "float16", "bfloat16")
# What PyTorch's reader says of a file that it refuses, in paragraphs, and what is told of it.
_REASONS = (
    (r"GLOBAL (\S+)", "it asks for {}"),
    (r"got <class '([\w.]+)'>", "it asks for {}"),
    (r"(TorchScript)", "it is an archive of {}"),
    (r"Unsupported operand (14\d|15[0-2])\b", "it is a pickle of protocol 4 or 5, and protocol 2 alone is read"),
)


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """tensors: float32 but for the counters of batches, by name without `prefix`, which all names have in the file.

    metadata: text beside the tensors of a .safetensors. has_ema: whether averaged tensors are there, too, unread.
    """

    path: Path
    tensors: Arrays
    prefix: str
    metadata: Mapping[str, str]
    has_ema: bool


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the path's name ends in one of these, in capitals or not."""
    return path.name.lower().endswith(suffixes)


def is_torch_file(path: Path) -> bool:
    """Whether the path is a file with one of SUFFIXES."""
    return has_suffix(path, SUFFIXES) and path.is_file()


def read_torch_file(path: Path, ema: bool) -> TorchFile:
    """Returns the tensors of a file with one of SUFFIXES. Raises UserError where it cannot be read or has no such.

    ema: whether to take the moving average, which a training script may have saved beside the trained tensors.
    float16 and bfloat16 become float32 exactly; float64 is rounded.
    """
    if has_suffix(path, SAFETENSORS):
        tensors, metadata = read_safetensors(path)
        averages = False
    else:
        content, metadata = read_pickle(path), {}
        averages = any(entry in content for entry in EMA_ENTRIES)
        tensors = choose_entry(path, content, EMA_ENTRIES if ema else RAW_ENTRIES)
    if ema and not averages:
        raise UserError(f"{path} has no moving average (none of {', '.join(EMA_ENTRIES)}): leave --ema out")
    check_names(path, tensors)
    prefix = common_prefix(tensors)
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    arrays = {name: to_float32(tensor, f"{path}: {prefix}{name}") for name, tensor in bare.items()}
    return TorchFile(path, arrays, prefix, metadata, averages and not ema)


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the arrays and the metadata. Raises UserError where the file is damaged, or NumPy lacks a dtype of it."""
    # Tells NumPy what bfloat16 is; JAX brings it.
    import ml_dtypes  # noqa: F401
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            arrays = {}
            for name in file.keys():  # noqa: SIM118
                try:
                    arrays[name] = file.get_tensor(name)
                except (AttributeError, TypeError) as error:  # NumPy has nothing of that name, such as float8
                    kind = file.get_slice(name).get_dtype()
                    raise UserError(f"{path}: {name} is of dtype {kind}, which is not read: {_FLOATS}") from error
            return arrays, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): take it again from where it came from") from error


def read_pickle(path: Path) -> dict[str, Any]:
    """Returns the mapping that torch.save wrote. Raises UserError where it is none, or more than plain data."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is a file of torch.save, and PyTorch is not installed: pip install torch (the CPU build is "
            "enough), or take a .safetensors file"
        ) from error
    try:
        # timm's training script saves its command line; a Namespace holds what it is given and runs nothing.
        # And what PyTorch warns of is either read all the same, or refused below.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle can make an unpickler raise nearly anything
        raise UserError(
            f"{path} is damaged, or holds more than weights ({refusal(path, error)}); nothing in it was run: where it "
            "comes from, save the tensors alone, torch.save(model.state_dict(), FILE)"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds {type(content).__name__}, no state_dict: save model.state_dict()")
    return dict(content)


def refusal(path: Path, error: Exception) -> str:
    """Returns in a few words why PyTorch's reader refused a file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if not path.stat().st_size:
        return "it is empty"
    for pattern, words in _REASONS:
        if found := re.search(pattern, str(error)):
            return words.format(found[1])
    return "it is cut short, or not of torch.save"


def choose_entry(path: Path, content: dict[str, Any], entries: tuple[str, ...]) -> dict[str, Any]:
    """Returns the first of the entries that is there; the whole where it is a state_dict itself."""
    for entry in entries:
        if isinstance(content.get(entry), Mapping):
            return dict(content[entry])
    if any(hasattr(value, "detach") for value in content.values()):
        return content
    raise UserError(
        f"{path} has no tensors: among its entries ({', '.join(map(str, list(content)[:8]))}) is none of "
        f"{', '.join(entries)}"
    )


def check_names(path: Path, names: Iterable[Any]) -> None:
    """Raises UserError for a name of a tensor that is no text."""
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"{path} has an entry {name!r}, which names no tensor: save model.state_dict() alone")


def common_prefix(names: Mapping[str, Any]) -> str:
    """Returns what wrappers put before every name, "" where there is no wrapper."""
    prefix, grown = "", True
    while grown:
        grown = False
        for wrapper in WRAPPERS:
            if names and all(name.startswith(prefix + wrapper) for name in names):
                prefix, grown = prefix + wrapper, True
    return prefix


def to_float32(tensor: Any, name: str) -> np.ndarray:
    """Returns a NumPy array or a tensor as a float32 array, a counter of batches as integers. Raises UserError.

    name: what a message calls it.
    """
    if hasattr(tensor, "detach"):
        tensor = tensor.detach()
        # NumPy has no bfloat16; float32 holds each of its values.
        exact = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
        try:
            array = exact.numpy()
        except (TypeError, RuntimeError) as error:  # a sparse one, or of a dtype that NumPy lacks, such as float8
            kind = f"{tensor.layout}, {tensor.dtype}".replace("torch.", "")
            raise UserError(f"{name} is of a kind that cannot be read ({kind}): {_FLOATS}") from error
    elif isinstance(tensor, np.ndarray):
        array = tensor
    else:
        raise UserError(f"{name} is {type(tensor).__name__}, no tensor: save model.state_dict() alone")
    counter = name.endswith(COUNTER)
    if counter and array.dtype.kind in "iu":
        return array
    if array.dtype.name not in (*_EXACT, "float64"):
        raise UserError(f"{name} is of dtype {array.dtype}: {_FLOATS}")
    if counter:  # of a file whose every tensor was made a float
        if not np.isfinite(array).all():
            raise UserError(f"{name} is {array}: it counts batches; the file is damaged, or its training diverged")
        return array.astype(np.int64)
    with np.errstate(over="ignore"):  # what becomes infinite is refused by whoever uses it
        return array.astype(np.float32)
