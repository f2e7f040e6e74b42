"""Encoded images within larger files: shards of records, archives. Each is read directly, from where it lies.

files = OpenFiles([data_dir / "tiny-imagenet-200.zip"])
images = PackedImages(
    files, file, offset, length, name, inflated, label=label, image_shape=(64, 64, 3)   # arrays [N]
)
images.read(17)
"""

import dataclasses
import errno
import functools
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from convmixer_jax.data.examples import EncodedImages

# Open at once, of each set of files: processes are often allowed no more than 1,024, and ImageNet has as many shards.
OPEN_AT_ONCE = 128


class _Descriptor:
    """An open file, closed when the last one who uses it lets go of it."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):  # it has none where the file could not be opened
            os.close(self.number)


class OpenFiles:
    """Files that are opened when they are first read, and by all threads. Not many stay open at once.

    paths: the files, by whose places they are named.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = tuple(paths)
        # What falls out of the cache is closed only after the threads that read it are done.
        self._open = functools.lru_cache(maxsize=OPEN_AT_ONCE)(_Descriptor)

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Returns `length` bytes of a file from byte `offset` on. Raises OSError, also where the file is shorter."""
        descriptor = self._open(self.paths[file])
        content = os.pread(descriptor.number, length, offset)
        while len(content) < length:  # network disks may give less at once
            more = os.pread(descriptor.number, length - len(content), offset + len(content))
            if not more:
                size = offset + len(content) if content else os.fstat(descriptor.number).st_size
                raise OSError(errno.EBADMSG, f"its file ends at byte {size:,} of {offset + length:,}")
            content += more
        return content


@dataclasses.dataclass(frozen=True)
class ImagesWithin(EncodedImages):
    """Images that lie within larger files.

    files: the larger files. file: int [N], which of them holds an image. offset, length: int64 [N], where its bytes
    begin, and how many are stored.
    """

    files: OpenFiles
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray

    def take(self, indices: np.ndarray) -> Self:
        """Returns the examples at `indices`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(
            self, **{name: value[indices] for name, value in values.items() if isinstance(value, np.ndarray)}
        )

    def path(self, index: int) -> Path:
        """Returns the file that holds the image at `index`."""
        return self.files.paths[self.file[index]]

    def read(self, index: int) -> bytes:
        """Returns the bytes stored for the image at `index`; raises OSError."""
        return self.files.read(int(self.file[index]), int(self.offset[index]), int(self.length[index]))


@dataclasses.dataclass(frozen=True)
class PackedImages(ImagesWithin):
    """Members of archives.

    name: str [N], what the images are called as seen from the folder that the archive would be unpacked to.
    inflated: int64 [N], the bytes of an image that is stored compressed, as zip does it (raw deflate); -1 for one that
    is stored as it is.
    """

    name: np.ndarray
    inflated: np.ndarray

    def read(self, index: int) -> bytes:
        """Returns the bytes of the image at `index`, unpacked; raises OSError, also where they cannot be unpacked."""
        stored, size = super().read(index), int(self.inflated[index])
        if size < 0:
            return stored
        try:
            content = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(stored, size + 1)  # no more, whatever it is
        except zlib.error as error:
            raise OSError(errno.EBADMSG, f"its compressed bytes are damaged: {error}") from error
        if len(content) != size:
            raise OSError(errno.EBADMSG, f"it is not the {size:,} bytes that the archive says when unpacked")
        return content

    def called(self, index: int) -> str:
        """Returns the name of the image at `index` and of the archive."""
        return f"{self.path(index)}:{self.name[index]}"

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields name and unpacked size in bytes of every image, as the unpacked files would have them."""
        for name, size in zip(self.name, np.where(self.inflated < 0, self.length, self.inflated), strict=True):
            yield str(name), int(size)
