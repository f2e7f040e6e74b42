"""Images in records are found directly, by any thread, with the shards read once; damage is named with its place."""

import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.sources import packed, record_index, records
from convmixer_jax.data.sources.record_index import Keys, first_label, index_records
from convmixer_jax.data.sources.records import KINDS, RecordImages
from tests.data.records import KEYS, image, images_of, index_of, spoil_bytes, write_numbered


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """Lists the shards that are read from their start to their end."""
    seen: list[Path] = []

    def watch(each: type[RecordImages]) -> None:
        read = each.records

        def watched(path: Path) -> Iterator[tuple[int, bytes]]:
            seen.append(path)
            return read(path)

        monkeypatch.setattr(each, "records", staticmethod(watched))

    for each in KINDS.values():
        watch(each)
    return seen


def test_the_index_says_what_was_written(shards, kind):
    index = index_of(shards, kind)
    assert index.label.tolist() == list(range(100, 113))
    assert index.file.tolist() == [0] * 5 + [1] + [2] * 7
    assert index.record.tolist() == [*range(5), 0, *range(7)]
    assert index.length.tolist() == [len(image(n)) for n in range(13)]
    assert index.texts["name"].tolist() == [f"n{n}".encode() if n % 2 else b"" for n in range(13)]
    assert index.called(7) == f"record 1 of {shards[2]}"
    assert first_label(shards[2], kind, KEYS) == 106


def test_eight_threads_read_each_image_in_any_order(shards, kind):
    images = images_of(shards, kind)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(13), 40)).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for n, content in zip(order, pool.map(images.read, order), strict=True):
            assert content == image(n)


def test_a_part_keeps_everything(shards, kind):
    part = images_of(shards, kind).take(np.array([12, 5, 0]))
    assert [part.read(n) for n in range(3)] == [image(12), image(5), image(0)]
    assert part.label.tolist() == [12, 5, 0]
    assert (part.image_shape, part.crop_pct) == ((8, 8, 3), 0.5)
    assert part.called(0) == f"record 6 of {shards[2]}"
    assert list(part.sizes()) == [
        (f"{shards[2].name}:6", len(image(12))),
        (f"{shards[1].name}:0", len(image(5))),
        (f"{shards[0].name}:0", len(image(0))),
    ]


def test_the_digest_stays_where_the_shards_move(shards, kind, tmp_path):
    before = images_of(shards, kind).digest()
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / path.name for path in shards]
    assert images_of(moved, kind).digest() == before
    assert images_of(moved, kind).take(np.arange(12)).digest() != before


def test_more_shards_than_may_be_open(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(packed, "OPEN_AT_ONCE", 2)
    monkeypatch.setattr(records, "OPEN_AT_ONCE", 2)
    images = images_of(write_numbered(tmp_path, kind), kind)
    before = len(os.listdir("/proc/self/fd"))
    for n in [0, 5, 12] * 3:
        assert images.read(n) == image(n)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    del images
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_shards_are_read_once(shards, kind, reads):
    first = index_of(shards, kind)
    assert set(reads) == set(shards)
    reads.clear()
    second = index_of(shards, kind)
    assert reads == []
    for name in ("file", "record", "offset", "length", "label"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), strict=True)
    np.testing.assert_array_equal(first.texts["name"], second.texts["name"], strict=True)


# What is done to the kept index or to the shards; each has it made anew.
STALE: dict[str, Callable[[Path, list[Path]], object]] = {
    "a shard touched": lambda kept, shards: os.utime(shards[1], ns=(1, 1)),
    "a bit flipped in it": lambda kept, shards: spoil_bytes(kept),
    "cut short": lambda kept, shards: kept.write_bytes(kept.read_bytes()[:-100]),
    "empty": lambda kept, shards: kept.write_bytes(b""),
    "gone": lambda kept, shards: kept.unlink(),
    "something else": lambda kept, shards: np.savez(kept, other=np.arange(3)),
}


@pytest.mark.parametrize("spoil", STALE.values(), ids=STALE)
def test_a_stale_or_damaged_index_is_made_anew(tmp_path, reads, spoil):
    shards = write_numbered(tmp_path, "tfrecord")
    index_of(shards, "tfrecord")
    (kept,) = (tmp_path / ".index").iterdir()
    spoil(kept, shards)
    reads.clear()
    for expected in (set(shards), set()):
        assert index_of(shards, "tfrecord").length.tolist() == [len(image(n)) for n in range(13)]
        assert set(reads) == expected
        reads.clear()


def test_an_index_of_other_features_is_not_taken_and_takes_no_place(tmp_path, reads):
    shards = write_numbered(tmp_path, "tfrecord")
    index_of(shards, "tfrecord")
    for expected in (set(shards), set()):
        reads.clear()
        other = index_records(shards, "tfrecord", [Keys("image", "label")], total=13, what="numbers")
        assert set(reads) == expected
        assert other.texts == {}
    assert index_of(shards, "tfrecord").texts["name"].tolist()[1] == b"n1"
    assert reads == []


def test_whoever_was_stopped_goes_on_with_the_shards_that_are_left(shards, kind, reads, monkeypatch):
    made = record_index._index_shard

    def stopped(path: Path, *arguments) -> dict:
        if path == shards[2]:
            raise KeyboardInterrupt
        return made(path, *arguments)

    monkeypatch.setattr(record_index.os, "sched_getaffinity", lambda _: {0})  # one after the other
    monkeypatch.setattr(record_index, "_index_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        index_of(shards, kind)
    monkeypatch.setattr(record_index, "_index_shard", made)
    reads.clear()
    index = index_of(shards, kind)
    assert set(reads) == {shards[0], shards[2]}  # the first for what its features are called
    assert reads.count(shards[0]) == 1
    assert index.label.tolist() == [100 + n for n in range(13)]
    assert len(list((shards[0].parent / ".index").iterdir())) == 1


def test_the_first_choice_that_the_first_record_has_is_taken(tmp_path):
    shards = write_numbered(tmp_path, "tfrecord")
    choices = [Keys("image/encoded", "image/class/label"), Keys("image", "label")]
    assert index_records(shards, "tfrecord", choices, total=13, what="numbers").keys == choices[1]


def test_where_the_folder_cannot_be_written_the_index_lies_elsewhere(shards, kind, own_cache, reads):
    (shards[0].parent / ".index").write_text("a file, so that there cannot be a folder")
    index_of(shards, kind)
    (kept,) = own_cache.glob("*/*")
    assert kept.name.startswith(f"{shards[0].name}-")
    reads.clear()
    assert images_of(shards, kind).read(12) == image(12)
    assert reads == []


def test_where_nothing_can_be_written_a_line_says_so(shards, kind, own_cache, reads, capsys):
    (shards[0].parent / ".index").write_text("")
    own_cache.write_text("")
    for _ in range(2):
        reads.clear()
        assert images_of(shards, kind).read(3) == image(3)
        assert set(reads) == set(shards)
    assert "made anew each time, since it cannot be kept in" in capsys.readouterr().err


def test_of_two_at_once_one_reads_and_the_other_waits(shards, kind, reads, monkeypatch, capsys):
    begun, go_on = threading.Event(), threading.Event()
    made = record_index._make

    def slow(*arguments) -> dict:
        begun.set()
        assert go_on.wait(10)
        return made(*arguments)

    monkeypatch.setattr(record_index, "_make", slow)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(index_of, shards, kind)
        assert begun.wait(10)
        second = pool.submit(index_of, shards, kind)
        while "waiting for another process" not in capsys.readouterr().err:
            assert not second.done()
        go_on.set()
        assert first.result().label.tolist() == second.result().label.tolist()
    assert sorted(reads) == sorted([shards[0], *shards])  # the first for what its features are called


WITHOUT = """
import pathlib, sys
from tests.data.records import images_of, image
shards = [pathlib.Path(path) for path in sys.argv[2:]]
assert images_of(shards, sys.argv[1]).read(12) == image(12)
print(sorted({"tensorflow", "jax"} & set(sys.modules)))
"""


def test_with_an_index_tensorflow_is_not_needed(shards, kind):
    index_of(shards, kind)
    command = [sys.executable, "-c", WITHOUT, kind, *map(str, shards)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
