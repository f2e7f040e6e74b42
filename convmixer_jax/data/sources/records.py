"""Images in the records of shards, each a tf.train.Example, in TFRecord or ArrayRecord files.

    images = TFRecordImages(OpenFiles(shards), file, offset, length, record, label=label, image_shape=(224, 224, 3))
    images.read(17)
    for message in damaged_shards(images): ...

The range of an image within its record is known before (record_index.py), so that nothing is parsed when it is read.
"""

import abc
import dataclasses
import errno
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from convmixer_jax.data.sources.packed import OPEN_AT_ONCE, ImagesWithin, OpenFiles
from convmixer_jax.data.tensorflow_cpu import load_tensorflow
from convmixer_jax.errors import UserError

# A TFRecord: length (8 bytes), its checksum (4), the record, its checksum (4).
_BEFORE, _AROUND = 12, 16
_READ_BYTES = 8 << 20
WAY_OUT = "take the shard anew from where it came"


@dataclasses.dataclass(frozen=True)
class RecordImages(ImagesWithin):
    """Images in records.

    record: int32 [N], the place of an image's record in its shard, from 0.
    """

    open_files: ClassVar[type[OpenFiles]]

    record: np.ndarray

    @staticmethod
    @abc.abstractmethod
    def records(path: Path) -> Iterator[tuple[int, bytes]]:
        """Yields what is added to a place in a record to get `offset`, and the record, of all records of a shard.

        Compares all checksums. Raises UserError, naming shard and record, where the shard is damaged or cut short.
        """

    def called(self, index: int) -> str:
        """Returns the number of the record of the image at `index`, and its shard."""
        return f"record {self.record[index]:,} of {self.path(index)}"

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yields shard and record, and the size in bytes, of every image."""
        names = [path.name for path in self.files.paths]
        for file, record, length in zip(self.file.tolist(), self.record.tolist(), self.length.tolist(), strict=True):
            yield f"{names[file]}:{record}", length


@dataclasses.dataclass(frozen=True)
class TFRecordImages(RecordImages):
    """In TFRecord files. offset: from the start of the file."""

    open_files = OpenFiles

    @staticmethod
    def records(path: Path) -> Iterator[tuple[int, bytes]]:
        """Yields (where the record begins in the file, record)."""
        tf = load_tensorflow()
        size = _readable_size(path)
        start = count = 0
        try:
            for content in tf.data.TFRecordDataset(str(path), buffer_size=_READ_BYTES).as_numpy_iterator():
                yield start + _BEFORE, content
                start, count = start + len(content) + _AROUND, count + 1
        except tf.errors.OpError as error:
            raise _damaged(path, count, _short(error.message)) from error
        if start != size:  # TensorFlow takes some ends in the middle of a record for the end of the file
            raise _damaged(path, count, f"byte {start:,} of {size:,}")


class ArrayRecordFiles(OpenFiles):
    """ArrayRecord files, of which records can be read too, by any number of threads."""

    def __init__(self, paths: Sequence[Path]):
        super().__init__(paths)
        self._reader = functools.lru_cache(maxsize=OPEN_AT_ONCE)(_open_array_record)

    def read_record(self, file: int, record: int) -> bytes:
        """Returns a record of a file; raises OSError."""
        try:
            return self._reader(self.paths[file]).read([record])[0]
        except (RuntimeError, IndexError) as error:
            raise _reading_error(error) from error


def _reading_error(error: Exception) -> OSError:
    """Returns what the package's own exception says; "pread() failed: ..." is EIO, no fault of the bytes."""
    return OSError(errno.EIO if "() failed: " in str(error) else errno.EBADMSG, str(error))


def _open_array_record(path: Path) -> Any:
    """Returns the reader of a file, which any number of threads may use. Raises OSError where it is damaged."""
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError as error:  # it comes with tensorflow_datasets, but only on Linux
        raise UserError(
            f"{path} needs the package array_record ({error}): install it, or use TFRecord files"
        ) from error

    with open(path, "rb"):  # the reader's own messages are long, and it does not raise where there is no file
        pass
    # What lies ahead is not read, since the next record that is asked for is anywhere.
    reader = ArrayRecordReader(str(path), options="readahead_buffer_size:0,max_parallelism:0")
    if not reader.ok():
        try:
            reader.close()  # only this says what is wrong
        except RuntimeError as error:
            raise _reading_error(error) from error
    return reader


@dataclasses.dataclass(frozen=True)
class ArrayRecordImages(RecordImages):
    """In ArrayRecord files, which may be compressed. offset: from the start of the record."""

    open_files = ArrayRecordFiles

    files: ArrayRecordFiles

    def read(self, index: int) -> bytes:
        """Returns the bytes of the image at `index`; raises OSError."""
        content = self.files.read_record(int(self.file[index]), int(self.record[index]))
        start, stop = int(self.offset[index]), int(self.offset[index] + self.length[index])
        if stop > len(content):
            raise OSError(errno.EBADMSG, f"its record ends at byte {len(content):,} of {stop:,}")
        return content[start:stop]

    @staticmethod
    def records(path: Path) -> Iterator[tuple[int, bytes]]:
        """Yields (0, record)."""
        number = 0
        try:
            reader = _open_array_record(path)
            for number in range(reader.num_records()):
                yield 0, reader.read([number])[0]
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise _damaged(path, number, reason) from error


# By the word in the names of shards.
KINDS: dict[str, type[RecordImages]] = {"tfrecord": TFRecordImages, "array_record": ArrayRecordImages}


def damaged_shards(images: RecordImages) -> Iterator[str]:
    """Reads all shards of `images` whole and yields, for each that is damaged, what is wrong with it and the way out.

    Images that are read one by one are not compared with their checksums, which are those of whole records.
    """
    for file in np.unique(images.file):
        try:
            for _ in images.records(images.files.paths[file]):
                pass
        except UserError as error:
            yield str(error)


def _short(message: str) -> str:
    """Returns what TensorFlow says without the operation that says it."""
    return message.rpartition("}} ")[2].partition(" [Op:")[0]


def _damaged(path: Path, record: int, reason: object) -> UserError:
    return UserError(f"{path} is damaged or cut short at record {record:,} ({reason}): {WAY_OUT}")


def _readable_size(path: Path) -> int:
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {WAY_OUT}") from error
