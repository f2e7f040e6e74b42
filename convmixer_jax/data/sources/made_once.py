"""Arrays that take long to make from files, made once and kept until the files change.

    arrays = made_once("train-00000-of-01024", shards, "labels and offsets", make, bar_label)

They lie in `.index/` beside the files, or where that cannot be written in ~/.cache/convmixer_jax/index/.
"""

import contextlib
import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from convmixer_jax.data.sources.publishing import one_at_a_time
from convmixer_jax.errors import UserError

CACHE = Path("~/.cache/convmixer_jax/index")

Arrays = dict[str, np.ndarray]
_STAMP = "made from"
_PREFIX = "array "  # savez has parameters, whose names an array must not have


def made_once(name: str, files: Sequence[Path], kind: str, make: Callable[[], Arrays], what: str) -> Arrays:
    """Returns what `make` returned when it was last called for these files as they are now; otherwise calls it.

    name: what the arrays are kept as. files: in one folder; they count as the same while names, sizes and times of
    change are. kind: says how the arrays are made, so that others, which are kept beside them, are not taken for them.
    what: names them in messages; "" where nothing is to be said.
    Of several processes at once one makes the arrays and the others wait. What is kept and damaged is made anew.
    Raises UserError where a file is missing.
    """
    stamp = _stamp(files, kind)
    places = _places(name, files, kind)

    def kept() -> Arrays | None:
        return next((arrays for place in places if (arrays := _read(place, stamp)) is not None), None)

    if (arrays := kept()) is not None:
        return arrays
    with _lock_beside(places, f"{what}: waiting for another process that is making it"):
        if (arrays := kept()) is not None:  # another process may have made them while this one waited
            return arrays
        arrays = make()
        _keep(places, arrays | {_STAMP: np.array(stamp)}, what)
    return arrays


def forget(name: str, files: Sequence[Path], kind: str) -> None:
    """Removes what `made_once` has kept, where that can be done."""
    for place in _places(name, files, kind):
        with contextlib.suppress(OSError):
            place.unlink()


def _places(name: str, files: Sequence[Path], kind: str) -> list[Path]:
    """Returns where the arrays may be kept, the best place first."""
    folder = files[0].parent.resolve()
    elsewhere = CACHE.expanduser() / _short(str(folder))
    return [place / f"{name}-{_short(kind)}.npz" for place in (folder / ".index", elsewhere)]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(files: Sequence[Path], kind: str) -> str:
    """Returns a digest of the files' names, sizes and times of change."""
    facts = []
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): put it back, or take it anew") from error
        facts.append((path.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([kind, facts]).encode()).hexdigest()


def _read(path: Path, stamp: str) -> Arrays | None:
    """Returns the arrays in a file, None where it is not there, damaged, or made from other files."""
    try:
        # Each array has a checksum in there, which reading it compares.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays[_PREFIX + _STAMP]) != stamp:
                return None
            return {key.removeprefix(_PREFIX): arrays[key] for key in arrays.files if key != _PREFIX + _STAMP}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _lock_beside(places: Sequence[Path], waiting: str) -> contextlib.ExitStack:
    """Returns a lock that is held until it is closed, beside the first of the places that can be written, or none."""
    held = contextlib.ExitStack()
    for place in places:
        with contextlib.suppress(OSError):
            held.enter_context(one_at_a_time(place, waiting))
            break
    return held


def _keep(places: Sequence[Path], arrays: Arrays, what: str) -> None:
    """Writes the arrays to the first place that takes them, whole or not at all; says so where none does."""
    reasons = []
    for place in places:
        unfinished = place.with_suffix(".tmp")
        try:
            with open(unfinished, "wb") as file:
                np.savez(file, allow_pickle=False, **{_PREFIX + key: value for key, value in arrays.items()})
            # Not flushed, which may take seconds: what a power cut spoils does not have its checksums.
            os.replace(unfinished, place)
            return
        except OSError as error:
            reasons.append(f"{place.parent} ({error.strerror})")
            with contextlib.suppress(OSError):
                unfinished.unlink()
    if what:
        print(f"{what}: made anew each time, since it cannot be kept in {' or '.join(reasons)}", file=sys.stderr)
