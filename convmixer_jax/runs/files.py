"""Files of a workdir: written whole or not at all.

    write_json(workdir / "result.json", result)
    lines = Lines(workdir / "metrics.jsonl")
    lines.append("a row")            # waits in memory while the disk is full

JSON here is strict: it has no NaN.
"""

import contextlib
import errno
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from convmixer_jax.errors import UserError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNFINISHED = ".tmp"  # ends the name of a file that is being written
NOT_OURS = "it is not as this program wrote it; restore it from a copy, or use another --workdir"


def to_json(value: Any) -> Any:
    """Returns value with NaN and infinities, which JSON does not have, replaced by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces `path` in one move: a reader, or a crash, finds the old content or the new one, never a part.

    Raises OSError; then what was written of it is gone again. Only a crash may leave it, under its name and UNFINISHED.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replaces `path` by `value` as indented JSON, in one move."""
    write_bytes(path, (json.dumps(to_json(value), indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in `path`, None where there is no such file. Raises UserError where it holds none."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): {NOT_OURS}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: {NOT_OURS}")
    return value


class Lines:
    """Appends lines to a file, each whole or not at all; those for which there is no room wait until there is."""

    def __init__(self, path: Path):
        """Opens the file, or makes it. Raises OSError."""
        self._file = path.open("ab", buffering=0)
        self._waiting = b""

    def append(self, line: str) -> None:
        """Appends a line, without its break, and those that wait. Raises OSError for other reasons than a full disk."""
        self._waiting += f"{line}\n".encode()
        self._append()

    def _append(self) -> None:
        end = os.fstat(self._file.fileno()).st_size
        try:
            left = memoryview(self._waiting)
            while left:  # a disk that becomes full takes a part, and the next call tells why
                left = left[self._file.write(left) :]
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._file.truncate(end)
        else:
            self._waiting = b""

    def sync(self) -> None:
        """Returns when every line is on disk that there is room for. Raises OSError for other reasons than that."""
        self._append()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; lines that still wait are lost."""
        self._append()
        self._file.close()


def make_workdir(path: Path, flag: str = "--workdir") -> None:
    """Makes the folder, with parents, and sees that a file can be written. Raises UserError where it cannot.

    flag: the one that named the folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(
            f"{flag} {path} cannot be written ({error.strerror}): name a folder that can, or free its place"
        ) from error
