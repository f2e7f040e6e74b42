"""Folders of empty files in which each class has a folder of its own."""

import json
from pathlib import Path

from convmixer_jax.data.datasets import Facts, find_dataset, from_record, to_record

# Files as they are seen from the folder, in an order of their own.
SPLIT = ("train/dog/2.JPG", "val/cat/1.png", "train/cat/b.png", "train/dog/10.jpg", "train/cat/a.png", "val/dog/x.gif")
TREE = tuple(f"{name}/{number:02}.png" for name in ("b", "a") for number in range(10))


def fill(folder: Path, names: tuple[str, ...] | list[str]) -> Path:
    """Makes empty files: only their names are looked at."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def recorded(folder: Path) -> Facts | None:
    """What a run that began with the folder wrote down."""
    name = f"folder:{folder}"
    return from_record(json.loads(json.dumps(to_record(name, find_dataset(name, Path())))), "here")
