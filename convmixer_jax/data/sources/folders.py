"""What the folders of a data set hold beside what they must hold; whatever is wrong is named, with the way out.

check_folder(data_dir / "train/n01440764", expected, "unpack the archive anew")
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from convmixer_jax.data.sources.zipped import ZippedFolder
from convmixer_jax.errors import UserError

_NAMED = 3  # of the names that a message could list


def names_in(folder: Path | ZippedFolder, way_out: str) -> list[str]:
    """Returns the names in a folder, in no order. Raises UserError where it cannot be read."""
    try:
        return os.listdir(folder) if isinstance(folder, Path) else folder.names()
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): {way_out}") from error


def check_folder(folder: Path | ZippedFolder, expected: Iterable[str], way_out: str) -> None:
    """Raises UserError unless the folder holds the expected names and nothing else."""
    check_same(folder, names_in(folder, way_out), expected, way_out)


def check_same(where: Path | ZippedFolder, found: Iterable[str], expected: Iterable[str], way_out: str) -> None:
    """Raises UserError unless `found` has each of the expected names once, in any order. where: begins the message."""
    if wrong := difference(found, expected):
        raise UserError(f"{where} {wrong}: {way_out}")


def difference(found: Iterable[str], expected: Iterable[str]) -> str:
    """Returns what `found` lacks, has too much or has twice, in words; "" where it has each of `expected` once."""
    times, wanted = Counter(found), set(expected)
    seen = times.keys()
    twice = {name for name, count in times.items() if count > 1}
    parts = [("lacks", wanted - seen), ("has, beside what belongs there,", seen - wanted), ("has twice", twice)]
    return " and ".join(f"{words} {listed(names)}" for words, names in parts if names)


def listed(names: Iterable[str]) -> str:
    """Returns the first names, by length and alphabet, and how many more there are, in words."""
    names = set(names)
    shown = sorted(names, key=lambda name: (len(name), name))[:_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else "")
