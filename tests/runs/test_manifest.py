"""A manifest is read where all of it is as it was written, and of the kinds that are read."""

import copy
import json
import os

import pytest

from convmixer_jax.runs.manifest import (
    MANIFEST_FILE,
    encode,
    is_manifest,
    read_manifest,
    write_manifest,
    wrong_name,
)

PART = {"box": [[0, 4], [0, 8]], "sha256": "ab"}
RECORD = {
    "step": 3,
    "time": "2026-01-01T00:00:00+00:00",
    "val_top1": 0.5,
    "files": {"a": {"bytes": 5, "sha256": "ab"}},
    "leaves": {
        "whole": {"shape": [], "dtype": "int32", "sha256": "ab"},
        "divided": {"shape": [8, 8], "dtype": "float32", "parts": [PART]},
    },
}
# Paths into the record, and what is put there; None takes it away.
OTHER_KINDS = {
    "step": [("step",), ["3", 3.0, True, None]],
    "time": [("time",), [3, None]],
    "score": [("val_top1",), ["0.5", True, [], float("nan"), float("inf"), None]],
    "files": [("files",), [[], "a", 1, None]],
    "file": [("files", "a"), [[], "5", 5, {"bytes": 5}, {"bytes": "5", "sha256": "ab"}, {"bytes": 5, "sha256": 1}]],
    "leaves": [("leaves",), [[], "a", None]],
    "leaf": [("leaves", "whole"), [[], "ab", {"shape": [], "dtype": "int32"}]],
    "shape": [("leaves", "whole", "shape"), [["8"], 8, [8.0], None]],
    "dtype": [("leaves", "whole", "dtype"), [1, None]],
    "digest": [("leaves", "whole", "sha256"), [1, ["ab"]]],
    "parts": [("leaves", "divided", "parts"), ["ab", [[]], [{"box": [[0, 4]]}], [PART | {"box": [[0]]}]]],
    "box": [("leaves", "divided", "parts", 0, "box"), [[["0", "4"]], [[0, 4, 1]], [0, 4], 3]],
}


@pytest.fixture
def step(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    return tmp_path


def test_what_is_written_is_read(step):
    for score in (0.5, 1, None):
        write_manifest(step, RECORD | {"val_top1": score, "more": "of a later version"})
        assert read_manifest(step) == RECORD | {"val_top1": score, "more": "of a later version"}
    assert wrong_name(step, RECORD) is None


@pytest.mark.parametrize("path, values", OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_other_kinds_are_refused(step, path, values):
    for value in values:
        record = copy.deepcopy(RECORD)
        place = record
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        write_manifest(step, record)
        with pytest.raises(ValueError, match="its manifest lacks what is read here"):
            read_manifest(step)


@pytest.mark.parametrize("record", [[], "step", 3, None, {}])
def test_other_records_are_refused(step, record):
    assert not is_manifest(record)
    (step / MANIFEST_FILE).write_bytes(encode(record))
    with pytest.raises(ValueError, match="its manifest"):
        read_manifest(step)


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"manifest":' * 100_000, b"9" * 5000, b"\0" * 9, b"\xff"])
def test_content_that_cannot_be_parsed_is_damage(step, content):
    (step / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="its manifest is damaged"):
        read_manifest(step)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(step):
    (step / "a").unlink()
    os.mkfifo(step / "a")
    record = json.loads(json.dumps(RECORD))
    record["files"]["a"]["bytes"] = 0
    assert wrong_name(step, record) == "a is no file"
