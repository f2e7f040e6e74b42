"""Directories that tfds prepared are read in their order, with TensorFlow kept out of the reading process."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.sources import cifar, tfds_directory
from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.data.sources.tfds_directory import newest_version, read_tfds_directory
from convmixer_jax.errors import UserError
from tests.data.archives import SPEC, expected, spec_with, write_tfds_directory

slow = pytest.mark.slow  # it starts a process that imports TensorFlow
VERSION = "3.0.10"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    write_tfds_directory(path, VERSION)
    # An older version, which comes last in the order of the alphabet, and which cannot be read.
    (path / "cifar10" / "3.0.9").mkdir()
    (path / "cifar10" / "3.0.9" / "dataset_info.json").write_text("{}")
    return path


@slow
def test_the_newest_version_is_read_in_stored_order_over_all_shards(data_dir):
    assert len(list((data_dir / "cifar10" / VERSION).glob("*-train.*"))) == 3
    images, labels = load_cifar(data_dir, "train", SPEC)
    np.testing.assert_array_equal(images, expected("train")[0], strict=True)
    np.testing.assert_array_equal(labels, expected("train")[1], strict=True)


IMPORTS = """
import pathlib, sys
import numpy as np
from convmixer_jax.data.sources.tfds_directory import read_tfds_directory
images, labels = read_tfds_directory(pathlib.Path(sys.argv[1]), "cifar10", "test")
np.savez(sys.argv[2], images=images, labels=labels[:, 0])
print(sorted({"tensorflow", "tensorflow_datasets", "jax"} & set(sys.modules)))
"""


@slow
def test_the_process_that_reads_the_test_split_imports_neither_tensorflow_nor_jax(data_dir, tmp_path):
    # In a fresh process: other tests of this session may have imported them here.
    command = [sys.executable, "-c", IMPORTS, str(data_dir / "cifar10" / VERSION), str(tmp_path / "read.npz")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with np.load(tmp_path / "read.npz") as found:
        np.testing.assert_array_equal(found["images"], expected("test")[0], strict=True)
        np.testing.assert_array_equal(found["labels"], expected("test")[1], strict=True)


REFUSED = {
    "another data set": (VERSION, "mnist", "it holds cifar10, expected mnist"),
    "broken description": ("3.0.9", "cifar10", "cannot be read as a prepared tfds directory"),
    "no directory": ("2.0.0", "cifar10", "DatasetInfoFileError"),
}


@slow
@pytest.mark.parametrize("version, name, words", REFUSED.values(), ids=REFUSED)
def test_the_last_word_of_the_child_is_passed_on(data_dir, version, name, words):
    directory = data_dir / "cifar10" / version
    with pytest.raises(UserError) as caught:
        read_tfds_directory(directory, name, "test")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{directory} cannot be read as a prepared tfds directory: ")
    assert "Traceback" not in str(caught.value)


@slow
def test_damaged_examples_are_a_user_error(data_dir, tmp_path):
    shutil.copytree(data_dir / "cifar10" / VERSION, tmp_path / "cifar10" / VERSION)
    shard = sorted((tmp_path / "cifar10" / VERSION).glob("*-test.*"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match="DataLossError"):
        load_cifar(tmp_path, "test", SPEC)


NINE_CLASSES = (dataclasses.replace(SPEC.target, classes=SPEC.target.classes[:9]),)
WRONG = {
    "count": ({"files": {"test": (("test_batch", 20),)}}, "holds uint8 (10, 32, 32, 3) as 'test', expected uint8 (20,"),
    "classes": ({"labels": NINE_CLASSES}, "has the label 9 in row 9, expected 0-8"),
}


@pytest.mark.parametrize("changes, words", WRONG.values(), ids=WRONG)
def test_what_the_directory_holds_is_checked(tmp_path, monkeypatch, changes, words):
    directory = tmp_path / "cifar10" / VERSION
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").touch()
    images, labels = expected("test")
    monkeypatch.setattr(cifar, "read_tfds_directory", lambda *_: (images, labels[:, None]))
    load_cifar(tmp_path, "test", SPEC)
    with pytest.raises(UserError) as caught:
        load_cifar(tmp_path, "test", spec_with(**changes))
    assert f"{directory} {words}" in str(caught.value)


def test_versions_are_compared_as_numbers(tmp_path):
    for name in ("3.0.9", "3.0.10", "3.0.2", "3.1.0.incomplete"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset_info.json").touch()
    (tmp_path / "4.0.0").mkdir()  # without a description
    assert newest_version(tmp_path) == tmp_path / "3.0.10"
    assert newest_version(tmp_path, "3.0.2") == tmp_path / "3.0.2"
    assert newest_version(tmp_path, "4.0.0") is None
    assert newest_version(tmp_path / "nowhere") is None


# A stand-in for the package, found first, shows what the child does where it is missing, broken or slow.
STAND_INS = {
    "missing": (
        "raise ModuleNotFoundError(\"No module named 'tensorflow_datasets'\")",
        "No module named 'tensorflow_datasets': pip install tensorflow-datasets",
    ),
    "killed": ("import os; os._exit(9)", "exit code 9 without a word"),
    "chatty": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line second line"),
    "sees no GPU": ("import os; raise RuntimeError(repr(os.environ['CUDA_VISIBLE_DEVICES']))", "RuntimeError: ''"),
}


@pytest.mark.parametrize("source, words", STAND_INS.values(), ids=STAND_INS)
def test_a_child_that_fails_is_a_user_error(tmp_path, monkeypatch, source, words):
    (tmp_path / "tensorflow_datasets.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        read_tfds_directory(tmp_path, "cifar10", "test")
    assert words in str(caught.value)


def test_a_child_that_hangs_is_ended(tmp_path, monkeypatch):
    (tmp_path / "tensorflow_datasets.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(tfds_directory, "_TIMEOUT_S", 1.0)
    with pytest.raises(UserError, match="was not read within 1 s"):
        read_tfds_directory(tmp_path, "cifar10", "test")
