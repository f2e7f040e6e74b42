"""Small data sets that tensorflow_datasets itself prepares, in a process of its own.

Image n of a data set is a PNG all of whose pixels are n, 3 x (5 + n) pixels where sizes vary.
"""

import subprocess
import sys
from pathlib import Path

WNIDS = ("n01", "n02", "n03")

_PREPARE = """
import sys
import numpy as np
import tensorflow_datasets as tfds

F = tfds.features
NAMES = ["pear", "apple", "fig"]
ALL = {"train": range(0, 9), "validation": range(9, 12), "test": range(12, 18)}

def label(n):
    return n % 3

# For each: its features, what they are of image n, the supervised keys, the splits, and the format.
DATA_SETS = {
    "photos": (
        {"photo": F.Image(shape=(None, None, 3), encoding_format="png"), "kind": F.ClassLabel(names=NAMES),
         "name": F.Text(), "boxes": F.Sequence({"box": F.BBoxFeature()})},
        lambda n: {"photo": np.full((3, 5 + n, 3), n, np.uint8), "kind": label(n), "name": str(n),
                   "boxes": {"box": []}},
        None, ALL, "tfrecord"),
    "numbers": (
        {"image": F.Image(shape=(4, 6, 1)), "label": F.ClassLabel(num_classes=3), "other": F.ClassLabel(num_classes=9)},
        lambda n: {"image": np.full((4, 6, 1), n, np.uint8), "label": label(n), "other": 5},
        ("image", "label"), ALL, "array_record"),
    "secret": (
        {"in": {"image": F.Image(), "label": F.ClassLabel(names=NAMES)}},
        lambda n: {"in": {"image": np.full((3, 5 + n, 3), n, np.uint8), "label": -1 if n >= 12 else label(n)}},
        None, ALL, "array_record"),
    "imagenet2012": (
        {"image": F.Image(encoding_format="png"), "label": F.ClassLabel(names=["n01", "n02", "n03"]),
         "file_name": F.Text()},
        lambda n: {"image": np.full((3, 5 + n, 3), n, np.uint8), "label": -1 if n >= 12 else label(n),
                   "file_name": f"n0{label(n) + 1}_{n}.JPEG" if n < 9 else f"ILSVRC2012_val_{n - 8:08}.JPEG"},
        ("image", "label"), ALL, "array_record"),
    "pairs": (
        {"left": F.Image(), "right": F.Image(), "same": F.ClassLabel(num_classes=2), "score": F.Scalar(np.float32)},
        lambda n: {side: np.full((3, 3, 3), n, np.uint8) for side in ("left", "right")} | {"same": 1, "score": 0.5},
        None, ALL, "tfrecord"),
    "deep": (
        {"image": F.Image(dtype=np.uint16, encoding_format="png", shape=(3, 3, 1)), "label": F.ClassLabel(names=NAMES)},
        lambda n: {"image": np.full((3, 3, 1), n, np.uint16), "label": label(n)},
        None, ALL, "tfrecord"),
    "lone": (
        {"image": F.Image(), "label": F.ClassLabel(names=NAMES)},
        lambda n: {"image": np.full((3, 3, 3), n, np.uint8), "label": label(n)},
        None, {"train": range(3)}, "tfrecord"),
}

for name, (features, example, supervised, splits, file_format) in DATA_SETS.items():
    def _info(self, features=features, supervised=supervised):
        return tfds.core.DatasetInfo(
            builder=self, features=F.FeaturesDict(features), supervised_keys=supervised, disable_shuffling=True)
    def _split_generators(self, manager, splits=splits):
        return {split: self._generate_examples(numbers) for split, numbers in splits.items()}
    def _generate_examples(self, numbers, example=example):
        return ((n, example(n)) for n in numbers)
    kind = type(name.capitalize(), (tfds.core.GeneratorBasedBuilder,), {
        "name": name, "VERSION": tfds.core.Version("1.0.0"), "_info": _info,
        "_split_generators": _split_generators, "_generate_examples": _generate_examples})
    builder = kind(data_dir=sys.argv[1], file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
"""


def prepare_all(data_dir: Path) -> None:
    """Prepares DATA_DIR/NAME/1.0.0 for each."""
    subprocess.run([sys.executable, "-c", _PREPARE, str(data_dir)], check=True, capture_output=True)
