"""Files that several processes may make at once: one makes them, and nobody sees half of them.

with one_at_a_time(destination, "numbers: waiting for another process"):
    ...                                    # write `part`
    publish(part, destination)
"""

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

# A folder may be removed by another process just then, but not so often: none can be made below /proc, say, or in a
# working directory that was deleted.
_MOST_TRIES, _PAUSE_S = 100, 0.01


@contextlib.contextmanager
def one_at_a_time(destination: Path, waiting: str) -> Iterator[None]:
    """Holds a lock beside `destination`, whose folder is made, while the context is open.

    waiting: said on standard error where another process or thread holds it already; then this one waits.
    The lock is the kernel's: it goes with the process, however that ends. Its file, and folders that were made for
    nothing, are removed at the end. Raises OSError where they cannot be made.
    """
    path, made = destination.with_name(destination.name + ".lock"), _missing_folders(destination.parent)
    try:
        with _acquired(path, waiting):
            try:
                yield
            finally:
                # Before it is let go: whoever waits finds that the file has no name any more, and takes a new one.
                path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # not empty: that is what they were made for
            for folder in made:
                folder.rmdir()


def _missing_folders(folder: Path) -> list[Path]:
    """Returns the folder and those above it that do not exist, the deepest first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def _acquired(path: Path, waiting: str) -> TextIO:
    """Returns the lock file, open and locked. Raises OSError where it cannot be made."""
    while True:
        file = _opened(path)
        try:
            _lock(file, waiting)
            if _is_at(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # who held it has removed it since


def _opened(path: Path) -> TextIO:
    """Returns the lock file, open, in a folder that is made. Raises OSError where it cannot be."""
    tries = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return open(path, "a")
        # Another process has just removed the folder, which it had made for nothing. Where it was there for mkdir and
        # is gone for the look at what is there, mkdir says that it exists.
        except (FileExistsError, FileNotFoundError):
            tries += 1
            if tries == _MOST_TRIES:
                raise
            time.sleep(_PAUSE_S)


def _lock(file: TextIO, waiting: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(waiting, file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def publish(part: Path, destination: Path) -> None:
    """Gives a complete file or folder its final name, so that after a power cut there is a whole one or none.

    What lies in a folder must be on the disk already. Raises OSError, also where `destination` is a folder with files.
    """
    flush(part)
    os.replace(part, destination)
    flush(destination.parent)


def flush(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
