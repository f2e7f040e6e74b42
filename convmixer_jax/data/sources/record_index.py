"""Where the images of a set of shards lie, found once by reading all of them, and kept until they change.

index = index_records(shards, "tfrecord", [Keys("image", "label", ("file_name",))], total=50_000, what="ImageNet")
images = index.images(labels, (224, 224, 3))          # labels: whatever index.label means to the data set
raise UserError(f"{index.called(17)} has the label {index.label[17]}")
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.data.bars import bar
from convmixer_jax.data.sources.made_once import Arrays, forget, made_once
from convmixer_jax.data.sources.records import KINDS, WAY_OUT, RecordImages
from convmixer_jax.data.sources.tf_example import Feature, bytes_range, find_features, whole_number
from convmixer_jax.errors import UserError

_BAR_AFTER_S = 3.0
_FORMAT = "1"  # of what is kept: another number where it holds something else, so that it is made anew


@dataclasses.dataclass(frozen=True)
class Keys:
    """What the features of a record are called: image, label, and texts, which a record may lack."""

    image: str
    label: str
    texts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Every record of a set of shards, in order.

    keys: what the features of all of them are called. file, record: int32 [N], the shard and the place in it.
    offset, length: int64 [N], of the image's bytes, as `RecordImages` has them. label: int64 [N], as the records have
    it. texts: by key, bytes [N], empty where a record has none.
    """

    kind: str
    paths: tuple[Path, ...]
    keys: Keys
    file: np.ndarray
    record: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    label: np.ndarray
    texts: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.label)

    def called(self, index: int | np.integer) -> str:
        """Returns the number of a record and its shard."""
        return f"record {self.record[index]:,} of {self.paths[self.file[index]]}"

    def images(self, label: np.ndarray, image_shape: tuple[int, int, int], crop_pct: float = 1.0) -> RecordImages:
        """Returns the images with these labels, int32 [N]."""
        kind = KINDS[self.kind]
        return kind(
            kind.open_files(self.paths),
            self.file,
            self.offset,
            self.length,
            self.record,
            label=label,
            image_shape=image_shape,
            crop_pct=crop_pct,
        )


class UnusableShardsError(UserError):
    """Shards of a set cannot be used. The message is on the first that was found; `each` reads them all.

    each: yields a message on every one of them.
    """

    def __init__(self, message: str, each: Callable[[], Iterator[str]]):
        super().__init__(message)
        self.each = each


def index_records(paths: Sequence[Path], kind: str, choices: Sequence[Keys], total: int, what: str) -> RecordIndex:
    """Returns the index of the shards, all in one folder; made in parallel where none is kept (see made_once.py).

    kind: a row of KINDS. choices: what the features may be called; the first record decides. total: records that are
    expected, for the bar. what: names the images in messages.
    Raises UnusableShardsError, naming shard and record, where one is damaged, cut short, or lacks image or label.
    """
    made = False

    def make() -> Arrays:
        nonlocal made
        made = True
        choice = _choose(paths[0], kind, choices)
        return {"choice": np.array(choice)} | _make(paths, kind, choices[choice], total, f"{what}: indexing")

    described = repr((_FORMAT, kind, choices))
    try:
        arrays = made_once(paths[0].name, paths, described, make, f"{what}: the index of {len(paths):,} shards")
    except UserError as error:
        raise UnusableShardsError(str(error), lambda: _faults(paths, kind, choices)) from error
    keys = choices[int(arrays.pop("choice"))]
    for path in paths if made else ():
        forget(*_part(path, kind, keys))
    texts = {key: arrays.pop(f"text {key}") for key in keys.texts}
    return RecordIndex(kind=kind, paths=tuple(paths), keys=keys, texts=texts, **arrays)


def _faults(paths: Sequence[Path], kind: str, choices: Sequence[Keys]) -> Iterator[str]:
    """Reads all shards, and yields a message on each that cannot be used."""

    def fault(path: Path) -> str:
        try:
            _index_shard(path, kind, choices[_choose(path, kind, choices)], lambda _: None)
        except UserError as error:
            return str(error)
        return ""

    with _pool() as pool:
        yield from filter(None, pool.map(fault, paths))


def first_label(path: Path, kind: str, keys: Keys) -> int:
    """Returns the label of a shard's first record. Raises UserError where it has none."""
    for start, record in KINDS[kind].records(path):
        return _row(path, 0, start, record, keys)[2]
    raise UserError(f"{path} has no record: {WAY_OUT}")


def _choose(path: Path, kind: str, choices: Sequence[Keys]) -> int:
    """Returns which of the choices a shard's first record has the features of, the first where it has none's."""
    for _, record in KINDS[kind].records(path):
        features = _features(path, 0, record)
        fitting = [number for number, keys in enumerate(choices) if {keys.image, keys.label} <= features.keys()]
        return fitting[0] if fitting else 0
    return 0


def _make(paths: Sequence[Path], kind: str, keys: Keys, total: int, what: str) -> Arrays:
    with _pool() as pool, bar(what, total, " images", delay_s=_BAR_AFTER_S) as counted:
        try:
            shards = list(pool.map(lambda path: _kept_shard(path, kind, keys, counted.update), paths))
        finally:
            pool.shutdown(cancel_futures=True)
    counts = [len(shard["label"]) for shard in shards]
    return {
        "file": np.repeat(np.arange(len(paths), dtype=np.int32), counts),
        "record": np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        **{name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]},
    }


def _pool() -> concurrent.futures.ThreadPoolExecutor:
    # Checksums are compared by threads that do not hold the interpreter.
    return concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def _part(path: Path, kind: str, keys: Keys) -> tuple[str, list[Path], str]:
    """Returns by what the index of one shard is kept while those of the others are made."""
    return f"{path.name}.part", [path], repr((_FORMAT, kind, keys))


def _kept_shard(path: Path, kind: str, keys: Keys, tell: Callable[[int], object]) -> Arrays:
    """Returns the index of one shard: whoever was stopped before all were made goes on with the rest."""
    told = 0

    def tell_and_count(records: int) -> None:
        nonlocal told
        told += records
        tell(records)

    arrays = made_once(*_part(path, kind, keys), lambda: _index_shard(path, kind, keys, tell_and_count), what="")
    tell(len(arrays["label"]) - told)
    return arrays


def _index_shard(path: Path, kind: str, keys: Keys, tell: Callable[[int], object]) -> Arrays:
    rows: list[tuple] = []
    for start, record in KINDS[kind].records(path):
        rows.append(_row(path, len(rows), start, record, keys))
        tell(1)
    if not rows:
        raise UserError(f"{path} has no record: {WAY_OUT}")
    offset, length, label, *texts = zip(*rows, strict=True)
    arrays = {"offset": offset, "length": length, "label": label}
    return {name: np.array(values, np.int64) for name, values in arrays.items()} | {
        f"text {key}": np.array(values, np.bytes_) for key, values in zip(keys.texts, texts, strict=True)
    }


def _row(path: Path, number: int, start: int, record: bytes, keys: Keys) -> tuple:
    """Returns (offset of the image, its length, label, *texts)."""
    features = _features(path, number, record)
    for key in (keys.image, keys.label):
        if key not in features:
            raise UserError(
                f"record {number:,} of {path} has no feature {key!r}, but {', '.join(sorted(features)) or 'none'}: "
                f"{WAY_OUT}"
            )
    key = keys.image
    try:
        begin, end = bytes_range(record, features[key])
        key = keys.label
        row: list[Any] = [start + begin, end - begin, whole_number(record, features[key])]
        for key in keys.texts:
            row.append(record[slice(*bytes_range(record, features[key]))] if key in features else b"")
    except ValueError as error:
        raise UserError(f"record {number:,} of {path} has {error} as {key!r}: {WAY_OUT}") from error
    return tuple(row)


def _features(path: Path, number: int, record: bytes) -> dict[str, Feature]:
    try:
        return find_features(record)
    except ValueError as error:
        raise UserError(f"record {number:,} of {path} is no tf.train.Example (it has {error}): {WAY_OUT}") from error
