"""Shards of records with numbers that can be checked by hand, in both formats."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.data.sources.record_index import Keys, RecordIndex, index_records
from convmixer_jax.data.sources.records import RecordImages
from convmixer_jax.data.tensorflow_cpu import load_tensorflow

Features = dict[str, Any]


def example(features: Features) -> bytes:
    """A serialised tf.train.Example. A value is bytes, a number, or a list of one kind."""
    tf = load_tensorflow()
    made = {}
    for key, value in features.items():
        values = value if isinstance(value, list) else [value]
        if values and isinstance(values[0], bytes):
            made[key] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif values and isinstance(values[0], int):
            made[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            made[key] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write_tfrecord(path: Path, records: Sequence[bytes]) -> None:
    with load_tensorflow().io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def write_array_record(path: Path, records: Sequence[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


WRITE: dict[str, Callable[[Path, Sequence[bytes]], None]] = {
    "tfrecord": write_tfrecord,
    "array_record": write_array_record,
}


def write_shards(folder: Path, split: str, kind: str, shards: Sequence[Sequence[Features]]) -> list[Path]:
    """FOLDER/SPLIT-0000n-of-0000N, as TensorFlow's scripts name them, with the kind before it for ArrayRecord."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = split if kind == "tfrecord" else f"{split}.{kind}"
    paths = [folder / f"{stem}-{number:05}-of-{len(shards):05}" for number in range(len(shards))]
    for path, records in zip(paths, shards, strict=True):
        WRITE[kind](path, [example(features) for features in records])
    return paths


def spoil_bytes(path: Path) -> None:
    """Changes one bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip(path: Path, needle: bytes) -> None:
    """Changes one bit of the first byte of `needle`, which the file holds once."""
    content = bytearray(path.read_bytes())
    assert content.count(needle) == 1
    content[content.index(needle)] ^= 1
    path.write_bytes(content)


KEYS = Keys("image", "label", ("name",))
SIZES = (5, 1, 7)  # records of each shard


def image(n: int) -> bytes:
    """The made-up bytes of image n, each with another length, which occur once in a shard."""
    return f"<image {n}>".encode() * (1 + 300 * n) + f"<end of {n}>".encode()


def record(n: int) -> Features:
    return {"image": image(n), "label": 100 + n, "extra": [0.5] * n} | ({"name": f"n{n}".encode()} if n % 2 else {})


def write_numbered(folder: Path, kind: str) -> list[Path]:
    numbers = iter(range(sum(SIZES)))
    return write_shards(folder, "train", kind, [[record(next(numbers)) for _ in range(size)] for size in SIZES])


def index_of(paths: list[Path], kind: str) -> RecordIndex:
    return index_records(paths, kind, [KEYS], total=sum(SIZES), what="numbers")


def images_of(paths: list[Path], kind: str) -> RecordImages:
    index = index_of(paths, kind)
    return index.images((index.label - 100).astype(np.int32), (8, 8, 3), crop_pct=0.5)
