"""A converted directory comes back bit by bit; half of one, or a damaged one, is refused in one line."""

import json

import numpy as np
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.weights.converted import Converted, is_converted, read_converted, write_converted

CONTENT = Converted(
    description={"model": {"dim": 8}, "std": [0.1]},
    variables={
        "params/head/kernel": np.arange(6, dtype=np.float32).reshape(3, 2).T,
        "params/head/bias": np.zeros(3, np.float32),
    },
    counters={"stem_norm": 5},
)


@pytest.fixture
def directory(tmp_path):
    write_converted(tmp_path / "there/x", CONTENT)
    return tmp_path / "there/x"


def test_what_was_written_is_read(directory):
    found = read_converted(directory)
    assert (found.description, found.counters) == (CONTENT.description, CONTENT.counters)
    assert found.variables.keys() == CONTENT.variables.keys()
    for name, array in CONTENT.variables.items():
        assert found.variables[name].dtype == np.float32
        assert np.array_equal(found.variables[name], array)
    assert sorted(path.name for path in directory.iterdir()) == ["model.json", "variables.safetensors"]


def test_writing_again_replaces_it_and_leaves_other_files(directory):
    (directory / "notes.txt").write_text("mine")
    write_converted(directory, Converted({"model": {}}, {"params/x": np.ones(1, np.float32)}, {}))
    assert list(read_converted(directory).variables) == ["params/x"]
    assert (directory / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_is_found(directory, place):
    path = directory / "variables.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"variables.safetensors is damaged: its SHA-256 .*convert the weights again"):
        read_converted(directory)


HALVES = {
    "model.json": r"x has variables.safetensors but no model.json: convert",
    "variables.safetensors": r"x/variables.safetensors cannot be read \(No such file",
}


@pytest.mark.parametrize("missing, words", HALVES.items(), ids=HALVES)
def test_half_a_directory_is_told(directory, missing, words):
    (directory / missing).unlink()
    assert is_converted(directory)
    with pytest.raises(UserError, match=words):
        read_converted(directory)


RECORDS = {
    "no JSON": ("{", "model.json cannot be read"),
    "another format": ({"format": 2}, r"model.json has format 2, this version reads 1"),
    "no digest": ({"format": 1}, "is damaged: its SHA-256 is not the one in model.json"),
    "no description": ({"description": None}, "model.json has no description of the weights"),
    "no counters": ({"counters": [1]}, "model.json has no description of the weights"),
    "a counter that is text": ({"counters": {"stem_norm": "x"}}, "model.json has no description of the weights"),
}


@pytest.mark.parametrize("change, words", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_is_told(directory, change, words):
    path = directory / "model.json"
    record = json.loads(path.read_text())
    if isinstance(change, str):
        path.write_text(change)
    else:
        path.write_text(json.dumps((record | change) if "format" not in change else change))
    with pytest.raises(UserError, match=words):
        read_converted(directory)


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/x cannot be written \(Not a directory\): name a place that can"):
        write_converted(tmp_path / "file/x", CONTENT)


@pytest.mark.parametrize("content", ['{"name": "their model"}', '{"format": 1}', "[1]", "a note", ""])
def test_another_programs_file_is_left_as_it_is(tmp_path, content):
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=r"model.json is not of a conversion, so it is not replaced: move it away"):
        write_converted(tmp_path, CONTENT)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"model.json": content}


def test_other_folders_are_none(tmp_path):
    assert not is_converted(tmp_path)
    assert not is_converted(tmp_path / "nowhere")
