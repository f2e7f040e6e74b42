"""What a checkpoint must hold, to the bit: MANIFEST.json beside its files.

    leaves = digest_leaves(host_parts(tree))             # of the bytes in memory, at the save
    record = {"leaves": leaves, "files": describe_files(folder, files_under(folder))}
    write_manifest(folder, record)
    read_manifest(folder)           # raises ValueError where a bit of it is wrong, or it is of another kind
    wrong_file(folder, record), wrong_leaf(tree, leaves)     # None, or what is wrong in a few words

The digests of the files tell damage without reading through the library that wrote them; those of the leaves prove the
whole way from memory to disk and back. SHA-256: of the functions in hashlib the quickest where processors have
instructions for it.
"""

import hashlib
import json
import math
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convmixer_jax.runs.files import UNFINISHED, write_bytes

MANIFEST_FILE = "MANIFEST.json"
# Killed while a score is added, a run leaves the second one beside a manifest that is whole.
NOT_DESCRIBED = {MANIFEST_FILE, MANIFEST_FILE + UNFINISHED}


class Part(NamedTuple):
    """A leaf, or the part of one that this process holds. box: ((start, stop), ...) by axis; None for all of it.

    shape: of the whole leaf.
    """

    shape: tuple[int, ...]
    values: np.ndarray
    box: tuple[tuple[int, int], ...] | None


def named_leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (name, leaf) of a nested dict; a name is the keys joined by slashes."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from named_leaves(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def host_parts(tree: Mapping[str, Any], lead: bool) -> dict[str, list[Part]]:
    """Returns what this process answers for, on the host: whole leaves by the lead, parts of divided ones by everybody.

    The arrays are copies, or views that outlive the leaf: a step that takes the leaf's memory afterwards takes another
    instead. tree: nested dict of jax.Array or NumPy leaves.
    """
    mine: dict[str, list[Any]] = {}
    for name, leaf in named_leaves(tree):
        if isinstance(leaf, np.ndarray | np.generic) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            mine[name] = [(leaf, None)] if lead else []
        else:
            shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
            mine[name] = [(shard.data, _box(shard.index, leaf.shape)) for shard in shards]
    for array, _ in (each for group in mine.values() for each in group):
        if hasattr(array, "copy_to_host_async"):
            array.copy_to_host_async()  # all under way before the first is waited for
    shapes = {name: tuple(np.shape(leaf)) for name, leaf in named_leaves(tree)}
    return {
        name: [Part(shapes[name], np.asarray(array), box) for array, box in group]
        for name, group in mine.items()
        if group
    }


def _box(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(axis.indices(size)[:2] for axis, size in zip(index, shape, strict=True))


def digest(values: np.ndarray) -> str:
    """Returns the SHA-256 of an array's bytes in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).hexdigest()


def digest_leaves(parts: Mapping[str, list[Part]]) -> dict[str, Any]:
    """Returns by name: shape, dtype, and the digest of the whole leaf, or of each of its parts."""
    leaves: dict[str, Any] = {}
    for name, group in parts.items():
        leaf: dict[str, Any] = {"shape": list(group[0].shape), "dtype": str(group[0].values.dtype)}
        if group[0].box is None:
            leaf["sha256"] = digest(group[0].values)
        else:
            leaf["parts"] = [
                {"box": [list(axis) for axis in part.box or ()], "sha256": digest(part.values)} for part in group
            ]
        leaves[name] = leaf
    return leaves


def merge_leaves(each: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins what `digest_leaves` returned in each process."""
    merged: dict[str, Any] = {}
    for leaves in each:
        for name, leaf in leaves.items():
            if name in merged:
                merged[name]["parts"] += leaf["parts"]
            else:
                merged[name] = dict(leaf)
    return dict(sorted(merged.items()))


def wrong_leaf(
    tree: Mapping[str, Any], leaves: Mapping[str, Any], to_host: Callable[[Any], np.ndarray] = np.asarray
) -> str | None:
    """Returns what is wrong with the first leaf of the tree that is not as it was saved; None where all are.

    tree: all of what was saved, or groups of it. to_host: returns all of a leaf.
    """
    trouble = None
    for name, leaf in named_leaves(tree):
        values, saved = to_host(leaf), leaves.get(name)  # to_host may need all processes: none leaves early
        if trouble is None and (saved is None or not _is_as_saved(values, saved)):
            trouble = f"{name} is not what was saved"
    return trouble


def _is_as_saved(values: np.ndarray, saved: Mapping[str, Any]) -> bool:
    if (list(values.shape), str(values.dtype)) != (saved["shape"], saved["dtype"]):
        return False
    if "sha256" in saved:
        return digest(values) == saved["sha256"]
    parts = saved["parts"]
    covered = sum(int(np.prod([stop - start for start, stop in part["box"]])) for part in parts)
    return covered == values.size and all(
        digest(values[tuple(slice(*axis) for axis in part["box"])]) == part["sha256"] for part in parts
    )


def files_under(folder: Path) -> list[str]:
    """Returns the names of all files below, relative, without the manifest."""
    found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted({path.relative_to(folder).as_posix() for path in found} - NOT_DESCRIBED)


def describe_file(path: Path) -> dict[str, Any]:
    """Returns size and digest of a file. Raises OSError."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": sha256}


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Returns size and digest of each of these files. Raises OSError."""
    return {name: describe_file(folder / name) for name in names}


def wrong_name(folder: Path, record: Mapping[str, Any]) -> str | None:
    """Returns which file is missing or does not belong there, or has another size; None where all are right."""
    there, wanted = set(files_under(folder)), record["files"].keys()
    for name in sorted(there ^ wanted):
        return f"{name} is missing" if name in wanted else f"{name} does not belong there"
    for name in sorted(wanted):
        known, size = (folder / name).stat(), record["files"][name]["bytes"]
        if not stat.S_ISREG(known.st_mode):  # to read a pipe would take for ever
            return f"{name} is no file"
        if known.st_size != size:
            return f"{name} has {known.st_size} bytes, not {size}"
    return None


def wrong_file(folder: Path, record: Mapping[str, Any], share: int = 0, shares: int = 1) -> str | None:
    """Returns what is wrong with the files in a few words, None where all are as they were written.

    share, shares: of several processes each reads its share of the files; all look at names and sizes.
    """
    try:
        trouble = wrong_name(folder, record)
        if trouble:
            return trouble
        for name in sorted(record["files"])[share::shares]:
            if describe_file(folder / name) != record["files"][name]:
                return f"{name} is not as it was written"
    except OSError as error:
        return f"{error.filename or folder} cannot be read ({error.strerror})"
    return None


def encode(record: Mapping[str, Any]) -> bytes:
    """Returns the only bytes that stand for this manifest; the digest of all else is its last field."""
    sha256 = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return json.dumps({"manifest": record, "sha256": sha256}, indent=1, sort_keys=True).encode()


def write_manifest(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the manifest in one move. Raises OSError."""
    write_bytes(folder / MANIFEST_FILE, encode(record))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest, None where there is none. Raises ValueError where it is not as it was written, OSError."""
    path = folder / MANIFEST_FILE
    if path.exists() and not path.is_file():
        raise ValueError("its manifest is no file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        record: dict[str, Any] = json.loads(content)["manifest"]
        # One bit may change the spelling and not the meaning: only the same bytes will do.
        whole = encode(record) == content
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise ValueError("its manifest is damaged")
    if not is_manifest(record):
        raise ValueError("its manifest lacks what is read here, or has it of another kind: another program wrote it")
    return record


def is_manifest(record: Any) -> bool:
    """Whether all that is read of a manifest is there and of its kind."""
    try:
        score, files, leaves = record["val_top1"], record["files"], record["leaves"]
        return (
            (score is None or (_is(score, float, int) and math.isfinite(score)))
            and _is(record["step"], int)
            and _is(record["time"], str)
            and all(_is(file["bytes"], int) and _is(file["sha256"], str) for file in files.values())
            and all(_is_leaf(leaf) for leaf in leaves.values())
        )
    except (TypeError, KeyError, AttributeError, ValueError):
        return False


def _is(value: Any, *kinds: type) -> bool:
    return type(value) in kinds  # True is no number


def _is_leaf(leaf: Any) -> bool:
    digests = [leaf["sha256"]] if "sha256" in leaf else [part["sha256"] for part in leaf["parts"]]
    bounds = [axis for part in leaf.get("parts", ()) for axis in part["box"]]
    return (
        _is(leaf["dtype"], str)
        and all(_is(size, int) for size in leaf["shape"])
        and all(_is(digest, str) for digest in digests)
        and all(_is(start, int) and _is(stop, int) for start, stop in bounds)
    )
