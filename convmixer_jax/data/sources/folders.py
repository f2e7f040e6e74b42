"""What the folders of a data set hold beside what they must hold; whatever is wrong is named, with the way out.

check_folder(data_dir / "train/n01440764", expected, "unpack the archive anew")
"""

import os
from collections.abc import Iterable
from pathlib import Path

from convmixer_jax.errors import UserError

_NAMED = 3  # of the names that a message could list


def names_in(folder: Path, way_out: str) -> list[str]:
    """Returns the names in a folder, in no order. Raises UserError where it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): {way_out}") from error


def check_folder(folder: Path, expected: Iterable[str], way_out: str) -> None:
    """Raises UserError unless the folder holds the expected names and nothing else."""
    check_same(folder, names_in(folder, way_out), expected, way_out)


def check_same(where: Path, found: Iterable[str], expected: Iterable[str], way_out: str) -> None:
    """Raises UserError unless `found` has each of the expected names once, in any order. where: begins the message."""
    if wrong := difference(found, expected):
        raise UserError(f"{where} {wrong}: {way_out}")


def difference(found: Iterable[str], expected: Iterable[str]) -> str:
    """Returns what `found` lacks, has too much or has twice, in words; "" where it has each of `expected` once."""
    found, wanted = list(found), set(expected)
    seen = set(found)
    twice = {name for name in seen if found.count(name) > 1} if len(seen) < len(found) else set()
    parts = [("lacks", wanted - seen), ("has, beside what belongs there,", seen - wanted), ("has twice", twice)]
    return " and ".join(f"{words} {_listed(names)}" for words, names in parts if names)


def _listed(names: set[str]) -> str:
    shown = sorted(names, key=lambda name: (len(name), name))[:_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")
