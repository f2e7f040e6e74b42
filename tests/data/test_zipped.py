"""A folder within a zip archive: looked into, read at random, and every kind of damage told."""

import contextlib
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.sources.zipped import ZippedImages, open_zip
from convmixer_jax.errors import UserError

CONTENTS = {f"top/images/{n}.bin": np.random.default_rng(n).bytes(100 + n) * 3 for n in range(4)}
NAMES = [name.removeprefix("top/") for name in CONTENTS]


def write(path: Path, compression: int = zipfile.ZIP_DEFLATED, folders: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        if folders:
            archive.mkdir("top")
            archive.mkdir("top/images")
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
        archive.writestr("top/list.txt", "one\ntwo\n")
    return path


def images_of(path: Path) -> ZippedImages:
    return (open_zip(path, "take it anew") / "top").images(
        NAMES, label=np.arange(4, dtype=np.int32), image_shape=(1, 1, 3)
    )


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("folders", [False, True])
def test_it_is_read_as_if_it_were_unpacked(tmp_path, compression, folders):
    path = write(tmp_path / "x.zip", compression, folders)
    root = open_zip(path, "take it anew")
    assert root.names() == ["top"]
    assert sorted((root / "top").names()) == ["images", "list.txt"]
    assert (root / "top" / "list.txt").read_text("utf-8") == "one\ntwo\n"
    assert str(root / "top/images") == f"{path}:top/images"
    images = images_of(path)
    assert [images.read(n) for n in (2, 0, 3, 1)] == [list(CONTENTS.values())[n] for n in (2, 0, 3, 1)]
    assert list(images.sizes()) == [(name, len(CONTENTS[f"top/{name}"])) for name in NAMES]
    taken = images.take(np.array([3, 1]))
    assert (taken.read(0), taken.label.tolist()) == (CONTENTS["top/images/3.bin"], [3, 1])
    assert taken.called(0) == f"{path}:images/3.bin"


def test_what_is_not_there_is_an_error_of_the_file_system(tmp_path):
    root = open_zip(write(tmp_path / "x.zip"), "take it anew")
    with pytest.raises(FileNotFoundError):
        (root / "top/else").names()
    with pytest.raises(FileNotFoundError):
        (root / "top/else.txt").read_text("utf-8")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_byte_is_found_when_the_image_is_read(tmp_path, compression):
    path = write(tmp_path / "x.zip", compression)
    images = images_of(path)
    content = bytearray(path.read_bytes())
    content[int(images.offset[2]) + 50] ^= 1
    path.write_bytes(content)
    damaged = images_of(path)
    with pytest.raises(OSError, match="compressed bytes are damaged|checksum that the archive says"):
        damaged.read(2)
    assert damaged.read(1) == CONTENTS["top/images/1.bin"]


def set_flag(content: bytes) -> bytes:
    """Marks the first member as encrypted in the list at the end."""
    at = content.index(b"PK\1\2") + 8
    return content[:at] + struct.pack("<H", 1) + content[at + 2 :]


def set_method(content: bytes) -> bytes:
    at = content.index(b"PK\1\2") + 10
    return content[:at] + struct.pack("<H", zipfile.ZIP_LZMA) + content[at + 2 :]


DAMAGES = {
    "cut short": (lambda content: content[:-30], "File is not a zip file"),
    "no archive": (lambda content: b"<html>404</html>", "File is not a zip file"),
    "empty": (lambda content: b"", "File is not a zip file"),
    "encrypted": (set_flag, "top/images/0.bin is encrypted"),
    "another method": (set_method, "top/images/0.bin is compressed by method 14"),
}


@pytest.mark.parametrize("damage, words", DAMAGES.values(), ids=DAMAGES)
def test_what_cannot_be_used_is_one_line_with_the_way_out(tmp_path, damage, words):
    path = write(tmp_path / "x.zip")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{re.escape(str(path))} is damaged .*{re.escape(words)}.*: take it anew"):
        open_zip(path, "take it anew")


def test_a_member_that_is_not_where_the_list_says(tmp_path):
    path = write(tmp_path / "x.zip")
    content = path.read_bytes()
    path.write_bytes(b"XX" + content[2:])
    with pytest.raises(OSError, match="not where the archive says"):
        images_of(path)


def test_a_name_that_is_there_twice_is_seen_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for content in (b"1", b"2"):
            with pytest.warns(UserWarning, match="Duplicate") if content == b"2" else contextlib.nullcontext():
                archive.writestr("top/x", content)
    assert (open_zip(tmp_path / "x.zip", "") / "top").names() == ["x", "x"]


def test_the_list_is_read_anew_when_the_file_has_changed(tmp_path):
    path = write(tmp_path / "x.zip")
    assert "top" in open_zip(path, "").names()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", "")
    assert open_zip(path, "").names() == ["other"]


def test_paths_that_lead_out_are_only_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../../escaped.txt", "")
        archive.writestr("/etc/absolute", "")  # zipfile itself takes the first slash away
        archive.writestr("a/" * 2_000 + "deep", "")
    assert sorted(open_zip(tmp_path / "x.zip", "").names()) == ["..", "a", "etc"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_the_checksum_is_that_of_zip(tmp_path):
    images = images_of(write(tmp_path / "x.zip"))
    assert images.crc.tolist() == [zlib.crc32(content) for content in CONTENTS.values()]
