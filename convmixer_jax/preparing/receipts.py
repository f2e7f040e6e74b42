"""What was checked is remembered, DATA_DIR/.prepared/NAME.json, for as long as the files are the same.

facts = file_facts(data_dir, ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
if (lines := remembered(data_dir, "cifar10", facts)) is None:
    remember(data_dir, "cifar10", facts, lines)
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import read_json, write_json

_FORMAT = 1  # of receipts, and of the checks that they stand for

Facts = dict[str, list[int]]  # size in bytes and time of change in nanoseconds, by path


def file_facts(data_dir: Path, places: Iterable[str]) -> Facts:
    """Returns the facts of the files at and below the places, those of data_dir that there are. Raises OSError."""
    facts = {}
    for place in places:
        for path in _files(data_dir / place):
            about = path.stat()
            facts[str(path.relative_to(data_dir))] = [about.st_size, about.st_mtime_ns]
    return facts


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, _, names in os.walk(place):
        yield from (Path(folder) / name for name in sorted(names))


def _receipt(data_dir: Path, name: str) -> Path:
    return data_dir / ".prepared" / f"{name}.json"


def remembered(data_dir: Path, name: str, facts: Facts) -> list[str] | None:
    """Returns what was told when the files were checked, None where they were not, or are others now."""
    try:
        receipt = read_json(_receipt(data_dir, name)) or {}
    except UserError:  # a damaged receipt is as good as none
        return None
    if not facts or receipt.get("format") != _FORMAT or receipt.get("files") != facts:
        return None
    lines = receipt.get("lines")
    return lines if isinstance(lines, list) else None


def remember(data_dir: Path, name: str, facts: Facts, lines: list[str]) -> None:
    """Writes the receipt. lines: what is told of the data. Raises OSError."""
    path = _receipt(data_dir, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": _FORMAT, "files": facts, "lines": lines})
