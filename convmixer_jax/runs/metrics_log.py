"""metrics.jsonl, one JSON object per report, and the TensorBoard events made from it.

    log = MetricsLog(workdir, after_step=1000)
    log.write({"step": 1050, "train/loss": 1.2})
    log.flush()

The JSON lines are the record; the events are derived from them and rebuilt at every start. A disk that is full stops no
run: rows wait in memory until there is room, and what the events lack then is there after the next start.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.runs.events import EventsFile
from convmixer_jax.runs.files import NO_SPACE, Lines, to_json, write_bytes
from convmixer_jax.runs.wandb_writer import WandbWriter


def parse_row(line: str) -> dict[str, Any] | None:
    """Returns the row of one line; None where the line is not a whole row (torn by a crash, say)."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def rewind(workdir: Path, step: int) -> list[dict[str, Any]]:
    """Takes the rows after `step` out of metrics.jsonl and returns those that stay.

    They move to metrics.discarded.jsonl, with any line in the middle that cannot be read; a torn last line is
    dropped. The discarded file is on disk before the other one is replaced, so that no row is ever lost.
    """
    path = workdir / "metrics.jsonl"
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    lines = text.splitlines()
    parsed = [(line, parse_row(line)) for line in lines]
    if parsed and parsed[-1][1] is None:
        parsed.pop()
    kept = [(line, row) for line, row in parsed if row is not None and row["step"] <= step]
    discarded = [line for line, row in parsed if row is None or row["step"] > step]
    if discarded:
        with (workdir / "metrics.discarded.jsonl").open("a") as file:
            file.writelines(f"{line}\n" for line in discarded)
            file.flush()
            os.fsync(file.fileno())
    whole = "".join(f"{line}\n" for line, _ in kept)
    if whole != text:  # also where the last line break alone was torn off: the next row would be written behind it
        write_bytes(path, whole.encode())
    return [row for _, row in kept if row is not None]


class MetricsLog:
    """Appends rows to metrics.jsonl, to the events in tensorboard/, and to a project of Weights & Biases."""

    def __init__(self, workdir: Path, after_step: int, wandb_project: str = ""):
        """Rewinds the record to `after_step`, the step that the run goes on from (0 for a fresh one).

        wandb_project: "" for none. Raises UserError where rows cannot be sent there.
        """
        self._wandb = WandbWriter(workdir, wandb_project) if wandb_project else None
        rows = rewind(workdir, after_step)
        events = workdir / "tensorboard"
        shutil.rmtree(events, ignore_errors=True)
        self._events = EventsFile(events)
        self._lines = Lines(workdir / "metrics.jsonl")
        for row in rows:
            self._write_events(row)
            if self._wandb and self._wandb.fresh:
                self._wandb.write(_numbers(row), row["step"])

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row, which must have `step` (int). NaN becomes null in the JSON."""
        self._lines.append(json.dumps(to_json(row)))
        with _or_no_space():
            self._write_events(row)
        if self._wandb:
            self._wandb.write(_numbers(row), row["step"])

    def _write_events(self, row: dict[str, Any]) -> None:
        self._events.write_scalars(_numbers(row), row["step"])
        self._events.flush()

    def write_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Adds an image, uint8 [H, W, 3], to the events."""
        self._events.write_image(name, image, step)

    def flush(self) -> None:
        """Returns when every row so far is on disk, where there is room for it."""
        self._lines.sync()

    def close(self) -> None:
        """Flushes and closes both."""
        self.flush()
        self._lines.close()
        with _or_no_space():
            self._events.close()
        if self._wandb:
            self._wandb.close()


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """Returns the points of curves that a row holds. A tag says which split it was taken from: eval/test/top1."""
    split = row.get("eval/split")
    tags = {name.replace("eval/", f"eval/{split}/") if split else name: value for name, value in row.items()}
    return {tag: value for tag, value in tags.items() if isinstance(value, int | float) and tag != "step"}


@contextlib.contextmanager
def _or_no_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
