"""From a write to a durable checkpoint, by a thread: wait, digest, write the manifest, read it back, remove old steps.

    confirmation = Confirmation(write, wait)
    confirmation.result()      # None, or why the step is not saved

Training goes on meanwhile. Of several processes each digests what it wrote; the first one writes the manifest when all
have, and its word counts for all.
"""

import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from convmixer_jax.runs import exchange, steps
from convmixer_jax.runs.manifest import (
    Part,
    describe_files,
    digest_leaves,
    files_under,
    merge_leaves,
    read_manifest,
    write_manifest,
    wrong_name,
)
from convmixer_jax.runs.provenance import now, versions

# Orbax gives each process a folder of its own.
OWN_FILES = re.compile(r"state/ocdbt\.process_(\d+)/")
SETTINGS = re.compile(r" \[(?:os_error_code|tensorstore_spec)=")
FAILED = "failed"  # ends the topic on which a process says that its part of a save has
OTHER = "another process failed"


@dataclasses.dataclass(frozen=True)
class Write:
    """A write under way.

    folder: the step's. about: what the manifest tells beside digests. parts: see `host_parts`. keep: how many of the
    newest steps stay. topic: what processes call it among themselves, the same in all and never used before.
    """

    folder: Path
    about: dict[str, Any]
    parts: dict[str, list[Part]]
    keep: int
    topic: str


def own_files(names: list[str], process: int, processes: int) -> list[str]:
    """Returns the files that a process answers for; those of no process are the first one's."""

    def owner(name: str) -> int:
        found = OWN_FILES.match(name)
        return int(found[1]) % processes if found else 0

    return [name for name in names if owner(name) == process]


def in_words(error: Exception) -> str:
    """Returns what kind of error it is and what it says, without the settings that the storage library adds."""
    return f"{type(error).__name__}: {SETTINGS.split(str(error))[0]}"


class Confirmation:
    """Begins at once. wait: returns when the write has ended; raises where it failed."""

    def __init__(self, write: Write, wait: Callable[[], None]):
        self._write, self._wait = write, wait
        self._problem: str | None = "its confirmation did not end"
        self._thread = threading.Thread(target=self._run, name="checkpoint confirmation")
        self._thread.start()

    @property
    def finished(self) -> bool:
        """Whether `result` would return at once."""
        return not self._thread.is_alive()

    def result(self) -> str | None:
        """Waits; returns None where the step is durable, else why it is not."""
        self._thread.join()
        return self._problem

    def _run(self) -> None:
        process, processes = jax.process_index(), jax.process_count()
        own: dict[str, Any] = {}
        problem = None
        try:
            own["leaves"] = digest_leaves(self._write.parts)
            self._write.parts.clear()  # the host's copies
            self._wait()
            folder = self._write.folder
            own["files"] = describe_files(folder, own_files(files_under(folder), process, processes))
        except exchange.OtherFailedError:
            problem = OTHER
        except Exception as error:  # see `Checkpoints.save`
            problem = in_words(error)
        try:
            if problem and processes > 1:
                exchange.tell(f"{self._write.topic}/{FAILED}", problem)  # the others would wait for what does not come
            self._problem = self._conclude(own, problem, process, processes)
        except Exception as error:  # see `Checkpoints.save`; another process may be lost, too
            self._problem = f"{type(error).__name__}: {error}"

    def _conclude(self, own: dict[str, Any], problem: str | None, process: int, processes: int) -> str | None:
        """Returns the first process's verdict."""
        if processes == 1:
            return problem or self._publish([own], processes)
        parts, verdict = f"{self._write.topic}/parts", f"{self._write.topic}/verdict"
        exchange.tell(parts, json.dumps({"problem": problem, **own}))
        if process:
            return exchange.hear(verdict, 0) or None
        try:
            each = [json.loads(exchange.hear(parts, number)) for number in range(processes)]
            problems = {number: part["problem"] for number, part in enumerate(each) if part["problem"]}
            first = {number: words for number, words in problems.items() if words != OTHER} or problems
            told = [f"process {number}: {words}" for number, words in first.items()]
            problem = "; ".join(told) or self._publish(each, processes)
        except Exception as error:  # whatever it is, the others are waiting
            problem = f"{type(error).__name__}: {error}"
        exchange.tell(verdict, problem or "")
        return problem

    def _publish(self, each: list[dict[str, Any]], processes: int) -> str | None:
        """Writes the manifest, reads it back and removes old steps.

        Returns what is wrong; raises OSError, ValueError.
        """
        folder = self._write.folder
        record = self._write.about | {
            "time": now(),
            "versions": versions(),
            "processes": processes,
            "leaves": merge_leaves(part["leaves"] for part in each),
            "files": dict(sorted((name, file) for part in each for name, file in part["files"].items())),
        }
        write_manifest(folder, record)
        for each_folder in (folder, folder.parent):
            steps.sync_folder(each_folder)
        if read_manifest(folder) != record:
            return "its manifest cannot be read back"
        trouble = wrong_name(folder, record)
        if trouble is None:
            self._remove_old()
        return trouble

    def _remove_old(self) -> None:
        """Only now: until its successor is durable the last good step stays."""
        for step in steps.to_remove(steps.read_steps(self._write.folder.parent), self._write.keep):
            with contextlib.suppress(OSError):  # the step is durable all the same; the next start removes the rest
                steps.remove(step.folder)
