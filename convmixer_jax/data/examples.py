"""A split as it is stored: arrays in memory, or encoded images that are found one by one.

Both have `label`, a length, `take`, and a `digest` by which a resumed run knows its data.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from convmixer_jax.errors import UserError

_READ_BYTES = 1 << 16  # in a call of the system: most of an image; more would be asked of the system each time

Answer = TypeVar("Answer")

SAMPLE_BYTES = 64  # of a file that a digest looks into
# Of files whose sizes are asked for at once, and how many each thread asks for in one go: on a network disk each
# answer is a wait of half a millisecond.
_FILE_THREADS = 32
_FILES_IN_GO = 500


@dataclasses.dataclass(frozen=True)
class Origin:
    """The encoded images that examples were decoded from: name str [N], seen from the data set's folder, and size.

    size: int64 [N], in bytes.
    """

    name: np.ndarray
    size: np.ndarray

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields name and size in bytes of every image."""
        return zip(self.name.tolist(), self.size.tolist(), strict=True)


@dataclasses.dataclass(frozen=True)
class Examples:
    """A split in memory, or mapped into it: image uint8 [N, H, W, C], label int32 [N].

    origin: what was decoded, where the digest is to be that of the encoded images; None for arrays in their own right.
    """

    image: np.ndarray
    label: np.ndarray
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.image.shape[1:]

    def take(self, indices: np.ndarray) -> "Examples":
        """Returns the examples at `indices`, copied."""
        origin = self.origin and Origin(self.origin.name[indices], self.origin.size[indices])
        return Examples(self.image[indices], self.label[indices], origin)

    def digest(self) -> str:
        """Returns the SHA-256 of all pixels and labels in their order, in hexadecimal; with an origin, that of it."""
        if self.origin is not None:
            return _digest_of_files(((*file, b"") for file in self.origin.sizes()), self.label)
        sha = hashlib.sha256(np.ascontiguousarray(self.image).data)
        sha.update(np.ascontiguousarray(self.label, dtype="<i4").data)
        return sha.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedImages(abc.ABC):
    """A split as encoded images (JPEG, PNG, ...) of any size, read as (H, W, C) = image_shape (see decode.py).

    label: int32 [N]. crop_pct: share of the shorter side of an image of another size that is looked at.
    A kind of storage says how the bytes of an image are found, directly and from any thread, and what it is called.
    """

    label: np.ndarray
    image_shape: tuple[int, int, int]
    crop_pct: float = 1.0

    def __len__(self) -> int:
        return len(self.label)

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> "EncodedImages":
        """Returns the examples at `indices`."""

    @abc.abstractmethod
    def read(self, index: int) -> bytes:
        """Returns the encoded image at `index`. Any thread may call it.

        Raises OSError where it cannot be read: EBADMSG where its bytes are there but are not those that were stored,
        which no other try will change.
        """

    @abc.abstractmethod
    def called(self, index: int) -> str:
        """Returns what a message calls the image at `index`: its file, and its place in there."""

    @abc.abstractmethod
    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields of every image what it is called seen from the data set's folder, and its size in bytes.

        Neither depends on where the folder lies. Raises UserError for a file that is missing.
        """

    def digest(self) -> str:
        """Returns the SHA-256 of all names, sizes in bytes and labels in their order, in hexadecimal.

        It is the same wherever the data set lies, and quick, since no image is opened: other bytes of the same number
        are not noticed. Raises UserError for a file that is missing.
        """
        return _digest_of_files(((*file, b"") for file in self.sizes()), self.label)


def _digest_of_files(files: Iterable[tuple[str, int, bytes]], label: np.ndarray) -> str:
    """Returns the digest of names, sizes, samples of the files' bytes, which may be empty, and labels."""
    sha = hashlib.sha256()
    for name, size, sample in files:
        sha.update(f"{name}\0{size}\n".encode() + sample)
    sha.update(np.ascontiguousarray(label, dtype="<i4").data)
    return sha.hexdigest()


@dataclasses.dataclass(frozen=True)
class ImageFiles(EncodedImages):
    """One file for each image.

    folder: of the data set. name: the files as seen from there, with "/": bytes [N], in UTF-8, which take a quarter of
    the memory of str [N]; those are encoded. digest_looks_inside: whether the digest knows some bytes of each file, as
    it must where names and sizes do not tell files apart; it takes twice the time.
    """

    folder: Path
    name: np.ndarray
    digest_looks_inside: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.name.dtype.kind == "U":
            object.__setattr__(self, "name", np.strings.encode(self.name, "utf-8"))

    def take(self, indices: np.ndarray) -> "ImageFiles":
        """Returns the examples at `indices`."""
        return dataclasses.replace(self, name=self.name[indices], label=self.label[indices])

    def read(self, index: int) -> bytes:
        """Returns the bytes of the file at `index`; raises OSError."""
        # Three calls of the system: each lets other threads have the interpreter, and takes its time to get it back.
        descriptor = os.open(b"%b/%b" % (os.fsencode(self.folder), self.name[index]), os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = part = os.read(descriptor, _READ_BYTES)
            while len(part) == _READ_BYTES:
                part = os.read(descriptor, _READ_BYTES)
                content += part
        finally:
            os.close(descriptor)
        return content

    def called(self, index: int) -> str:
        """Returns the path of the file at `index`."""
        return f"{self.folder}/{self.name[index].decode()}"

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields name and size in bytes of every file. Raises UserError for one that is missing."""
        yield from zip(self._names(), self._of_each(lambda path: os.stat(path).st_size), strict=True)

    def digest(self) -> str:
        """Returns the SHA-256 of all names, sizes in bytes and labels in order, and some bytes of each, if so said.

        These are SAMPLE_BYTES in its middle. Raises UserError for a file that is missing.
        """
        if not self.digest_looks_inside:
            return super().digest()
        sampled = zip(self._names(), self._of_each(_sampled), strict=True)
        return _digest_of_files(((name, *facts) for name, facts in sampled), self.label)

    def _names(self) -> Iterator[str]:
        return (name.decode() for name in self.name.tolist())

    def _of_each(self, ask: Callable[[bytes], Answer]) -> Iterator[Answer]:
        """Yields what `ask` tells of the path of every file, asked in several threads."""
        parts = np.split(self.name, range(_FILES_IN_GO, len(self.name), _FILES_IN_GO))
        with concurrent.futures.ThreadPoolExecutor(_FILE_THREADS) as pool:
            try:
                for answers in pool.map(functools.partial(self._of_part, ask), parts):
                    yield from answers
            finally:
                pool.shutdown(cancel_futures=True)

    def _of_part(self, ask: Callable[[bytes], Answer], names: np.ndarray) -> list[Answer]:
        folder, answers = os.fsencode(self.folder), []
        for name in names.tolist():
            path = b"%b/%b" % (folder, name)  # a Path of each would take longer than asking for its size
            try:
                answers.append(ask(path))
            except OSError as error:
                raise UserError(
                    f"{os.fsdecode(path)} cannot be read ({error.strerror}): put it back, or take it anew"
                ) from error
        return answers


def _sampled(path: bytes) -> tuple[int, bytes]:
    """Returns a file's size and SAMPLE_BYTES in its middle; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        return size, os.pread(descriptor, SAMPLE_BYTES, max(0, (size - SAMPLE_BYTES) // 2))
    finally:
        os.close(descriptor)


Stored = Examples | EncodedImages
