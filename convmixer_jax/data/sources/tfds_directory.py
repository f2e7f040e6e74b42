"""Reads a data set that tensorflow_datasets prepared earlier, with TensorFlow in a process of its own.

    images, labels = read_tfds_directory(data_dir / "cifar10" / "3.0.2", "cifar10", "train")

TensorFlow takes seconds to import, gigabytes of every GPU it sees, and is of no further use to a run whose data fit
in memory. So this file also runs as a program, which leaves the arrays in a file and ends:

    python -m convmixer_jax.data.sources.tfds_directory DIR NAME SPLIT OUT
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from convmixer_jax.errors import UserError

_TIMEOUT_S = 1800.0  # CIFAR-10 takes half a minute; a child on a dead network disk must not hang the run
_BATCH_SIZE = 1000
_PACKAGE_ROOT = Path(__file__).resolve().parents[3]


def read_tfds_directory(directory: Path, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 [N, H, W, C], and the labels, int32 [N], in the order in which they are stored.

    directory: holds dataset_info.json, that is DATA_DIR/NAME/VERSION. name: the builder it must be of.
    Never downloads, and never imports TensorFlow into this process.
    Raises UserError where tensorflow_datasets is missing or cannot read the directory.
    """
    with tempfile.TemporaryDirectory(prefix="convmixer_tfds_") as scratch:
        out = Path(scratch) / "split.npz"
        command = [sys.executable, "-m", __name__, str(directory), name, split, str(out)]
        try:
            child = subprocess.run(
                command, env=_child_environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{directory} was not read within {_TIMEOUT_S:.0f} s: is its disk reachable?") from error
        if child.returncode:
            lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode} without a word"]
            raise UserError(f"{directory} cannot be read as a prepared tfds directory: {lines[-1]}")
        with np.load(out) as arrays:
            return arrays["images"], arrays["labels"]


def _child_environment() -> dict[str, str]:
    # The parent may have found this package by its working directory or by sys.path, which a child does not inherit.
    search_path = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(search_path),
    }


def _export(directory: str, name: str, split: str, out: str) -> None:
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
    labels = np.concatenate([batch["label"] for batch in batches])
    np.savez(out, images=images, labels=labels.astype(np.int32))


def _main(arguments: list[str]) -> int:
    try:
        _export(*arguments)
    except ImportError as error:
        # Also the packages that tensorflow_datasets needs without declaring them.
        print(f"{error}: pip install tensorflow-datasets tensorflow-cpu importlib_resources", file=sys.stderr)
        return 1
    except Exception as error:  # the parent passes on the last line; a traceback would bury the reason
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
