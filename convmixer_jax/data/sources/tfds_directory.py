"""Reads a data set that tensorflow_datasets prepared earlier, with TensorFlow in a process of its own.

    images, labels = read_tfds_directory(data_dir / "cifar10" / "3.0.2", "cifar10", "train")
    description = describe_tfds_directory(data_dir / "beans" / "0.1.0")

TensorFlow takes seconds to import, gigabytes of every GPU it sees, and is of no further use to a run whose data fit
in memory. So this file also runs as a program, which leaves its result in a file and ends:

    python -m convmixer_jax.data.sources.tfds_directory arrays OUT DIR NAME SPLIT FEATURE...
    python -m convmixer_jax.data.sources.tfds_directory description OUT DIR
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.errors import UserError

_TIMEOUT_S = 1800.0  # CIFAR-10 takes half a minute; a child on a dead network disk must not hang the run
_BATCH_SIZE = 1000
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)
_PACKAGE_ROOT = Path(__file__).resolve().parents[3]


def newest_version(folder: Path, version: str | None = None) -> Path | None:
    """Returns the prepared directory of this version in a folder, or of the highest; None where there is none."""
    found = [info.parent for info in folder.glob("*/dataset_info.json") if _VERSION.fullmatch(info.parent.name)]
    wanted = [directory for directory in found if version in (None, directory.name)]
    # As numbers: 3.0.10 is newer than 3.0.2.
    return max(wanted, key=lambda directory: [int(number) for number in directory.name.split(".")], default=None)


def read_tfds_directory(
    directory: Path, name: str, split: str, features: Sequence[str] = ("label",)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 [N, H, W, C], and the labels, int32 [N, F], in the order in which they are stored.

    directory: holds dataset_info.json, that is DATA_DIR/NAME/VERSION. name: the builder it must be of.
    features: the names of its F labels.
    Never downloads, and never imports TensorFlow into this process.
    Raises UserError where tensorflow_datasets is missing or cannot read the directory.
    """
    with _result_of_child("arrays", directory, name, split, *features) as out, np.load(out) as arrays:
        return arrays["images"], arrays["labels"]


def describe_tfds_directory(directory: Path) -> dict[str, Any]:
    """Returns what a directory of any data set holds, without reading an example.

    {"file_format": "tfrecord", "supervised": ["image", "label"] or null,
     "splits": {"train": [["NAME-train.tfrecord-00000-of-00002", 4], ...]},             with the records of each shard
     "images": {"image": {"shape": [null, null, 3], "dtype": "uint8"}},
     "labels": {"label": ["a", "b"]}, "others": ["file_name"]}                          names of the classes in order
    A feature within another is called OUTER/INNER, as in the records.
    Raises UserError where tensorflow_datasets is missing or cannot read the directory.
    """
    with _result_of_child("description", directory) as out:
        description: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return description


@contextlib.contextmanager
def _result_of_child(kind: str, directory: Path, *arguments: str) -> Iterator[Path]:
    """Yields the file that the child has made. kind: a row of _RESULTS."""
    with tempfile.TemporaryDirectory(prefix="convmixer_tfds_") as scratch:
        out = Path(scratch) / "result.npz"
        command = [sys.executable, "-m", __name__, kind, str(out), str(directory), *arguments]
        try:
            child = subprocess.run(
                command, env=_child_environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{directory} was not read within {_TIMEOUT_S:.0f} s: is its disk reachable?") from error
        if child.returncode:
            lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode} without a word"]
            raise UserError(f"{directory} cannot be read as a prepared tfds directory: {lines[-1]}")
        yield out


def _child_environment() -> dict[str, str]:
    # The parent may have found this package by its working directory or by sys.path, which a child does not inherit.
    search_path = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(search_path),
    }


def _write_arrays(out: str, directory: str, name: str, split: str, *features: str) -> None:
    """Runs in the child: writes the split's `images` and `labels` to the .npz file `out`."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    if builder.name != name:
        raise ValueError(f"it holds {builder.name}, expected {name}")
    # One shard after the other: tfds reads 16 at once by default, which mixes their examples.
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    batches = list(
        tfds.as_numpy(
            builder.as_dataset(split=split, batch_size=_BATCH_SIZE, shuffle_files=False, read_config=in_order)
        )
    )
    images = np.concatenate([batch["image"] for batch in batches])
    labels = np.concatenate([np.stack([batch[feature] for feature in features], axis=1) for batch in batches])
    np.savez(out, images=images, labels=labels.astype(np.int32))


def _write_description(out: str, directory: str) -> None:
    """Runs in the child: writes what `describe_tfds_directory` returns to the JSON file `out`."""
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(directory).info
    images: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    others: list[str] = []

    def sort(features: Any, outer: str) -> None:
        for key, feature in features.items():
            if type(feature) is tfds.features.FeaturesDict:
                sort(feature, f"{outer}{key}/")
            elif type(feature) is tfds.features.Image:  # kinds of it hold what is no photograph
                images[outer + key] = {"shape": feature.shape, "dtype": str(np.dtype(feature.np_dtype))}
            elif type(feature) is tfds.features.ClassLabel:
                labels[outer + key] = feature.names
            else:
                others.append(outer + key)

    sort(info.features, "")
    splits = {
        name: [(path.name, count) for path, count in zip(split.filepaths, split.shard_lengths, strict=True)]
        for name, split in info.splits.items()
    }
    description = {
        "file_format": info.file_format.value,
        "supervised": info.supervised_keys,
        "splits": splits,
        "images": images,
        "labels": labels,
        "others": others,
    }
    Path(out).write_text(json.dumps(description), encoding="utf-8")


_RESULTS: dict[str, Callable[..., None]] = {"arrays": _write_arrays, "description": _write_description}


def _main(kind: str, *arguments: str) -> int:
    try:
        _RESULTS[kind](*arguments)
    except ImportError as error:
        # Also the packages that tensorflow_datasets needs without declaring them.
        print(f"{error}: pip install tensorflow-datasets tensorflow-cpu importlib_resources", file=sys.stderr)
        return 1
    except Exception as error:  # the parent passes on the last line; a traceback would bury the reason
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
