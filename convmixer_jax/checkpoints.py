"""List and verify the checkpoints of a run: `python -m convmixer_jax.checkpoints runs/cifar10 --verify`.

Changes nothing, and takes no accelerator. Without --verify only manifests are looked at; with it every file and every
array is compared with them. Exit code 2 where a checkpoint is bad.
"""

import argparse
import dataclasses
import datetime
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
    """Returns when a step was written (UTC)."""
    if step.record is not None:
        return str(step.record["time"])
    return datetime.datetime.fromtimestamp(step.folder.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")


def judge(step: steps.Step, damage: str | None, verified: bool) -> tuple[bool | None, str]:
    """Returns (good, state). damage: what --verify found. verified: whether it was asked for."""
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
            checkpoints.restore_groups(step.number, checkpoints.groups(step.number))
        except steps.DamagedError as error:
            damage[step.number] = error.reason
    checkpoints.close()
    return damage


def examine(directory: Path, verify: bool) -> list[Row]:
    """Returns a row for each checkpoint, ascending."""
    found = steps.read_steps(directory)
    damage = find_damage(directory, found) if verify and found else {}
    good = [step for step in found if step.trouble is None and step.number not in damage]
    newest, best = (good[-1] if good else None), steps.best(good)
    rows = []
    for step in found:
        roles = [name for name, one in (("newest", newest), ("best", best)) if one is step]
        verdict = judge(step, damage.get(step.number), verify)
        rows.append(Row(step.number, written(step), step.bytes, roles, step.score, *verdict))
    return rows


def show_rows(rows: Sequence[Row]) -> None:
    """Prints a table."""
    cells = [
        (str(row.step), row.time, f"{row.bytes / 1e6:.2f} MB", ", ".join(row.roles) or "-", row.state) for row in rows
    ]
    widths = [max(len(line[column]) for line in [COLUMNS, *cells]) for column in range(len(COLUMNS))]
    for line in [COLUMNS, *cells]:
        show("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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
        show(f"in quarantine: {folder} ({reason})")
    for folder in left:
        show(f"left over from an interrupted save or deletion: {folder} (removed when training goes on)")
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
