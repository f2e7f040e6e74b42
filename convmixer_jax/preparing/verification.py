"""Every image of a data set is read and decoded, as a run does it, and each one that is bad is listed.

    bad = verify(Request("tiny_imagenet", data_dir))         # lines on standard output; the number of bad images

Warned of, and not counted: an image under two labels, and one that is in both splits, by the bytes of their files.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from convmixer_jax.data.bad_examples import fault
from convmixer_jax.data.datasets import find_dataset, open_split
from convmixer_jax.data.examples import EncodedImages, Examples
from convmixer_jax.data.host_batches import HostBatches, in_memory
from convmixer_jax.data.sources.prepared import (
    check_same_images,
    load_prepared,
    prepared_folder,
    way_out,
)
from convmixer_jax.data.sources.record_index import UnusableShardsError
from convmixer_jax.data.sources.records import RecordImages, damaged_shards
from convmixer_jax.errors import UserError
from convmixer_jax.preparing.counting import Counting
from convmixer_jax.preparing.preparations import find_preparation
from convmixer_jax.preparing.repeated import HASH_BYTES, Fingerprints, repeated
from convmixer_jax.preparing.requests import Request
from convmixer_jax.runs.progress import printable, show

_AT_ONCE = 200  # images of a batch


@dataclasses.dataclass(frozen=True)
class _Hashed(EncodedImages):
    """Images whose bytes are hashed, SHA-1, when they are read. sha1: uint8 [N, 20], filled by that."""

    images: EncodedImages
    sha1: np.ndarray

    def take(self, indices: np.ndarray) -> EncodedImages:
        """Returns the examples at `indices`, which are not hashed again."""
        return self.images.take(indices)

    def read(self, index: int) -> bytes:
        """Returns the bytes of the image at `index`; raises OSError."""
        content = self.images.read(index)
        self.sha1[index] = _sha1(content)
        return content

    def called(self, index: int) -> str:
        """Returns what a message calls the image at `index`."""
        return self.images.called(index)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields name and size in bytes of every image."""
        return self.images.sizes()


def _sha1(content: bytes) -> np.ndarray:
    return np.frombuffer(hashlib.sha1(content, usedforsecurity=False).digest(), np.uint8)


def verify(request: Request) -> int:
    """Looks at every image of both splits. Returns how much is bad: images, shards, and splits that cannot be opened.

    Raises UserError where neither split can be opened.
    """
    find_source = find_preparation(request.name).source
    dataset = find_dataset(request.name, request.data_dir)
    bad, total, seen = 0, 0, []
    told: set[str] = set()  # of shards, which both splits may share
    unopened = []
    for split in ("train", "test"):
        try:
            source = find_source(request.data_dir, split) if find_source else None
            stored = source or open_split(dataset, split, request.data_dir)
            arrays = _prepared(request, split, source) if source else None
        except UnusableShardsError as error:
            bad += _list(list(error.each()) or [str(error)], told)
            continue
        except UserError as error:
            unopened.append(error)
            continue
        if isinstance(stored, EncodedImages):
            found, fingerprints = _verify_images(split, stored, arrays)
        else:
            found, fingerprints = 0, _fingerprints_of_arrays(split, stored)
        if isinstance(stored, RecordImages):
            found += _list(damaged_shards(stored), told)
        bad, total = bad + found, total + len(stored)
        seen.append(fingerprints)
    if len(unopened) == 2:
        raise unopened[0]
    bad += _list(map(str, unopened), told)
    lines = repeated(seen, dataset.class_names) if seen else []
    _list(lines, told)
    show(
        f"{request.name}: {f'{bad:,} bad' if bad else 'no bad image'} of {total:,}; "
        f"{len(lines):,} images are there under several labels or in both splits"
    )
    return bad


def _list(lines: Iterable[str], told: set[str]) -> int:
    """Shows the lines that are not among `told`, and adds them to it. Returns how many."""
    before = len(told)
    for line in lines:
        if line not in told:
            told.add(line)
            show(printable(line))
    return len(told) - before


def _prepared(request: Request, split: str, images: EncodedImages) -> Examples | None:
    """Returns the arrays that were decoded from the images, None where none were. Raises UserError for others."""
    folder, way = prepared_folder(request.data_dir, request.name), way_out(request.name, request.data_dir)
    if not folder.is_dir():
        return None
    check_same_images(folder, split, images, request.data_dir, way)
    return load_prepared(folder, split, way, compare=False)


def _fingerprints_of_arrays(split: str, examples: Examples) -> Fingerprints:
    """Returns the fingerprints of arrays that have no images beside them; their checksum was compared when opened."""
    sha1 = np.array([_sha1(image.tobytes()) for image in examples.image]).reshape(-1, HASH_BYTES)
    return Fingerprints(split, sha1, examples.label, lambda index: f"{split} image {index}")


def _verify_images(split: str, images: EncodedImages, arrays: Examples | None) -> tuple[int, Fingerprints]:
    """Lists the images that cannot be read or decoded, and those that `arrays` has with other pixels."""
    hashed = _Hashed(
        images,
        np.zeros((len(images), HASH_BYTES), np.uint8),
        label=images.label,
        image_shape=images.image_shape,
        crop_pct=images.crop_pct,
    )
    bad = 0
    with Counting(f"verifying {split}", len(images)) as counting:
        for indices, pixels, faults in _decoded(hashed):
            lines = {index: f"{images.called(index)} {wrong}" for index, wrong in faults.items()}
            if arrays is not None and len(indices):
                differ = indices[(arrays.image[indices] != pixels).any(axis=(1, 2, 3))]
                lines |= {index: f"{images.called(index)} has other pixels in the prepared array" for index in differ}
            for index in sorted(lines):
                show(printable(lines[index]))
            bad += len(lines)
            counting.advance(len(indices) + len(faults))
    return bad, Fingerprints(split, hashed.sha1, images.label, images.called)


def _decoded(images: EncodedImages) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, str]]]:
    """Yields, part by part in their order, the images that can be used: indices and pixels; and what is wrong with
    each of the others, by index.
    """
    starts, number = range(0, len(images), _AT_ONCE), 0

    def indices(number: int) -> np.ndarray:
        return np.arange(starts[number], min(starts[number] + _AT_ONCE, len(images)))

    while number < len(starts):
        try:
            with contextlib.closing(HostBatches(images, indices, range(number, len(starts)))) as batches:
                for batch in batches:
                    yield indices(number), batch["image"], {}
                    number += 1
        except UserError:
            faults = {index: wrong.words for index in indices(number).tolist() if (wrong := fault(images, index))}
            if not faults:  # it could be read the second time
                raise
            good = np.setdiff1d(indices(number), list(faults))
            pixels = in_memory(images.take(good)).image if len(good) else np.zeros((0, *images.image_shape), np.uint8)
            yield good, pixels, faults
            number += 1
