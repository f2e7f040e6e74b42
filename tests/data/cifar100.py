"""A small CIFAR-100 in every form of its files: image n has the fine label n % 100 and n % 256 everywhere."""

import dataclasses
import io
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np

from convmixer_jax.data.sources.cifar_specs import CIFAR100, CIFAR100_COARSE

FILES = {"train": (("train", 200),), "test": (("test", 100),)}
FINE, COARSE = (dataclasses.replace(spec, files=FILES, urls=()) for spec in (CIFAR100, CIFAR100_COARSE))

# The coarse class of each fine one, as it is passed round in programs that read the published files.
COARSE_OF = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14,
    13,
)  # fmt: skip


def arrays(split: str) -> tuple[np.ndarray, list[int], list[int]]:
    """The pixels of a split, uint8 [N, 3072], and its fine and coarse labels."""
    numbers = np.arange(FILES[split][0][1])
    pixels = np.repeat(numbers.astype(np.uint8)[:, None], 3072, axis=1)
    fine = (numbers % 100).tolist()
    return pixels, fine, [COARSE_OF[label] for label in fine]


def batch(split: str, **changes) -> bytes:
    """A python batch; `changes` replace its entries."""
    pixels, fine, coarse = arrays(split)
    return pickle.dumps({"data": pixels, "fine_labels": fine, "coarse_labels": coarse, "filenames": []} | changes, 2)


def names(**changes) -> bytes:
    """The python version's file of names."""
    coarse, fine = (list(labels.classes) for labels in CIFAR100.labels)
    return pickle.dumps({"fine_label_names": fine, "coarse_label_names": coarse} | changes, 2)


def write_python(data_dir: Path) -> None:
    folder = data_dir / "cifar-100-python"
    folder.mkdir(parents=True)
    for split in FILES:
        (folder / split).write_bytes(batch(split))
    (folder / "meta").write_bytes(names())


def write_archive(data_dir: Path, meta: bytes | None = None) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    with tarfile.open(data_dir / "cifar-100-python.tar.gz", "w:gz") as archive:
        for name, content in {"meta": meta or names(), **{split: batch(split) for split in FILES}}.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_binary(data_dir: Path) -> None:
    folder = data_dir / "cifar-100-binary"
    folder.mkdir(parents=True)
    for split in FILES:
        pixels, fine, coarse = arrays(split)
        rows = np.concatenate([np.array([coarse, fine], np.uint8).T, pixels], axis=1)
        (folder / f"{split}.bin").write_bytes(rows.tobytes())
    for labels in CIFAR100.labels:
        # As published: each in a line of its own, and an empty one at the end.
        (folder / labels.names_file).write_text("\n".join([*labels.classes, "", ""]))


# In a process of its own, as in archives.py. Both labels have names there, as the published ones.
_PREPARE = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from tests.data.cifar100 import CIFAR100, FILES, arrays

class Cifar100(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("3.0.2")
    def _info(self):
        names = {labels.feature: list(labels.classes) for labels in CIFAR100.labels}
        features = {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(32, 32, 3)),
                    **{feature: tfds.features.ClassLabel(names=classes) for feature, classes in names.items()}}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)
    def _split_generators(self, manager):
        return {split: self._generate_examples(split) for split in FILES}
    def _generate_examples(self, split):
        for n, (row, fine, coarse) in enumerate(zip(*arrays(split), strict=True)):
            image = np.full((32, 32, 3), row[0], np.uint8)
            yield n, {"id": str(n), "image": image, "label": fine, "coarse_label": coarse}

Cifar100(data_dir=sys.argv[1]).download_and_prepare()
"""


def write_prepared(data_dir: Path) -> None:
    """A directory that tfds prepared, with the examples in their order."""
    command = [sys.executable, "-c", _PREPARE, str(data_dir)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)
