"""Files of a workdir are whole or absent, are JSON, and a folder that cannot be written is told at once."""

import errno
import json
import math

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.runs import files
from convmixer_jax.runs.files import Lines, make_workdir, read_json, to_json, write_bytes, write_json

NAN, INF = math.nan, math.inf


def test_values_that_json_does_not_have_become_none():
    value = {"a": NAN, "b": [1, INF, {"c": (-INF, 2.5)}], "d": "nan", "e": None, "f": True, "g": 3}
    assert to_json(value) == {"a": None, "b": [1, None, {"c": [None, 2.5]}], "d": "nan", "e": None, "f": True, "g": 3}
    assert math.isnan(value["a"])  # what was given is as it was


def test_an_object_comes_back(tmp_path):
    value = {"step": 3, "top1": 0.1, "names": ["a", "b"], "none": None, "deep": {"x": 1e-9}}
    write_json(tmp_path / "result.json", value | {"loss": NAN})
    assert read_json(tmp_path / "result.json") == value | {"loss": None}
    # Strictly JSON, where Python's own reader would take NaN too.
    json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_old_text_stays_until_the_new_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_bytes(path, b"old")
    during = []

    def disk_is_full(descriptor):
        during.append(path.read_text())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert (during, path.read_text()) == (["old"], "old")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]  # nothing is left of the failure
    monkeypatch.undo()
    (tmp_path / "result.json.tmp").write_bytes(b"half")  # as a crash leaves it, which is in nobody's way
    write_bytes(path, b"new")
    assert path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


class Disk:
    """Stands for a file on a disk with room for so many more bytes; then errors of this number."""

    def __init__(self, file, room: int, number: int):
        self.file, self.room, self.number = file, room, number

    def write(self, content) -> int:
        part = content[: self.room]
        if not part:
            raise OSError(self.number, "No space left on device")
        self.room -= len(part)
        return self.file.write(part)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_lines_wait_for_room(tmp_path):
    path = tmp_path / "lines"
    lines = Lines(path)
    lines.append("one")
    file = lines._file
    lines._file = Disk(file, room=6, number=errno.ENOSPC)  # takes a line and a half
    lines.append("two")
    lines.append("three")
    assert path.read_text() == "one\ntwo\n", "no half of a line"
    lines.sync()
    lines._file = Disk(file, room=9, number=errno.ENOSPC)
    lines.append("four")
    assert path.read_text() == "one\ntwo\n"
    lines._file = file
    lines.sync()
    assert path.read_text() == "one\ntwo\nthree\nfour\n"
    lines.close()
    lines = Lines(path)
    lines._file = Disk(lines._file, room=0, number=errno.EIO)
    with pytest.raises(OSError, match="No space"):
        lines.append("five")


def test_a_file_that_is_not_there_is_none(tmp_path):
    assert read_json(tmp_path / "result.json") is None
    assert read_json(tmp_path / "no folder" / "result.json") is None


GARBAGE = {
    "empty": b"",
    "torn": b'{"step": 3',
    "words": b"step 3",
    "bytes": b"\xff\xfe",
    "list": b"[3]",
    "null": b"null",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_object_is_a_user_error(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "result.json")
    message = str(caught.value)
    assert message.startswith(
        (f"{tmp_path / 'result.json'} cannot be read (", f"{tmp_path / 'result.json'} holds no JSON")
    )
    assert message.endswith("it is not as this program wrote it; restore it from a copy, or use another --workdir")


def test_a_file_that_cannot_be_opened_is_a_user_error(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(UserError, match="result.json cannot be read .*Is a directory"):
        read_json(tmp_path / "result.json")


def test_a_workdir_is_made_with_its_parents_and_left_empty(tmp_path):
    make_workdir(tmp_path / "a" / "b")
    (tmp_path / "a/b/kept").write_text("")
    make_workdir(tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["kept"]


@pytest.mark.parametrize("name, reason", [("file", "File exists"), ("file/run", "Not a directory")])
def test_a_workdir_that_cannot_be_made_is_a_user_error(tmp_path, name, reason):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        make_workdir(tmp_path / name)
    assert str(caught.value) == (
        f"--workdir {tmp_path / name} cannot be written ({reason}): name a folder that can, or free its place"
    )


def test_a_workdir_that_takes_no_file_is_a_user_error():
    # Not even root may make a file there.
    with pytest.raises(UserError, match="--workdir /proc/self cannot be written"):
        make_workdir(files.Path("/proc/self"))
