"""List and verify the checkpoints of a run: `python -m convmixer_jax.checkpoints runs/cifar10 --verify`.

Changes nothing, and takes no accelerator. Without --verify only manifests are looked at; with it every file and every
array is compared with them. Exit code 2 where a checkpoint is bad. A run may be active in the folder: what it removes
meanwhile is left out, and a save that is under way is not called bad.
"""

import argparse
import contextlib
import dataclasses
import datetime
import fcntl
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convmixer_jax.command_line import home_expanded
from convmixer_jax.commands import Parser, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs import steps
from convmixer_jax.runs.files import to_json
from convmixer_jax.runs.progress import show

MOST_LOOKS = 10  # at a folder all of whose checkpoints are removed meanwhile
COLUMNS = ("step", "time", "size", "is", "state")


@dataclasses.dataclass(frozen=True)
class Row:
    """A checkpoint. roles: "newest", "best". good: None where nothing can be said, see `state`."""

    step: int
    time: str
    bytes: int
    roles: list[str]
    val_top1: float | None
    good: bool | None
    state: str


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("convmixer_jax.checkpoints", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workdir", metavar="WORKDIR", help="the run's folder, in use or not")
    parser.add_argument("--verify", action="store_true", help="read and compare everything; needs memory for a state")
    parser.add_argument("--json", action="store_true", help="the last line is one object")
    return parser


def written(step: steps.Step) -> str:
    """Returns when a step was written (UTC); "?" where the clock of whoever wrote it was too far off to say."""
    if step.record is not None:
        return str(step.record["time"])
    try:
        moment = datetime.datetime.fromtimestamp(step.folder.stat().st_mtime, datetime.UTC)
    except (ValueError, OverflowError):
        return "?"
    return moment.isoformat(timespec="seconds")


def is_in_use(workdir: Path) -> bool:
    """Whether a run holds the workdir's lock now."""
    try:
        with (workdir / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run was ever there, or nobody can hold a lock there
        return False
    return False


def judge(step: steps.Step, damage: str | None, verified: bool, under_way: bool) -> tuple[bool | None, str]:
    """Returns (good, state).

    damage: what --verify found. verified: whether it was asked for. under_way: whether the step is the newest of a run
    that is active, which may be about to give it its manifest.
    """
    if step.kind == steps.INTERRUPTED and under_way:
        return None, "its save is under way"
    trouble = damage or step.trouble
    if trouble:
        return False, f"{step.kind or steps.DAMAGED}: {trouble}"
    if step.record is None:
        return None, f"{'readable, but ' if verified else ''}not verified: written before manifests"
    return True, "verified" if verified else "verified when it was written"


def find_damage(directory: Path, found: Sequence[steps.Step]) -> dict[int, str]:
    """Reads all of these steps; returns by number what is wrong with one."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # the run itself may have the accelerator
    start_jax(compilation_cache=False)
    from convmixer_jax.runs.checkpoint import Checkpoints

    checkpoints, damage = Checkpoints(directory, read_only=True), {}
    for step in found:
        try:
            checkpoints.verify(step.number)
        except steps.DamagedError as error:
            damage[step.number] = error.reason
    checkpoints.close()
    return damage


def examine(directory: Path, verify: bool) -> list[Row]:
    """Returns a row for each checkpoint, ascending."""
    for _ in range(MOST_LOOKS):
        found = steps.read_steps(directory)
        rows = judge_all(directory, found, verify)
        if rows or not found:
            return rows
    raise UserError(
        f"an active run removes the checkpoints in {directory} while they are looked at: raise its "
        "config.keep_checkpoints, or wait until it ends"
    )


def judge_all(directory: Path, found: Sequence[steps.Step], verify: bool) -> list[Row]:
    """Returns a row for each of these checkpoints that is still there."""
    damage = find_damage(directory, found) if verify and found else {}
    found = [step for step in found if step.folder.is_dir()]  # a run may have removed some meanwhile
    good = [step for step in found if step.trouble is None and step.number not in damage]
    newest, best = (good[-1] if good else None), steps.best(good)
    active = any(step.kind == steps.INTERRUPTED for step in found) and is_in_use(directory.parent)
    rows = []
    for step in found:
        roles = [name for name, one in (("newest", newest), ("best", best)) if one is step]
        verdict = judge(step, damage.get(step.number), verify, active and step is found[-1])
        with contextlib.suppress(FileNotFoundError):  # removed just now
            rows.append(Row(step.number, written(step), step.bytes, roles, step.score, *verdict))
    return rows


def show_rows(rows: Sequence[Row]) -> None:
    """Prints a table."""
    cells = [
        (str(row.step), row.time, f"{row.bytes / 1e6:.2f} MB", ", ".join(row.roles) or "-", row.state) for row in rows
    ]
    widths = [max(len(line[column]) for line in [COLUMNS, *cells]) for column in range(len(COLUMNS))]
    for line in [COLUMNS, *cells]:
        tell("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def tell(line: str) -> None:
    """Prints a line in which there may be names of files that are no text."""
    show(line.encode(errors="backslashreplace").decode())


def run(argv: Sequence[str] | None) -> ExitCode:
    """Does what the command line asks for; raises UserError."""
    flags = make_parser().parse_args(argv)
    directory = home_expanded(flags.workdir, "WORKDIR") / "checkpoints"
    rows = examine(directory, flags.verify)
    aside, left = steps.quarantined(directory), steps.leftovers(directory)
    if not rows and not aside and not left:
        raise UserError(f"{flags.workdir} has no checkpoint: name a run's folder, or train first")
    show_rows(rows)
    for folder, reason in aside:
        tell(f"in quarantine: {folder} ({reason})")
    active = bool(left) and is_in_use(directory.parent)
    for folder in left:
        if active:
            tell(f"of a save or deletion under way, or left over from one: {folder}")
        else:
            tell(f"left over from an interrupted save or deletion: {folder} (removed when training goes on)")
    if flags.json:
        answer: dict[str, Any] = {
            "checkpoints": [dataclasses.asdict(row) for row in rows],
            "quarantine": [{"folder": str(folder), "reason": reason} for folder, reason in aside],
            "leftovers": [str(folder) for folder in left],
        }
        show(json.dumps(to_json(answer), allow_nan=False))
    return ExitCode.USER_MISTAKE if any(row.good is False for row in rows) else ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv))


if __name__ == "__main__":
    end_process(main())
