"""The data sets of the CIFAR family as one array of images and one of labels, from whichever form of files there is.

    images, labels = load_cifar(data_dir, "train", CIFAR10)

What differs between the data sets is data, in a `CifarSpec` (cifar_specs.py).
"""

import gzip
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from convmixer_jax.data.sources.cifar_specs import CifarSpec, Labels
from convmixer_jax.data.sources.download import fetch
from convmixer_jax.data.sources.folders import difference, names_in
from convmixer_jax.data.sources.pickles import load_plain_pickle
from convmixer_jax.data.sources.tfds_directory import newest_version, read_tfds_directory
from convmixer_jax.errors import UserError, lookup

_CHANNELS, _SIDE = 3, 32
_PIXELS = _CHANNELS * _SIDE * _SIDE

Split = tuple[np.ndarray, np.ndarray]  # while it is read: uint8 [N, H, W, C], and int32 [N, labels of an image]


def load_cifar(data_dir: Path, split: str, spec: CifarSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 [N, 32, 32, 3] in 0-255, and the labels, int32 [N], of "train" or "test".

    Reads the first of these that `data_dir` has: the folder of python batches, that of binary batches, the archive of
    python batches (in place: nothing is unpacked), a directory prepared by tfds. Otherwise downloads the archive.
    Only the files of `split` are needed. All give the same examples; the order is the published one, except from tfds,
    which shuffles while it prepares.
    Raises UserError where nothing is found nor downloaded, and where what is found is not the whole, undamaged split
    with the published classes.
    """
    lookup(spec.files, split, "split")
    try:
        found = [(path, read) for path, read in _candidates(data_dir, spec) if path.exists()]
    except OSError as error:
        raise UserError(f"--data_dir {data_dir} cannot be read ({error.strerror}): name a folder that can") from error
    if not found:
        _download(data_dir / spec.archive, spec)
        found = [(data_dir / spec.archive, _read_archive)]
    path, read = found[0]
    images, labels = read(path, split, spec)
    _check_split(labels, path, split, spec)
    return images, np.ascontiguousarray(labels[:, spec.wanted])


def _candidates(data_dir: Path, spec: CifarSpec) -> list[tuple[Path, Callable[[Path, str, CifarSpec], Split]]]:
    prepared = newest_version(data_dir / spec.tfds_name)
    return [
        (data_dir / spec.python_folder, _read_python_folder),
        (data_dir / spec.binary_folder, _read_binary_folder),
        (data_dir / spec.archive, _read_archive),
        *([(prepared, _read_prepared)] if prepared else []),
    ]


def _download(archive: Path, spec: CifarSpec) -> None:
    try:
        fetch(spec.urls, archive, spec.md5, spec.name)
    except UserError as error:
        looked = f"{spec.python_folder}, {spec.binary_folder}, {spec.archive}, {spec.tfds_name}/VERSION"
        raise UserError(
            f"{spec.name} is not in {archive.parent} (looked for {looked}), and {error}; "
            f"put {spec.archive} there, or set --data_dir or $CONVMIXER_DATA_DIR to a folder that has it; "
            "configs/digits.py runs without any data"
        ) from error


def _read_python_folder(folder: Path, split: str, spec: CifarSpec) -> Split:
    def read(name: str, rows: int) -> Split:
        with _open(folder / name, spec) as file:
            return _python_batch(file, str(folder / name), rows, spec)

    if spec.names_file in names_in(folder, _way_out(spec)):
        with _open(folder / spec.names_file, spec) as file:
            _check_names(file, str(folder / spec.names_file), spec)
    return _join([read(name, rows) for name, rows in spec.files[split]])


def _read_binary_folder(folder: Path, split: str, spec: CifarSpec) -> Split:
    def read(name: str, rows: int) -> Split:
        with _open(folder / f"{name}.bin", spec) as file:
            return _binary_batch(file.read(), str(folder / f"{name}.bin"), rows, spec)

    _check_lists(folder, {labels.names_file: labels for labels in spec.labels}, spec)
    return _join([read(name, rows) for name, rows in spec.files[split]])


def _read_archive(archive: Path, split: str, spec: CifarSpec) -> Split:
    wanted = {posixpath.join(spec.python_folder, name): rows for name, rows in spec.files[split]}
    names = posixpath.join(spec.python_folder, spec.names_file)
    members = _archive_members(archive, frozenset([*wanted, names]), spec)
    if names in members:
        _check_names(BytesIO(members[names]), f"{archive}:{names}", spec)
    for name in wanted:
        if name not in members:
            raise UserError(f"{archive} has no file {name}: {_way_out(spec)}")
    # A member is dropped once it is read: five of them and the images would be half a gigabyte.
    return _join(
        [_python_batch(BytesIO(members.pop(name)), f"{archive}:{name}", rows, spec) for name, rows in wanted.items()]
    )


def _archive_members(archive: Path, names: frozenset[str], spec: CifarSpec) -> dict[str, bytes]:
    contents = {}
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                if name in names and member.isfile() and (file := tar.extractfile(member)):
                    contents[name] = file.read()
            # tar stops at its end mark; the checksum of gzip comes after, and is compared only when it is reached.
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{archive} is damaged or not readable ({error}): {_way_out(spec)}") from error
    return contents


def _read_prepared(directory: Path, split: str, spec: CifarSpec) -> Split:
    _check_lists(directory, {f"{labels.feature}.labels.txt": labels for labels in spec.labels}, spec)
    images, labels = read_tfds_directory(
        directory, spec.tfds_name, split, tuple(labels.feature for labels in spec.labels)
    )
    expected = (spec.num_examples(split), _SIDE, _SIDE, _CHANNELS)
    if images.dtype != np.uint8 or images.shape != expected:
        raise UserError(
            f"{directory} holds {_describe(images)} as {split!r}, expected uint8 {expected}: {_way_out(spec)}"
        )
    return images, _checked_labels(labels, str(directory), spec)


def _python_batch(file: BinaryIO, name: str, rows: int, spec: CifarSpec) -> Split:
    entries = _entries(file, name)
    pixels = entries.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (rows, _PIXELS):
        raise UserError(f"{name} has {_describe(pixels)} as 'data', expected uint8 {(rows, _PIXELS)}: {_way_out(spec)}")
    columns = []
    for key in (labels.key for labels in spec.labels):
        column = entries.get(key)
        if isinstance(column, np.ndarray):
            column = column.tolist()
        if not isinstance(column, list) or not all(type(label) is int for label in column) or len(column) != rows:
            raise UserError(
                f"{name} has {_describe(column)} as {key!r}, expected {rows} whole numbers: {_way_out(spec)}"
            )
        columns.append(column)
    return _images(pixels), _checked_labels(np.array(columns).T, name, spec)


def _entries(file: BinaryIO, name: str) -> dict[str, object]:
    content = load_plain_pickle(file, name)
    entries = content if isinstance(content, dict) else {}
    # Written by Python 2 and read by Python 3, or copied from one to the other, keys are str or bytes.
    return {_text(key): value for key, value in entries.items()}


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _binary_batch(content: bytes, name: str, rows: int, spec: CifarSpec) -> Split:
    width = len(spec.labels)
    record = width + _PIXELS
    if len(content) != rows * record:
        raise UserError(
            f"{name} holds {len(content):,} bytes, expected {rows * record:,} ({rows:,} records of {record:,}): "
            f"{_way_out(spec)}"
        )
    records = np.frombuffer(content, np.uint8).reshape(rows, record)
    return _images(records[:, width:]), _checked_labels(records[:, :width], name, spec)


def _images(pixels: np.ndarray) -> np.ndarray:
    # A row is the red plane, then the green, then the blue, each from its top row down.
    return pixels.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _checked_labels(labels: np.ndarray, name: str, spec: CifarSpec) -> np.ndarray:
    """Returns `labels`, whole numbers [N, labels of an image], as int32; raises UserError where one cannot be."""
    for column, kind in zip(labels.T, spec.labels, strict=True):
        wrong = np.flatnonzero((column < 0) | (column >= len(kind.classes)))
        if len(wrong):
            raise UserError(
                f"{name} has the label {column[wrong[0]]} in row {wrong[0]}, expected 0-{len(kind.classes) - 1}: "
                f"{_way_out(spec)}"
            )
    labels = labels.astype(np.int32)
    wrong = spec.disagreeing(labels)
    if len(wrong):
        coarse, fine = (kind.classes[label] for kind, label in zip(spec.labels, labels[wrong[0]], strict=True))
        raise UserError(f"{name} has an image of {fine} that is called {coarse} in row {wrong[0]}: {_way_out(spec)}")
    return labels


def _check_names(file: BinaryIO, name: str, spec: CifarSpec) -> None:
    """Raises UserError where the python version's file of names has other classes than the published ones."""
    entries = _entries(file, name)
    for labels in spec.labels:
        found = entries.get(labels.names_key)
        if not isinstance(found, list):
            raise UserError(f"{name} has {_describe(found)} as {labels.names_key!r}: {_way_out(spec)}")
        _check_classes([_text(each) for each in found], name, labels, spec)


def _check_lists(folder: Path, lists: dict[str, Labels], spec: CifarSpec) -> None:
    """Raises UserError where one of the files that are there, a class in each line, has other classes."""
    for name in sorted(lists.keys() & set(names_in(folder, _way_out(spec)))):
        with _open(folder / name, spec) as file:
            _check_classes(file.read().decode("latin1").split(), str(folder / name), lists[name], spec)


def _check_classes(found: Iterable[str], name: str, labels: Labels, spec: CifarSpec) -> None:
    found = tuple(found)
    if found != labels.classes:
        wrong = difference(found, labels.classes) or "has them in another order"
        raise UserError(
            f"{name} has other classes than the {len(labels.classes)} published ones, it {wrong}: {_way_out(spec)}"
        )


def _join(batches: list[Split]) -> Split:
    labels = np.concatenate([labels for _, labels in batches])
    # Straight into its place: joined first and laid out anew after, every pixel would be copied once more.
    images = np.empty((len(labels), *batches[0][0].shape[1:]), np.uint8)
    np.concatenate([images for images, _ in batches], out=images)
    return images, labels


def _check_split(labels: np.ndarray, path: Path, split: str, spec: CifarSpec) -> None:
    counts = np.bincount(labels[:, spec.wanted], minlength=len(spec.target.classes)).tolist()
    expected = spec.per_class(split)
    if counts != [expected] * len(counts):
        raise UserError(
            f"{path} holds {counts} images of each class as {split!r}, expected {expected:,} of each: {_way_out(spec)}"
        )


def _open(path: Path, spec: CifarSpec) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {_way_out(spec)}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}): {_way_out(spec)}") from error


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _way_out(spec: CifarSpec) -> str:
    return f"take it anew from {spec.archive} (md5 {spec.md5}), or delete what is there and run again to download it"
