"""Encoded images of one size are decoded once, into arrays that a run maps into its memory (see sources/prepared.py).

    decode(prepared_folder(data_dir, "tiny_imagenet"), {"train": files, "test": others}, archive=None)

What is decoded is kept, chunk by chunk, in a folder beside the final one, together with how far it is: whatever ends
the process, the next one goes on from there. The folder gets its name when all is there.
"""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from convmixer_jax.data.examples import EncodedImages, Examples
from convmixer_jax.data.host_batches import HostBatches
from convmixer_jax.data.sources.prepared import RECORD, Record, SplitRecord, read_record
from convmixer_jax.data.sources.publishing import flush, publish
from convmixer_jax.errors import UserError
from convmixer_jax.preparing.counting import Counting
from convmixer_jax.runs.files import write_json

CHUNK = 1_000  # images between two marks of how far it is


def decode(folder: Path, splits: Mapping[str, EncodedImages], archive: tuple[int, int] | None) -> None:
    """Makes `folder`, of which nothing is there or what is there is replaced, out of the images of each split.

    archive: see Record. One process at a time may call it. Raises UserError where an image is damaged, and where the
    disk is full: what is decoded stays.
    """
    part = folder.with_name(f"{folder.name}.part")
    sources = {split: images.digest() for split, images in splits.items()}
    try:
        record = _begun(part, splits, sources)
        _check_space(part, splits, record)
        for split, images in splits.items():
            record = _decode_split(part, split, images, record)
        write_json(part / RECORD, dataclasses.replace(record, archive=archive).to_json())
        _replace(part, folder)
    except OSError as error:
        left = "what is decoded stays; " if part.exists() else ""
        raise UserError(
            f"{part} cannot be written ({error.strerror}): {left}see that you may write {_gigabytes(splits)} GB there "
            "in all, and run again to go on"
        ) from error


def _begun(part: Path, splits: Mapping[str, EncodedImages], sources: Mapping[str, str]) -> Record:
    """Returns how far the folder is; begins a new one where there is none of the same images."""
    record = read_record(part)
    if record is not None and {split: each.source for split, each in record.splits.items()} == sources:
        return record
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    for split, images in splits.items():
        names, sizes = zip(*images.sizes(), strict=True)
        with open(part / f"{split}.npz", "wb") as index:
            np.savez(index, label=images.label, name=np.array(names), size=np.array(sizes, np.int64))
            index.flush()
            os.fsync(index.fileno())
        with open(part / f"{split}.npy", "wb") as pixels:
            _write_header(pixels, images)
    record = Record({split: SplitRecord(source) for split, source in sources.items()})
    write_json(part / RECORD, record.to_json())
    return record


def _write_header(file: BinaryIO, images: EncodedImages) -> None:
    shape = (len(images), *images.image_shape)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _check_space(part: Path, splits: Mapping[str, EncodedImages], record: Record) -> None:
    """Raises UserError where the disk has no room for what is not decoded yet."""
    needed = sum((len(each) - record.splits[split].done) * _image_bytes(each) for split, each in splits.items())
    free = shutil.disk_usage(part).free
    if free < needed:
        raise UserError(
            f"{part} needs {needed / 1e9:.2f} GB more and its disk has {free / 1e9:.2f} GB free: free some or choose "
            "another --data_dir, and run again to go on"
        )


def _image_bytes(images: EncodedImages) -> int:
    return int(np.prod(images.image_shape))


def _gigabytes(splits: Mapping[str, EncodedImages]) -> str:
    return f"{sum(len(images) * _image_bytes(images) for images in splits.values()) / 1e9:.2f}"


def _decode_split(part: Path, split: str, images: EncodedImages, record: Record) -> Record:
    """Decodes what is not yet, and marks after each chunk how far it is. Returns the record."""
    done, path = record.splits[split].done, part / f"{split}.npy"

    def mark(**changes: int | str) -> None:
        nonlocal record
        changed = dataclasses.replace(record.splits[split], **changes)  # type: ignore[arg-type]
        record = dataclasses.replace(record, splits={**record.splits, split: changed})
        write_json(part / RECORD, record.to_json())

    with open(path, "r+b") as file, Counting(f"decoding {split}", len(images), done) as counting:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        # Written and not mapped: on a full disk that is an error, and not the end of the process.
        file.seek(done * _image_bytes(images), os.SEEK_CUR)
        file.truncate()
        if done < len(images):
            starts = range(done, len(images), CHUNK)
            batches = HostBatches(
                images,
                lambda number: np.arange(starts[number], min(starts[number] + CHUNK, len(images))),
                range(len(starts)),
            )
            with contextlib.closing(batches):
                for batch in batches:
                    file.write(batch["image"].data)
                    file.flush()
                    os.fsync(file.fileno())
                    done += len(batch["image"])
                    mark(done=done)
                    counting.advance(len(batch["image"]))
    if not record.splits[split].pixels:
        mark(pixels=Examples(np.load(path, mmap_mode="r"), images.label).digest())
    return record


def _replace(part: Path, folder: Path) -> None:
    """Gives the folder its name; what had it before goes."""
    flush(part)
    before = folder.with_name(f"{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    publish(part, folder)
    shutil.rmtree(before, ignore_errors=True)
