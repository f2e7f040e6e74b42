"""Data that are missing, damaged, hostile or not those of the run: exit code 2 and one line with a way out."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest

from convmixer_jax.command_line import parse
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.data.examples import Examples
from convmixer_jax.data.resident import ResidentEvaluation
from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.errors import UserError
from convmixer_jax.main import main
from tests.commands import CIFAR, DIGITS, SMALL, record_of
from tests.data.archives import SPEC, archive_bytes, spec_with, write_archive, write_python_folder

pytestmark = pytest.mark.usefixtures("elsewhere", "quick_compilation")


@pytest.fixture
def small_cifar(monkeypatch):
    """CIFAR-10 with 60 and 10 images, whose only URL is a port of this machine that nobody listens to."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    spec = spec_with(urls=("http://127.0.0.1:9/cifar-10-python.tar.gz",))
    sizes = {split: spec.num_examples(split) for split in spec.files}
    row = dataclasses.replace(
        DATASETS["cifar10"],
        load=lambda data_dir, split: Examples(*load_cifar(data_dir, split, spec)),
        num_examples=sizes,
    )
    monkeypatch.setitem(DATASETS, "cifar10", row)


def test_missing_data(refused, tmp_path, small_cifar):
    (tmp_path / "empty").mkdir()
    line = refused(*CIFAR, *SMALL, "--data_dir=empty")
    for words in ("CIFAR-10 is not in empty", "127.0.0.1:9", "--data_dir", "$CONVMIXER_DATA_DIR", "configs/digits.py"):
        assert words in line


def test_a_data_dir_that_is_a_file(refused, tmp_path, small_cifar):
    (tmp_path / "file").write_text("not a folder")
    assert "file" in refused(*CIFAR, *SMALL, "--data_dir=file")


ARCHIVE = archive_bytes()
MIDDLE = len(ARCHIVE) // 2
BAD_ARCHIVES = {
    "truncated": ARCHIVE[:MIDDLE],
    "one byte changed": ARCHIVE[:MIDDLE] + bytes([ARCHIVE[MIDDLE] ^ 255]) + ARCHIVE[MIDDLE + 1 :],
    "no archive": b"<html>404 Not Found</html>",
}


@pytest.mark.parametrize("content", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_damaged_archive(refused, tmp_path, small_cifar, content):
    write_archive(tmp_path / "data")
    (tmp_path / "data" / SPEC.archive).write_bytes(content)
    line = refused(*CIFAR, *SMALL, "--data_dir=data")
    assert f"data/{SPEC.archive} is damaged" in line
    assert "run again to download it" in line


class Hostile:
    """Its pickle makes a file when it is read."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_hostile_pickle_is_not_executed(refused, tmp_path, small_cifar):
    write_python_folder(tmp_path / "data")
    (tmp_path / "data" / SPEC.python_folder / "data_batch_2").write_bytes(pickle.dumps(Hostile()))
    line = refused(*CIFAR, *SMALL, "--data_dir=data")
    assert f"data/{SPEC.python_folder}/data_batch_2 asks for posix.mkdir" in line
    assert "nothing in it was run" in line
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Hostile()))
    assert (tmp_path / "executed").exists()  # so it is hostile indeed


def test_the_default_data_dir_is_that_of_the_environment(tmp_path, monkeypatch):
    assert parse(["main", *DIGITS]).data_dir == Path("~/.cache/convmixer_jax").expanduser()
    monkeypatch.setenv("CONVMIXER_DATA_DIR", str(tmp_path / "there"))
    assert parse(["main", *DIGITS]).data_dir == tmp_path / "there"
    assert parse(["main", *DIGITS, "--data_dir=~/here"]).data_dir == Path.home() / "here"


def test_missing_data_of_the_environment(refused, tmp_path, small_cifar, monkeypatch):
    monkeypatch.setenv("CONVMIXER_DATA_DIR", str(tmp_path / "there"))
    assert f"CIFAR-10 is not in {tmp_path / 'there'} " in refused(*CIFAR, *SMALL)


def test_the_data_of_the_run_were_others(refused, tmp_path, small_cifar):
    write_archive(tmp_path / "data")
    (tmp_path / "run").mkdir()
    record = record_of([*CIFAR, *SMALL]) | {"data_digest": "0" * 64}
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    line = refused(*CIFAR, *SMALL, "--data_dir=data", "--workdir=run")
    assert "--workdir run was trained on other data (SHA-256 000000000000..., now " in line
    assert "give the --data_dir it began with, or use another --workdir" in line


def test_updates_are_kept_where_an_image_cannot_be_read(tmp_path, elsewhere, monkeypatch, capsys):
    arguments = ["main", *DIGITS, *SMALL, "--config.epochs=1", "--workdir=run"]

    def unreadable(source):
        raise UserError("val_7.JPEG is damaged")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(ResidentEvaluation, "batches", unreadable)
        assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "saved step 22 before stopping" in err
    assert err.endswith("error: val_7.JPEG is damaged\n")
    assert main(arguments) == 0
    assert "going on from step 22" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/result.json").read_text())["step"] == 22
