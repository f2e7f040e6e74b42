"""What a finished run holds, to compare two of them to the bit.

problems = differences(read_contents(workdir), read_contents(undisturbed))
"""

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.runs import steps
from convmixer_jax.runs.files import read_json
from convmixer_jax.runs.manifest import named_leaves
from convmixer_jax.runs.metrics_log import parse_row
from convmixer_jax.runs.reading import CheckpointReader

# Of result.json: how fast and how large the machine was.
OF_THE_MACHINE = ("seconds", "images_per_sec", "peak_")
_reading = threading.Lock()  # trials run in threads, and nobody promises that Orbax may be called by several


@dataclasses.dataclass(frozen=True)
class Contents:
    """step: of the last checkpoint. arrays: by name, dtype, shape and bytes of parameters, statistics, optimiser,
    moving averages, counts and sums. rows: of metrics.jsonl. result: of result.json.
    """

    step: int
    arrays: dict[str, tuple[str, tuple[int, ...], bytes]]
    rows: list[dict[str, Any]]
    result: dict[str, Any]


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl without how fast the machine was, and without those of failed saves."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [parse_row(line) or {"unreadable": line} for line in lines]
    return [
        {name: value for name, value in row.items() if not name.startswith("perf/")}
        for row in rows
        if "save/failed" not in row
    ]


def read_result(workdir: Path) -> dict[str, Any]:
    """Returns the object of result.json without how fast and how large the machine was."""
    result = read_json(workdir / "result.json") or {}
    return {name: value for name, value in result.items() if not any(part in name for part in OF_THE_MACHINE)}


def damage(checkpoints: Path) -> dict[int, str]:
    """Reads every checkpoint of a folder whole; returns by step what is found to be wrong with one."""
    reader, wrong = CheckpointReader(checkpoints), {}
    for step in steps.read_steps(checkpoints):
        if step.trouble is not None:
            wrong[step.number] = step.trouble
            continue
        try:
            _read(reader, step.number)
        except steps.DamagedError as error:
            wrong[step.number] = error.reason
    return wrong


def _read(reader: CheckpointReader, step: int) -> dict[str, Any]:
    with _reading:
        return reader.restore_groups(step, reader.groups(step))


def read_contents(workdir: Path) -> Contents:
    """Reads a run that is finished. Raises DamagedError, OSError, ValueError where it is not, or not whole."""
    reader = CheckpointReader(workdir / "checkpoints")
    step = max(reader.steps())
    leaves = ((name, np.asarray(leaf)) for name, leaf in named_leaves(_read(reader, step)))
    arrays = {name: (str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in leaves}
    return Contents(step, arrays, read_rows(workdir), read_result(workdir))


def differences(found: Contents, wanted: Contents) -> list[str]:
    """Returns what differs, in a few words each."""
    told = []
    if found.step != wanted.step:
        told.append(f"the last checkpoint is {found.step}, not {wanted.step}")
    names = sorted(found.arrays.keys() | wanted.arrays.keys())
    if wrong := [name for name in names if found.arrays.get(name) != wanted.arrays.get(name)]:
        told.append(f"{len(wrong)} of {len(names)} arrays differ: {', '.join(wrong[:3])}")
    if found.rows != wanted.rows:
        told.append(f"metrics.jsonl differs: {_first_difference(found.rows, wanted.rows)}")
    if found.result != wanted.result:
        told.append(f"result.json differs: {json.dumps(found.result)} is not {json.dumps(wanted.result)}")
    return told


def _first_difference(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> str:
    for row, other in zip(found, wanted, strict=False):
        if row != other:
            return f"{json.dumps(row)} is not {json.dumps(other)}"
    return f"{len(found)} rows, not {len(wanted)}"
