"""Shards that are damaged, cut short or hold something else: told with shard, record and the way out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.sources.records import damaged_shards
from convmixer_jax.errors import UserError
from tests.data.images import make_it_a_folder
from tests.data.records import WRITE, example, flip, image, images_of, index_of, record, spoil_bytes, write_numbered


def cut(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def at_the_end_of_a_record(path: Path) -> None:
    """Leaves two of five whole TFRecords, so that no checksum is wrong."""
    size = sum(16 + len(example(record(n))) for n in range(2))
    path.write_bytes(path.read_bytes()[:size])


# For each: the kind, what is done to the first shard, and what is said after its name.
DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a bit of an image": ("tfrecord", lambda p: flip(p, b"<end of 3>"), "cut short at record 3 (corrupted record at"),
    "a length": ("tfrecord", lambda p: p.write_bytes(b"\x00" + p.read_bytes()[1:]), "cut short at record 0 ("),
    "one byte short": ("tfrecord", lambda p: cut(p, 1), "cut short at record 4 (truncated record at"),
    "cut in a length": ("tfrecord", lambda p: p.write_bytes(p.read_bytes()[:7]), "cut short at record 0 (byte 0 of 7)"),
    "empty": ("tfrecord", lambda p: p.write_bytes(b""), "has no record:"),
    "no records": ("tfrecord", lambda p: p.write_bytes(b"junk" * 100), "cut short at record 0 (corrupted record at 0"),
    "gone": ("tfrecord", lambda p: p.unlink(), "cannot be read (No such file or directory):"),
    "a folder": ("tfrecord", make_it_a_folder, "cannot be read (Is a directory):"),
    "a bit of a compressed image": ("array_record", spoil_bytes, "is damaged or cut short at record "),
    "half": ("array_record", lambda p: cut(p, p.stat().st_size // 2), "cut short at record 0 ("),
    "an empty file": ("array_record", lambda p: p.write_bytes(b""), "file should be at least 64KB big"),
    "other bytes": ("array_record", lambda p: p.write_bytes(b"junk" * 30_000), "cut short at record 0 ("),
    "no file": ("array_record", lambda p: p.unlink(), "cannot be read (No such file or directory):"),
    "no example": (
        "tfrecord",
        lambda p: WRITE["tfrecord"](p, [b"\xff" * 20]),
        "is no tf.train.Example (it has a number",
    ),
    "no image": (
        "array_record",
        lambda p: WRITE["array_record"](p, [example(record(0)), example({"label": 3})]),
        "has no feature 'image', but label:",
    ),
    "two labels": (
        "tfrecord",
        lambda p: WRITE["tfrecord"](p, [example({"image": b"", "label": [1, 2]})]),
        "has 2, not one whole number as 'label':",
    ),
}


@pytest.mark.parametrize("kind, spoil, words", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_with_its_place_and_leaves_no_index(kind, spoil, words, tmp_path):
    shards = write_numbered(tmp_path, kind)
    spoil(shards[0])
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            index_of(shards, kind)
        message = str(caught.value)
        assert words in message
        assert str(shards[0]) in message
        assert "the shard anew" in message or "put it back" in message
        assert "function_node" not in message
    assert [path for path in tmp_path.glob(".index/*") if ".part-" not in path.name] == []  # the other shards' stay


def test_a_shard_that_ends_after_a_whole_record_has_fewer(tmp_path):
    shards = write_numbered(tmp_path, "tfrecord")
    at_the_end_of_a_record(shards[0])
    assert np.bincount(index_of(shards, "tfrecord").file).tolist() == [2, 1, 7]


def test_shards_that_change_after_they_were_opened(shards, kind):
    images = images_of(shards, kind)
    assert images.read(5) == image(5)
    shards[0].write_bytes(shards[0].read_bytes()[:100])
    shards[2].unlink()
    with pytest.raises(OSError, match="its file ends at byte 100 of|Read|Corrupted|64KB"):
        images.read(3)
    with pytest.raises(OSError, match="No such file"):
        images.read(12)


def test_verification_compares_checksums_that_reading_does_not(shards, kind):
    images = images_of(shards, kind)
    assert list(damaged_shards(images)) == []
    spoil_bytes(shards[0])
    spoil_bytes(shards[2])
    found = list(damaged_shards(images))
    assert [str(path) in line for path, line in zip([shards[0], shards[2]], found, strict=True)] == [True, True]
    assert list(damaged_shards(images.take(np.array([5])))) == []
