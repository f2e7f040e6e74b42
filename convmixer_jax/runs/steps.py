"""The folders of checkpoints: which can be trusted, which stay, and where the others go.

    steps = read_steps(workdir / "checkpoints")
    newest = max(step.number for step in steps if step.trouble is None)
    quarantine(workdir / "checkpoints", newest, "damaged", "state/_METADATA is missing")

A step is durable once its manifest is there, which is written last. Steps of before there were manifests count as
durable, too: nothing can be said about them. Nothing is deleted on suspicion: what is wrong moves to quarantine/.
"""

import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import write_bytes
from convmixer_jax.runs.manifest import files_under, read_manifest

QUARANTINE = "quarantine"
DELETING = ".deleting"
UNFINISHED = ".orbax-checkpoint-tmp"
METADATA_FILE = "_CHECKPOINT_METADATA"
STEP_NAME = re.compile(r"0|[1-9][0-9]*")  # as a number is written here: "007" would be another folder of step 7
# In Orbax's own metadata of a step, which are there before the manifest: that there will be one.
PROMISE = {"manifest": 1}
INTERRUPTED = "interrupted"
DAMAGED = "damaged"
BEST_METRIC = "val_top1"


class DamagedError(UserError):
    """A checkpoint is not what was saved. reason: in a few words."""

    def __init__(self, folder: Path, reason: str, way_out: str):
        super().__init__(f"checkpoint {folder} is damaged ({reason}): restore it from a copy, or {way_out}")
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Step:
    """A checkpoint's folder, as far as a glance tells, or as it was when it was there.

    record: its manifest, None for one of before there were any. kind, trouble: why it is not durable, in a word and in
    a few, or None. score: validation top-1, where one came with it.
    """

    number: int
    folder: Path
    record: dict[str, Any] | None = None
    kind: str | None = None
    trouble: str | None = None
    score: float | None = None

    @property
    def bytes(self) -> int:
        """Of all its files. Raises OSError where they are gone."""
        if self.record is not None:
            return sum(file["bytes"] for file in self.record["files"].values())
        return sum((self.folder / name).lstat().st_size for name in files_under(self.folder))


def read_step(folder: Path) -> Step:
    """Reads what there is to know of a step without reading its arrays."""
    number = int(folder.name)
    try:
        record = read_manifest(folder)
    except ValueError as error:
        return Step(number, folder, kind=DAMAGED, trouble=str(error))
    except OSError as error:
        return Step(number, folder, kind=DAMAGED, trouble=f"its manifest cannot be read ({error.strerror})")
    if record is not None and record["step"] != number:
        return Step(number, folder, kind=DAMAGED, trouble=f"its manifest is of step {record['step']}")
    if record is not None:
        return Step(number, folder, record, score=record[BEST_METRIC])
    try:
        promised = json.loads((folder / METADATA_FILE).read_bytes()).get("custom_metadata") == PROMISE
    except (ValueError, AttributeError, RecursionError, OSError):
        # Every version of this program has had it written: a step without is not an old one, but half a one.
        return Step(number, folder, kind=DAMAGED, trouble=f"its manifest is missing, and {METADATA_FILE} unreadable")
    if promised:
        return Step(
            number,
            folder,
            kind=INTERRUPTED,
            trouble="its manifest is missing: its save was interrupted, or is under way",
        )
    return Step(number, folder, score=_old_score(folder))


def _old_score(folder: Path) -> float | None:
    try:
        score = float(json.loads((folder / "metrics" / "metrics").read_bytes())[BEST_METRIC])
    except (ValueError, TypeError, KeyError, RecursionError, OSError):
        return None
    return score if math.isfinite(score) else None


def read_steps(directory: Path) -> list[Step]:
    """Returns all steps whose writing was finished, ascending, durable or not; none where there is no such folder.

    Raises UserError where there is one that cannot be read.
    """
    folders = [path for path in _entries(directory) if STEP_NAME.fullmatch(path.name) and path.is_dir()]
    return sorted((read_step(folder) for folder in folders), key=lambda step: step.number)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{directory} cannot be read ({error.strerror}): it is where a run's checkpoints are; see that it can, or "
            "name another folder"
        ) from error


def durable(steps: Iterable[Step]) -> list[Step]:
    """Returns those that may be the newest or the best one."""
    return [step for step in steps if step.trouble is None]


def best(steps: Iterable[Step]) -> Step | None:
    """Returns the durable step of the highest score, of equals the last; None where none has a score."""
    scored = [step for step in durable(steps) if step.score is not None]
    return max(scored, key=lambda step: (step.score, step.number), default=None)


def to_remove(steps: Iterable[Step], keep: int) -> list[Step]:
    """Returns the durable steps that are neither of the newest `keep` nor the best."""
    good = durable(steps)
    first = best(good)
    return [step for step in good[: max(len(good) - keep, 0)] if step is not first]


def remove(folder: Path) -> None:
    """Deletes a step, so that a crash in the middle leaves no half of it under its name. Raises OSError."""
    doomed = folder.with_name(folder.name + DELETING)
    folder.rename(doomed)
    _delete(doomed)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:  # where somebody put a step elsewhere, and a link in its place, it stays there
        path.unlink()


def leftovers(directory: Path) -> list[Path]:
    """Returns what interrupted saves and deletions left in the folder. Raises UserError where it cannot be read."""
    return sorted(path for path in _entries(directory) if UNFINISHED in path.name or path.name.endswith(DELETING))


def clean(directory: Path, number: int | None = None) -> None:
    """Removes leftovers, as far as that can be done: all, or those of one step."""
    for path in leftovers(directory):
        if number is None or path.name.split(".")[0] == str(number):
            with contextlib.suppress(OSError):
                _delete(path)


def quarantine(directory: Path, number: int, kind: str, reason: str) -> Path:
    """Moves a step to quarantine/NUMBER-KIND, with its reason in a file beside it; returns where it is now.

    Raises UserError where that cannot be done.
    """
    away = directory / QUARANTINE
    target, again = away / f"{number}-{kind}", 1
    while os.path.lexists(target):
        again += 1
        target = away / f"{number}-{kind}-{again}"
    try:
        away.mkdir(exist_ok=True)
        write_bytes(target.with_name(target.name + ".txt"), f"{reason}\n".encode(errors="backslashreplace"))
        (directory / str(number)).rename(target)
        sync_folder(directory)
    except OSError as error:
        raise UserError(
            f"checkpoint {directory / str(number)} is {kind} ({reason}) and cannot be moved to {away} "
            f"({error.strerror}): see that it can, or move it away yourself"
        ) from error
    return target


def quarantined(directory: Path) -> list[tuple[Path, str]]:
    """Returns (folder, reason) of all that is in quarantine, by name."""
    away = directory / QUARANTINE
    folders = sorted(path for path in away.iterdir() if path.is_dir()) if away.is_dir() else []
    reasons = [path.with_name(path.name + ".txt") for path in folders]
    return [
        (path, reason.read_text(errors="replace").strip() if reason.is_file() else "it is not known why")
        for path, reason in zip(folders, reasons, strict=True)
    ]


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on disk, where the file system can tell. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a mounted bucket has no folders
            raise
    finally:
        os.close(handle)
