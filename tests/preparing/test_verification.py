"""Every bad image is listed, in whatever form the data are; images that are there twice are warned of."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data.sources import tfds_prepared
from convmixer_jax.data.sources.tiny_imagenet import read_tiny_imagenet
from convmixer_jax.data.sources.zipped import ZippedImages
from convmixer_jax.preparing import verification
from convmixer_jax.preparing.preparations import prepare
from convmixer_jax.preparing.repeated import Fingerprints, repeated
from convmixer_jax.preparing.requests import Request
from convmixer_jax.preparing.verification import verify
from tests.data.records import WRITE, example
from tests.preparing.tiny import SPEC, use_small_tiny, write_tiny, write_zip


@pytest.fixture
def data_dir(tmp_path, monkeypatch) -> Path:
    use_small_tiny(monkeypatch)
    monkeypatch.setattr(verification, "_AT_ONCE", 4)
    write_tiny(tmp_path)
    return tmp_path


def told(capsys, data_dir: Path) -> tuple[int, list[str]]:
    bad = verify(Request("tiny_imagenet", data_dir))
    return bad, capsys.readouterr().out.splitlines()


def spoil(folder: Path) -> None:
    images = folder / "train/n01/images"
    (images / "n01_0.JPEG").write_bytes(b"")
    (images / "n01_1.JPEG").write_bytes(b"<html>no image</html>")
    whole = (images / "n01_4.JPEG").read_bytes()
    (images / "n01_4.JPEG").write_bytes(whole[: len(whole) // 2])
    (folder / "val/images/val_5.JPEG").write_bytes(b"no image")
    shutil.copy(folder / "train/n02/images/n02_0.JPEG", folder / "train/n03/images/n03_4.JPEG")
    shutil.copy(folder / "train/n02/images/n02_1.JPEG", folder / "val/images/val_4.JPEG")


def test_each_bad_image_and_each_that_is_there_twice_is_listed(capsys, data_dir):
    assert told(capsys, data_dir) == (
        0,
        ["tiny_imagenet: no bad image of 21; 0 images are there under several labels or in both splits"],
    )
    spoil(folder := data_dir / SPEC.folder)
    bad, lines = told(capsys, data_dir)
    assert bad == 4
    for line, name in zip(lines, ("n01_0.JPEG", "n01_1.JPEG", "n01_4.JPEG", "val_5.JPEG"), strict=False):
        assert name in line
        assert "is damaged or no image" in line
    images = f"{folder}/train/n02/images"
    assert lines[4:] == [
        f"warning: one image under 2 labels: {folder}/train/n03/images/n03_4.JPEG (n03), {images}/n02_0.JPEG (n02)",
        f"warning: one image in test and train: {images}/n02_1.JPEG (n02), {folder}/val/images/val_4.JPEG (n02)",
        "tiny_imagenet: 4 bad of 21; 2 images are there under several labels or in both splits",
    ]


def test_damage_within_an_archive_is_found(capsys, data_dir):
    archive = write_zip(data_dir / SPEC.folder, data_dir / SPEC.archive)
    shutil.rmtree(data_dir / SPEC.folder)
    images = read_tiny_imagenet(archive, "train", SPEC)
    content = bytearray(archive.read_bytes())
    assert isinstance(images, ZippedImages)
    content[int(images.offset[7] + images.length[7] // 2)] ^= 255
    archive.write_bytes(content)
    bad, lines = told(capsys, data_dir)
    assert bad == 1
    assert f"{archive}:train/n01/images/n01_2.JPEG cannot be read" in lines[0]


def write_fruit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tfds would prepare: three shards of two images to train on, and one of two to test with."""
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").touch()
    pixels = iter(np.arange(8, dtype=np.uint8))
    shards = {"train": ["train-0", "train-1", "train-2"], "test": ["test-0"]}
    for name in (*shards["train"], *shards["test"]):
        records = []
        for label in range(2):
            png = io.BytesIO()
            Image.fromarray(np.full((4, 4, 3), next(pixels))).save(png, format="PNG")
            records.append(example({"image": png.getvalue(), "label": label}))
        WRITE["tfrecord"](directory / name, records)
    description = {
        "file_format": "tfrecord",
        "supervised": ["image", "label"],
        "splits": {split: [[name, 2] for name in names] for split, names in shards.items()},
        "images": {"image": {"shape": [4, 4, 3], "dtype": "uint8"}},
        "labels": {"label": ["pear", "fig"]},
        "others": [],
    }
    monkeypatch.setattr(tfds_prepared, "describe_tfds_directory", lambda _: description)


def test_every_damaged_shard_is_listed_and_the_other_split_is_looked_at(capsys, monkeypatch, tmp_path):
    write_fruit(directory := tmp_path / "fruit/1.0.0", monkeypatch)
    request = Request("tfds:fruit", tmp_path)
    summary = "0 images are there under several labels or in both splits\n"
    assert verify(request) == 0
    assert capsys.readouterr().out == f"tfds:fruit: no bad image of 8; {summary}"
    for name in ("train-0", "train-2"):
        (directory / name).write_bytes((directory / name).read_bytes()[:-1])
    WRITE["tfrecord"](
        directory / "test-0", [example({"image": b"x" * (1 + label), "label": label}) for label in range(2)]
    )
    assert verify(request) == 4
    first, second, *images, last = capsys.readouterr().out.splitlines(keepends=True)
    assert first.startswith(f"{directory}/train-0 is damaged or cut short at record 1")
    assert second.startswith(f"{directory}/train-2 is damaged or cut short at record 1")
    assert [line.partition(" (")[0] for line in images] == [f"record {n} of {directory}/test-0" for n in range(2)]
    assert last == f"tfds:fruit: 4 bad of 2; {summary}"


def test_a_split_that_cannot_be_opened_is_listed(capsys, data_dir):
    (data_dir / SPEC.folder / "train/n01/images/n01_2.JPEG").unlink()
    bad, lines = told(capsys, data_dir)
    assert bad == 1
    assert lines[0].endswith("unpack that part of tiny-imagenet-200 anew from http://127.0.0.1:9/x")
    assert lines[1].startswith("tiny_imagenet: 1 bad of 6; ")


def flip_a_pixel(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def test_the_arrays_are_compared_with_the_images_or_with_their_record(capsys, data_dir):
    prepare(Request("tiny_imagenet", data_dir))
    assert told(capsys, data_dir)[0] == 0
    flip_a_pixel(data_dir / "tiny_imagenet.prepared/test.npy")
    bad, lines = told(capsys, data_dir)
    assert bad == 1
    assert lines[0].endswith("val/images/val_5.JPEG has other pixels in the prepared array")
    shutil.rmtree(data_dir / SPEC.folder)
    bad, lines = told(capsys, data_dir)
    assert bad == 1  # which of them is not known
    assert "tiny_imagenet.prepared is damaged or not readable (test is not what" in lines[0]


def prints(split: str, *rows: tuple[int, int]) -> Fingerprints:
    """Of (content, label); content 0 is an image that could not be read."""
    sha1 = np.array([[content] * 20 for content, _ in rows], np.uint8)
    return Fingerprints(split, sha1, np.array([label for _, label in rows], np.int32), lambda n: f"{split}{n}")


def test_what_is_there_twice_and_does_harm():
    train = prints("train", (7, 0), (8, 1), (7, 1), (0, 0), (0, 1), (9, 0), (9, 0))
    test = prints("test", (8, 1), (5, 1), (7, 0))
    assert repeated([train, test], ["cat", "dog"]) == [
        "warning: one image under 2 labels: train0 (cat), train2 (dog), test2 (cat)",
        "warning: one image in test and train: train1 (dog), test0 (dog)",
    ]
    assert repeated([prints("train", (0, 0), (0, 1))], ["cat", "dog"]) == []
