"""Compiled programs that are kept on disk, so that the next start is quicker.

keep_programs(folder)                    # before JAX makes its first array
with Origin() as origin:
    program = step.lower(*arguments).compile()
print(origin)                            # "taken from the cache in 1.5 s, 62 MB in ~/.cache/..."
"""

import collections
import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType

import jax

# Some hundred programs. JAX can bound the folder itself, but only with a package that it does not bring along.
MOST_BYTES = 2_000_000_000
# Seconds of compilation from which a program is kept; JAX's own 1 s would leave out many that a start waits for.
WORTH_KEEPING = 0.1
HIT = "/jax/compilation_cache/cache_hits"


def sizes(folder: Path) -> dict[Path, os.stat_result]:
    """Returns what is known of every file of the folder; those that vanish meanwhile are left out."""
    found = {}
    for path in folder.glob("*"):
        try:
            found[path] = path.stat()
        except FileNotFoundError:  # another process prunes, too
            continue
    return found


def prune(folder: Path, most_bytes: int) -> None:
    """Removes the programs that were not used for the longest time until the others take at most so many bytes."""
    found = sizes(folder)
    total = sum(file.st_size for file in found.values())
    for path in sorted(found, key=lambda path: max(found[path].st_atime, found[path].st_mtime)):
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= found[path].st_size


def keep_programs(folder: Path) -> None:
    """Makes JAX keep compiled programs in `folder`. To be called before an array is made: JAX looks only once."""
    with contextlib.suppress(OSError):  # a folder that only others may write to serves all the same
        prune(folder, MOST_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


class _Hits:
    """Counts the programs that each thread of this process took from the cache."""

    def __init__(self) -> None:
        self.of_thread: collections.Counter[int] = collections.Counter()
        jax.monitoring.register_event_listener(self._note)

    def _note(self, event: str, **details: str | int) -> None:
        self.of_thread[threading.get_ident()] += event == HIT


_hits: list[_Hits] = []  # one at most: JAX offers no way to take a listener back


class Origin:
    """Tells where the program that this thread compiles inside of it comes from, and how long that took."""

    def __enter__(self) -> "Origin":
        if not _hits:
            _hits.append(_Hits())
        self._before, self._began = self._hits(), time.monotonic()
        self.cached, self.seconds = False, 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cached, self.seconds = self._hits() > self._before, time.monotonic() - self._began

    def _hits(self) -> int:
        return _hits[0].of_thread[threading.get_ident()]

    def __str__(self) -> str:
        """Whether it was newly compiled or taken from the cache, with the seconds, and the cache's size and folder."""
        folder = jax.config.values["jax_compilation_cache_dir"]
        if not folder:
            return f"newly compiled in {self.seconds:.1f} s, the cache of compiled programs is off"
        size = sum(file.st_size for file in sizes(Path(folder)).values())
        made = "taken from" if self.cached else "newly compiled and kept in"
        return f"{made} the cache in {self.seconds:.1f} s, {size / 1e6:.0f} MB in {folder}"
