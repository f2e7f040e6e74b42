"""Encoded images that were decoded once, by `convmixer_jax.prepare`: an array of each split that is mapped into memory.

    load = prefer_prepared("tiny_imagenet", load_tiny_imagenet, find_tiny_imagenet)
    examples = load(data_dir, "train")           # the array where it was made, else the images themselves

DATA_DIR/NAME.prepared has, for each split, SPLIT.npy, the pixels, uint8 [N, H, W, C], and SPLIT.npz: label int32 [N],
name str [N] and size int64 [N], bytes, of the encoded images; and prepared.json, which tells what they were made of.
"""

import dataclasses
import json
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.data.examples import EncodedImages, Examples, Origin, Stored
from convmixer_jax.errors import UserError

FORMAT = 1  # of the files, and of the way in which images are decoded into them
RECORD = "prepared.json"


@dataclasses.dataclass(frozen=True)
class SplitRecord:
    """What is known of a prepared split.

    source: digest of the encoded images. done: of them, from the first on, so many are decoded. pixels: SHA-256 of the
    pixels and labels, "" until all are.
    """

    source: str
    done: int = 0
    pixels: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of prepared arrays. archive: size and time of change of the one file they were made of, or None."""

    splits: Mapping[str, SplitRecord]
    archive: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the record's file."""
        return {"format": FORMAT} | dataclasses.asdict(self)


def prepared_folder(data_dir: Path, name: str) -> Path:
    """Returns where the arrays of the data set `name` lie."""
    return data_dir / f"{name}.prepared"


def read_record(folder: Path) -> Record | None:
    """Returns the folder's record, None where there is none that can be used."""
    try:
        record = json.loads((folder / RECORD).read_text())
        if record["format"] != FORMAT:
            return None
        splits = {split: SplitRecord(**values) for split, values in record["splits"].items()}
        return Record(splits, record["archive"] and tuple(record["archive"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def archive_facts(place: Path) -> tuple[int, int] | None:
    """Returns size and time of change, in nanoseconds, of an archive, None for a folder. Raises OSError."""
    about = place.stat()
    return (about.st_size, about.st_mtime_ns) if stat.S_ISREG(about.st_mode) else None


def prefer_prepared(
    name: str, load: Callable[[Path, str], EncodedImages], find: Callable[[Path], Path | None]
) -> Callable[[Path, str], Stored]:
    """Returns the loader of the data set `name`: of the arrays, where it was prepared, else `load`.

    load: (data_dir, split) to the encoded images. find: where in data_dir they are, None for nowhere: then the arrays
    stand for themselves. The loader raises UserError where the images are no longer those that were decoded.
    """

    def load_preferred(data_dir: Path, split: str) -> Stored:
        folder = prepared_folder(data_dir, name)
        try:
            there = folder.is_dir()
        except OSError as error:
            raise UserError(
                f"--data_dir {data_dir} cannot be read ({error.strerror}): name a folder that can"
            ) from error
        if not there:
            return load(data_dir, split)
        examples, place = load_prepared(folder, split, way_out(name, data_dir)), find(data_dir)
        if place is not None and not is_unchanged(folder, place):
            check_same_images(folder, split, load(data_dir, split), place, way_out(name, data_dir))
        return examples

    return load_preferred


def is_unchanged(folder: Path, place: Path) -> bool:
    """Whether the arrays were made of the archive at `place`, as one look at it says; False where it takes more."""
    record = read_record(folder)
    return record is not None and record.archive is not None and record.archive == archive_facts(place)


def check_same_images(folder: Path, split: str, images: EncodedImages, place: Path, way_out: str) -> None:
    """Raises UserError unless the arrays of a split were made of `images`, which are at `place`."""
    record = read_record(folder)
    if record is None or record.splits[split].source != images.digest():
        raise UserError(
            f"{folder} was made of other images than those in {place} (their names, sizes or labels differ): {way_out}"
        )


def way_out(name: str, data_dir: Path) -> str:
    """Returns the end of a message on what is wrong with the arrays."""
    return f"`python -m convmixer_jax.prepare {name} --data_dir {data_dir} --force` makes it anew; or delete it"


def load_prepared(folder: Path, split: str, way_out: str, compare: bool = True) -> Examples:
    """Returns a split, its pixels mapped into memory, read-only. Raises UserError, ending in `way_out`, if damaged.

    compare: whether the pixels must have the checksum of the record; else whoever asks looks at them.
    """
    record = read_record(folder)
    if record is None or split not in record.splits:
        raise UserError(f"{folder} has no {RECORD} of {split!r} in format {FORMAT}: {way_out}")
    try:
        image = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / f"{split}.npz", allow_pickle=False) as index:  # which compares its own checksums
            examples = Examples(image, index["label"], Origin(index["name"], index["size"]))
        whole = image.dtype == np.uint8 and image.ndim == 4 and len(image) == len(examples) and bool(image.size)
        # All of it is read, 1.2 GB of Tiny ImageNet in 0.7 s: less than training on what a disk has damaged.
        if not whole or (compare and Examples(image, examples.label).digest() != record.splits[split].pixels):
            raise ValueError(f"{split} is not what {RECORD} says")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{folder} is damaged or not readable ({error}): {way_out}") from error
    return examples
