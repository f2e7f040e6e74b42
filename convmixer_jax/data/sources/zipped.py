"""A folder within a zip archive, looked into as if it were unpacked; nothing ever is.

folder = open_zip(data_dir / "tiny-imagenet-200.zip", "take it anew") / "tiny-imagenet-200"
(folder / "wnids.txt").read_text("utf-8")
images = folder.images(["val/images/val_0.JPEG"], label=np.array([0], np.int32), image_shape=(64, 64, 3))
"""

import dataclasses
import errno
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convmixer_jax.data.sources.packed import OpenFiles, PackedImages
from convmixer_jax.errors import UserError

# What stands before the bytes of a member: a mark, 22 bytes that the archive's list has too, and two lengths.
_HEADER = struct.Struct("<4s22xHH")
_MARK = b"PK\3\4"
_ENCRYPTED = 1  # bit of a member's flags


@dataclasses.dataclass(frozen=True)
class ZippedImages(PackedImages):
    """Images within a zip archive, each compared with its checksum when it is read. crc: CRC-32, uint32 [N]."""

    crc: np.ndarray

    def read(self, index: int) -> bytes:
        """Returns the bytes of the image at `index`; raises OSError, also where they are not those of the archive."""
        content = super().read(index)
        if zlib.crc32(content) != self.crc[index]:
            raise OSError(errno.EBADMSG, "its bytes do not have the checksum that the archive says")
        return content


@dataclasses.dataclass(frozen=True)
class _Contents:
    """What an archive lists. members: by their names. children: the names in each folder, "" for the archive itself."""

    members: Mapping[str, zipfile.ZipInfo]
    children: Mapping[str, Sequence[str]]


class ZippedFolder:
    """A place in an archive: a folder of it, or a file. The methods are those of pathlib.Path, where they share a name.

    archive: the file. place: as seen from there, with "/"; "" for the archive itself.
    """

    def __init__(self, archive: Path, place: str, contents: _Contents):
        self.archive, self.place = archive, place
        self._contents = contents

    def __truediv__(self, name: str) -> "ZippedFolder":
        return ZippedFolder(self.archive, f"{self.place}/{name}" if self.place else name, self._contents)

    def __str__(self) -> str:
        return f"{self.archive}:{self.place}"

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.place in self._contents.children

    def names(self) -> list[str]:
        """Returns what is in the folder, a name twice where the archive has it twice. Raises OSError without one."""
        if not self.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return list(self._contents.children[self.place])

    def read_text(self, encoding: str) -> str:
        """Returns the text of the file; raises OSError, and UnicodeDecodeError where it is none."""
        folder, _, name = self.place.rpartition("/")
        parent = ZippedFolder(self.archive, folder, self._contents)
        return parent.images([name], label=np.zeros(1, np.int32), image_shape=(0, 0, 0)).read(0).decode(encoding)

    def images(self, names: Sequence[str], *, label: np.ndarray, image_shape: tuple[int, int, int]) -> ZippedImages:
        """Returns the files of these names, as seen from the folder. Raises OSError where one is not there."""
        try:
            members = [self._contents.members[(self / name).place] for name in names]
        except KeyError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.archive}:{error}") from error
        packed = [member.compress_type == zipfile.ZIP_DEFLATED for member in members]
        sizes = np.array([member.file_size for member in members], np.int64)
        return ZippedImages(
            OpenFiles([self.archive]),
            np.zeros(len(members), np.int64),
            _offsets(self.archive, members),
            np.array([member.compress_size for member in members], np.int64),
            np.array(names),
            np.where(packed, sizes, -1),
            np.array([member.CRC for member in members], np.uint32),
            label=label,
            image_shape=image_shape,
        )


def open_zip(archive: Path, way_out: str) -> ZippedFolder:
    """Returns the archive as a folder. Raises UserError, ending in `way_out`, where it is none that can be read."""
    try:
        return ZippedFolder(archive, "", _contents(archive))
    except (OSError, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{archive} is damaged or no zip archive ({reason}): {way_out}") from error


def _contents(archive: Path) -> _Contents:
    # Not kept, although it takes a second for 100,000 members: they take 65 MB.
    members: dict[str, zipfile.ZipInfo] = {}
    children: dict[str, list[str]] = {"": []}
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = member.filename.removesuffix("/")
            folder, _, last = name.rpartition("/")
            if member.is_dir():
                _add_folder(children, name)
                continue
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NotImplementedError(f"{name} is compressed by method {member.compress_type}")
            if member.flag_bits & _ENCRYPTED:
                raise NotImplementedError(f"{name} is encrypted")
            _add_folder(children, folder)
            children[folder].append(last)
            members[name] = member
    return _Contents(members, children)


def _add_folder(children: dict[str, list[str]], folder: str) -> None:
    """Adds a folder and those above it, which an archive need not list."""
    new = []
    while folder not in children:
        children[folder] = []
        new.append(folder)
        folder = folder.rpartition("/")[0]
    for each in new:
        above, _, last = each.rpartition("/")
        children[above].append(last)


def _offsets(archive: Path, members: Sequence[zipfile.ZipInfo]) -> np.ndarray:
    """Returns where the bytes of members begin, int64 [N]: the archive's list has only where their headers do."""
    files = OpenFiles([archive])
    offsets = np.empty(len(members), np.int64)
    for row, member in enumerate(members):
        mark, name, extra = _HEADER.unpack(files.read(0, member.header_offset, _HEADER.size))
        if mark != _MARK:
            raise OSError(errno.EIO, f"{member.filename} is not where the archive says")
        offsets[row] = member.header_offset + _HEADER.size + name + extra
    return offsets
