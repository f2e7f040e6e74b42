"""Tiny ImageNet decoded once: the same pixels and digests, whatever stops it, and never arrays of other images."""

import dataclasses
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.datasets import DATASETS, load_split, open_split
from convmixer_jax.data.examples import Examples
from convmixer_jax.data.host_batches import in_memory
from convmixer_jax.data.sources.tiny_imagenet import load_tiny_imagenet
from convmixer_jax.errors import UserError
from convmixer_jax.preparing import decoding
from convmixer_jax.preparing.preparations import prepare
from convmixer_jax.preparing.requests import Request
from tests.preparing.tiny import SIZES, SPEC, use_small_tiny, write_image, write_tiny, write_zip

PREPARED = "tiny_imagenet.prepared"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("tiny")
    write_tiny(data_dir)
    return data_dir


@pytest.fixture
def data_dir(original, tmp_path, monkeypatch) -> Path:
    """A copy of the made-up folder, which is what `tiny_imagenet` means."""
    use_small_tiny(monkeypatch)
    monkeypatch.setattr(decoding, "CHUNK", 4)
    return Path(shutil.copytree(original, tmp_path / "data"))


@pytest.fixture(scope="module")
def decoded_once(original, tmp_path_factory) -> Path:
    data_dir = shutil.copytree(original, tmp_path_factory.mktemp("prepared") / "data")
    with pytest.MonkeyPatch.context() as patch:
        use_small_tiny(patch)
        prepare(request(data_dir))
    return data_dir


@pytest.fixture
def ready(data_dir, decoded_once) -> Path:
    """The same copy, decoded."""
    shutil.copytree(decoded_once / PREPARED, data_dir / PREPARED)
    return data_dir


def request(data_dir: Path, **changes) -> Request:
    return dataclasses.replace(Request("tiny_imagenet", data_dir), **changes)


def opened(data_dir: Path, split: str = "train"):
    return open_split(DATASETS["tiny_imagenet"], split, data_dir)


def test_the_arrays_are_what_the_pipeline_decodes(data_dir, capsys):
    files = {split: opened(data_dir, split) for split in SIZES}
    decoded = {split: load_split(DATASETS["tiny_imagenet"], split, data_dir) for split in SIZES}
    prepare(request(data_dir))
    for split, count in SIZES.items():
        examples = opened(data_dir, split)
        assert isinstance(examples, Examples)
        assert isinstance(examples.image, np.memmap)
        assert len(examples) == count
        np.testing.assert_array_equal(examples.image, decoded[split].image)
        np.testing.assert_array_equal(examples.label, decoded[split].label)
        assert examples.digest() == files[split].digest()
        some = np.array([3, 1])
        assert examples.take(some).digest() == files[split].take(some).digest()
    assert "train: 15 images as 16x16x3, 3 classes, 5 of each, SHA-256 of names, sizes" in capsys.readouterr().out
    assert sorted(path.name for path in data_dir.iterdir()) == [SPEC.folder, PREPARED]


def test_a_second_run_does_nothing(ready, capsys, monkeypatch):
    data_dir = ready
    monkeypatch.setattr("convmixer_jax.preparing.decoded.decode", lambda *_: pytest.fail("decoded again"))
    prepare(request(data_dir))
    assert capsys.readouterr().out.endswith("ready in " + str(data_dir / PREPARED) + " already: nothing to do\n")


def test_the_archive_serves_as_the_folder_does(data_dir):
    digest = opened(data_dir).digest()
    pixels = load_split(DATASETS["tiny_imagenet"], "train", data_dir).image
    write_zip(data_dir / SPEC.folder, data_dir / SPEC.archive)
    shutil.rmtree(data_dir / SPEC.folder)
    assert opened(data_dir).digest() == digest
    prepare(request(data_dir))
    np.testing.assert_array_equal(opened(data_dir).image, pixels)
    (data_dir / SPEC.archive).touch()  # no longer known by its time: its list says that it is the same
    assert opened(data_dir).digest() == digest


def test_without_the_images_the_arrays_stand_for_themselves(ready, capsys):
    data_dir = ready
    digest = opened(data_dir).digest()
    shutil.rmtree(data_dir / SPEC.folder)
    assert opened(data_dir).digest() == digest
    prepare(request(data_dir))
    assert "nothing to do" in capsys.readouterr().out


def test_arrays_of_other_images_are_refused_and_made_anew_when_asked(ready):
    data_dir = ready
    write_image(data_dir / SPEC.folder / "train/n01/images/n01_0.JPEG", seed=999)
    for attempt in (lambda: opened(data_dir), lambda: prepare(request(data_dir))):
        with pytest.raises(UserError, match=r"made of other images than those in .*prepare tiny_imagenet .* --force"):
            attempt()
    assert len(opened(data_dir, "test")) == SIZES["test"]  # nothing of that has changed
    prepare(request(data_dir, force=True))
    files = load_tiny_imagenet(data_dir, "train", SPEC)
    assert opened(data_dir).digest() == files.digest()
    assert sorted(path.name for path in data_dir.iterdir()) == [SPEC.folder, PREPARED]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


DAMAGES = {
    "pixels cut short": lambda folder: cut(folder / "train.npy"),
    "no pixels": lambda folder: (folder / "train.npy").unlink(),
    "index cut short": lambda folder: cut(folder / "train.npz"),
    "record cut short": lambda folder: cut(folder / "prepared.json"),
    "another format": lambda folder: (folder / "prepared.json").write_text('{"format": 2}'),
    "no record": lambda folder: (folder / "prepared.json").unlink(),
    "of another length": lambda folder: np.save(folder / "train.npy", np.zeros((3, 16, 16, 3), np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_arrays_are_refused(ready, damage):
    damage(ready / PREPARED)
    for attempt in (lambda: opened(ready), lambda: prepare(request(ready))):
        with pytest.raises(UserError, match=r"tiny_imagenet.prepared .*--force` makes it anew; or delete it"):
            attempt()


class StopError(Exception):
    """Stands for whatever ends the process."""


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_whatever_stops_it_the_next_goes_on_from_there(data_dir, decoded_once, monkeypatch, stop_after):
    counted = []

    class Stopping(decoding.Counting):
        def advance(self, updates: int) -> None:
            counted.append(updates)
            if len(counted) == stop_after:
                raise StopError

    monkeypatch.setattr(decoding, "Counting", Stopping)
    with pytest.raises(StopError):
        prepare(request(data_dir))
    assert not (data_dir / PREPARED).exists()
    with open(data_dir / f"{PREPARED}.part/train.npy", "ab") as file:
        file.write(b"a part of a chunk that was cut short")
    prepare(request(data_dir))
    assert counted == [4, 4, 4, 3, 4, 2]  # in chunks of 4, none of the 15 and 6 twice or left out
    for split in SIZES:
        made, expected = ((folder / PREPARED / f"{split}.npy").read_bytes() for folder in (data_dir, decoded_once))
        assert made == expected


def test_what_was_begun_of_other_images_is_begun_anew(ready):
    (ready / PREPARED).rename(ready / f"{PREPARED}.part")
    write_image(ready / SPEC.folder / "train/n01/images/n01_0.JPEG", seed=999)
    prepare(request(ready))
    images = load_tiny_imagenet(ready, "train", SPEC)
    np.testing.assert_array_equal(opened(ready).image[5], in_memory(images.take(np.array([5]))).image[0])


def test_a_disk_with_too_little_room_is_told_before(data_dir, monkeypatch):
    usage = shutil.disk_usage(data_dir)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs 0\.00 GB more and its disk has 0\.00 GB free: free some or choose"):
        prepare(request(data_dir))
    assert not (data_dir / PREPARED).exists()


def test_a_disk_that_fills_up_is_told_and_what_is_decoded_stays(data_dir, decoded_once):
    # A limit on the size of files stands for a full disk: room for one chunk of 4 images of 768 bytes, not for two.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(UserError, match=r"\(File too large\): what is decoded stays; .* run again to go on"):
            prepare(request(data_dir))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    record = json.loads((data_dir / f"{PREPARED}.part/prepared.json").read_text())
    assert record["splits"]["train"]["done"] == 4
    prepare(request(data_dir))
    pixels = [(folder / PREPARED / "train.npy").read_bytes() for folder in (data_dir, decoded_once)]
    assert pixels[0] == pixels[1]


def test_a_damaged_image_is_named(data_dir):
    (data_dir / SPEC.folder / "train/n02/images/n02_3.JPEG").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"n02_3\.JPEG .*damaged or no image"):
        prepare(request(data_dir))


def test_a_folder_from_elsewhere_is_read_where_it_is(data_dir, tmp_path):
    for number, given in enumerate((data_dir / SPEC.folder, data_dir)):
        prepare(request(tmp_path / f"new{number}", archive=given))
        assert [path.name for path in (tmp_path / f"new{number}").iterdir()] == [PREPARED]
        assert opened(tmp_path / f"new{number}").digest() == opened(data_dir).digest()


def test_an_archive_from_elsewhere_is_stored_and_used(data_dir, tmp_path, capsys):
    archive = write_zip(data_dir / SPEC.folder, tmp_path / "elsewhere/mine.zip")
    prepare(request(tmp_path / "new", archive=archive))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [SPEC.archive, PREPARED]
    assert (tmp_path / "new" / SPEC.archive).samefile(archive)
    assert "has the md5" in capsys.readouterr().err
    assert opened(tmp_path / "new").digest() == opened(data_dir).digest()


BAD_ARCHIVES = {
    "missing": (lambda path: None, "--from .* cannot be read"),
    "cut short": (lambda path: path.write_bytes(b"PK\3\4" + bytes(100)), "damaged or no zip archive"),
    "of something else": (lambda path: write_zip(path.parent, path.with_name("mine.zip")), "cannot be read"),
}


@pytest.mark.parametrize("make, words", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_a_bad_archive_is_not_stored(data_dir, tmp_path, make, words):
    (tmp_path / "elsewhere").mkdir()
    make(tmp_path / "elsewhere/mine.zip")
    with pytest.raises(UserError, match=words):
        prepare(request(tmp_path / "new", archive=tmp_path / "elsewhere/mine.zip"))
    assert not (tmp_path / "new").exists()


def test_without_anything_it_is_downloaded_and_failing_leaves_nothing(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match=r"Tiny ImageNet could not be downloaded: tried http://127\.0\.0\.1:9/x"):
        prepare(request(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
