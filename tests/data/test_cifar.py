"""CIFAR-10 from every form of its files, and a clear message for everything that can be wrong with them."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.data.sources.cifar_specs import CIFAR10
from convmixer_jax.errors import UserError
from tests.data.archives import (
    EVERY_FILE,
    NUMBERS,
    SPEC,
    TRAIN,
    archive_bytes,
    expected,
    python2_batch,
    python3_batch,
    rows_of,
    serving,
    spec_with,
    write_archive,
    write_binary_folder,
    write_python_folder,
)

FORMS = {
    "python 3": write_python_folder,
    "python 2": lambda data_dir, **only: write_python_folder(data_dir, python2_batch, **only),
    "binary": write_binary_folder,
    "archive": write_archive,
    "archive packed in ./": lambda data_dir, **only: write_archive(data_dir, prefix="./", **only),
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_arrays(tmp_path, write, split):
    write(tmp_path)
    images, labels = load_cifar(tmp_path, split, SPEC)
    np.testing.assert_array_equal(images, expected(split)[0], strict=True)
    np.testing.assert_array_equal(labels, expected(split)[1], strict=True)
    assert images.flags.c_contiguous
    assert type(images) is np.ndarray


@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_only_the_files_of_the_split_are_needed(tmp_path, write):
    write(tmp_path, names=("test_batch",))
    assert len(load_cifar(tmp_path, "test", SPEC)[0]) == 10
    with pytest.raises(UserError, match=r"data_batch_1.*: take it anew from cifar-10-python.tar.gz \(md5 c58f"):
        load_cifar(tmp_path, "train", SPEC)


def test_the_first_form_that_is_there_is_read(tmp_path):
    write_archive(tmp_path)
    (tmp_path / SPEC.archive).write_bytes(b"not even gzip")
    write_python_folder(tmp_path)
    np.testing.assert_array_equal(load_cifar(tmp_path, "test", SPEC)[0], expected("test")[0])


def test_nothing_is_written_beside_an_archive(tmp_path):
    write_archive(tmp_path)
    load_cifar(tmp_path, "train", SPEC)
    assert [path.name for path in tmp_path.iterdir()] == [SPEC.archive]


PIXELS, LABELS = rows_of("data_batch_2")


def write_train(data_dir: Path, second: bytes) -> None:
    """A python folder whose data_batch_2 is `second`."""
    write_python_folder(data_dir, names=("data_batch_1",))
    (data_dir / SPEC.python_folder / "data_batch_2").write_bytes(second)


BAD_PYTHON_BATCHES = {
    "empty": (b"", "cut short, damaged, or no CIFAR file"),
    "half": (python2_batch(PIXELS, LABELS)[:40_000], "cut short, damaged, or no CIFAR file"),
    "hostile": (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
    "too few rows": (
        python3_batch(PIXELS[:29], LABELS[:29]),
        "has uint8 (29, 3072) as 'data', expected uint8 (30, 3072)",
    ),
    "too many rows": (python3_batch(*rows_of("test_batch")), "has uint8 (10, 3072) as 'data'"),
    "too few columns": (python3_batch(PIXELS[:, :3071], LABELS), "has uint8 (30, 3071) as 'data'"),
    "floats": (python3_batch(PIXELS.astype(np.float32), LABELS), "has float32 (30, 3072) as 'data'"),
    "no pixels": (pickle.dumps({"labels": LABELS}), "has nothing as 'data'"),
    "pixels in a list": (pickle.dumps({"data": PIXELS.tolist(), "labels": LABELS}), "has a list of 30 as 'data'"),
    "no dict": (pickle.dumps([PIXELS, LABELS]), "has nothing as 'data'"),
    "no labels": (pickle.dumps({"data": PIXELS}), "has nothing as 'labels', expected 30 whole numbers"),
    "too few labels": (python3_batch(PIXELS, LABELS[:29]), "has a list of 29 as 'labels'"),
    "labels in words": (pickle.dumps({"data": PIXELS, "labels": ["cat"] * 30}), "has a list of 30 as 'labels'"),
    "labels in one word": (pickle.dumps({"data": PIXELS, "labels": "cat"}), "has a str as 'labels'"),
    "label too high": (python3_batch(PIXELS, [*LABELS[:-1], 10]), "has the label 10 in row 29, expected 0-9"),
    "label too low": (python3_batch(PIXELS, [-1, *LABELS[1:]]), "has the label -1 in row 0, expected 0-9"),
}


@pytest.mark.parametrize("content, words", BAD_PYTHON_BATCHES.values(), ids=BAD_PYTHON_BATCHES)
def test_a_bad_python_batch_is_named(tmp_path, content, words):
    write_train(tmp_path, content)
    with pytest.raises(UserError) as caught:
        load_cifar(tmp_path, "train", SPEC)
    assert str(tmp_path / SPEC.python_folder / "data_batch_2") in str(caught.value)
    assert words in str(caught.value)


def test_labels_may_be_an_array(tmp_path):
    write_train(tmp_path, pickle.dumps({"data": PIXELS, "labels": np.array(LABELS)}, protocol=4))
    np.testing.assert_array_equal(load_cifar(tmp_path, "train", SPEC)[1], expected("train")[1])


def test_classes_must_be_balanced_over_the_split(tmp_path):
    write_train(tmp_path, python3_batch(PIXELS, [1, *LABELS[1:]]))
    with pytest.raises(UserError, match=r"holds \[5, 7, 6, 6, 6, 6, 6, 6, 6, 6\] .* 'train', expected 6 of each"):
        load_cifar(tmp_path, "train", SPEC)


def test_classes_need_not_be_balanced_in_each_file(tmp_path):
    # The real training files are not: only all five together have 5,000 of each class.
    write_python_folder(tmp_path, lambda pixels, labels: python3_batch(pixels, labels), names=())
    for name, label in (("data_batch_1", 0), ("data_batch_2", 5)):
        content = python3_batch(rows_of(name)[0], sorted([*range(label, label + 5)] * 6))
        (tmp_path / SPEC.python_folder / name).write_bytes(content)
    assert np.bincount(load_cifar(tmp_path, "train", SPEC)[1]).tolist() == [6] * 10


BAD_BINARY_BATCHES = {
    "empty": (lambda content: b"", "holds 0 bytes, expected 92,190 (30 records of 3,073)"),
    "one byte short": (lambda content: content[:-1], "holds 92,189 bytes, expected 92,190"),
    "one byte more": (lambda content: content + b"x", "holds 92,191 bytes, expected 92,190"),
    "bad label": (lambda content: content[:3073] + b"\x0a" + content[3074:], "has the label 10 in row 1, expected 0-9"),
}


@pytest.mark.parametrize("change, words", BAD_BINARY_BATCHES.values(), ids=BAD_BINARY_BATCHES)
def test_a_bad_binary_batch_is_named(tmp_path, change, words):
    write_binary_folder(tmp_path)
    path = tmp_path / SPEC.binary_folder / "data_batch_2.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        load_cifar(tmp_path, "train", SPEC)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


GOOD_ARCHIVE = archive_bytes()
MIDDLE = len(GOOD_ARCHIVE) // 2
BAD_ARCHIVES = {
    "empty": b"",
    "no gzip": b"<html>404 Not Found</html>",
    "first half": GOOD_ARCHIVE[:MIDDLE],
    "last byte missing": GOOD_ARCHIVE[:-1],
    "checksum wrong": GOOD_ARCHIVE[:-8] + bytes(4) + GOOD_ARCHIVE[-4:],
    "byte changed": GOOD_ARCHIVE[:MIDDLE] + bytes([GOOD_ARCHIVE[MIDDLE] ^ 1]) + GOOD_ARCHIVE[MIDDLE + 1 :],
}


@pytest.mark.parametrize("content", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_archive_is_named(tmp_path, content, split):
    (tmp_path / SPEC.archive).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_cifar(tmp_path, split, SPEC)
    assert str(caught.value).startswith(f"{tmp_path / SPEC.archive} is damaged or not readable (")
    assert "take it anew from cifar-10-python.tar.gz (md5 c58f" in str(caught.value)


def test_a_batch_that_is_a_folder_is_a_user_error(tmp_path):
    (tmp_path / SPEC.python_folder / "test_batch").mkdir(parents=True)
    with pytest.raises(UserError, match="test_batch cannot be opened"):
        load_cifar(tmp_path, "test", SPEC)


def test_an_unknown_split_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="split is 'validation': choose one of train, test"):
        load_cifar(tmp_path, "validation", SPEC)


def test_without_data_the_archive_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(GOOD_ARCHIVE) as server:
        spec = spec_with(urls=(server.url("missing"), server.url("good")), md5=hashlib.md5(GOOD_ARCHIVE).hexdigest())
        for split in ("train", "test"):
            images, labels = load_cifar(tmp_path / "new", split, spec)
            np.testing.assert_array_equal(images, expected(split)[0])
            np.testing.assert_array_equal(labels, expected(split)[1])
    assert [path for path, _ in server.requests] == ["missing", "good"]


def test_without_data_and_network_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(b"") as gone:
        url = gone.url("good")
    with pytest.raises(UserError) as caught:
        load_cifar(tmp_path, "train", spec_with(urls=(url,)))
    assert str(caught.value) == (
        f"CIFAR-10 is not in {tmp_path} "
        "(looked for cifar-10-batches-py, cifar-10-batches-bin, cifar-10-python.tar.gz, cifar10/VERSION), "
        f"and CIFAR-10 could not be downloaded: tried {url} (Connection refused); "
        "put cifar-10-python.tar.gz there, or set --data_dir or $CONVMIXER_DATA_DIR to a folder that has it; "
        "configs/digits.py runs without any data"
    )


def test_the_published_numbers():
    assert [CIFAR10.num_examples(split) for split in ("train", "test")] == [50_000, 10_000]
    assert [CIFAR10.per_class(split) for split in ("train", "test")] == [5_000, 1_000]
    assert len(CIFAR10.target.classes) == 10
    assert CIFAR10.target.classes.index("frog") == 6
    assert all(url.startswith("https://") and CIFAR10.archive in url for url in CIFAR10.urls)


def _real_data_dir() -> list[Path]:
    data_dir = Path(os.environ.get("CONVMIXER_DATA_DIR", ""))
    found = "CONVMIXER_DATA_DIR" in os.environ and any(
        (data_dir / name).exists() for name in (CIFAR10.python_folder, CIFAR10.binary_folder, CIFAR10.archive)
    )
    return [data_dir] if found else []


# The synthetic archive always; the real one as well wherever $CONVMIXER_DATA_DIR has it.
@pytest.fixture(params=["synthetic", *_real_data_dir()], ids=str)
def training_images_and_means(request, tmp_path):
    if request.param != "synthetic":
        return load_cifar(request.param, "train", CIFAR10)[0], (0.49139968, 0.48215841, 0.44653091)
    write_archive(tmp_path, TRAIN)
    return load_cifar(tmp_path, "train", SPEC)[0], (29.5 / 255, 115.5 / 255, 215.5 / 255)


def test_channel_means(training_images_and_means):
    images, means = training_images_and_means
    assert images.mean(axis=(0, 1, 2), dtype=np.float64) / 255 == pytest.approx(means, abs=1e-6)


def test_the_files_of_the_small_archives_are_those_of_the_specification():
    assert tuple(name for files in SPEC.files.values() for name, _ in files) == EVERY_FILE
    assert {name: rows for files in SPEC.files.values() for name, rows in files} == {
        name: len(numbers) for name, numbers in NUMBERS.items()
    }
