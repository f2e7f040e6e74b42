"""Any data set of images and classes that tensorflow_datasets prepared before, read where its records lie.

    directory = find_prepared("beans", data_dir)                  # or NAME/CONFIG, NAME:VERSION, NAME/CONFIG:VERSION
    prepared = describe_prepared(directory)
    images = prepared.images("train", prepared.class_names, prepared.num_examples())

Never uses the network. The images stay encoded as they are in the records, and are decoded once, by whoever uses them.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convmixer_jax.data.sources.made_once import Arrays, made_once
from convmixer_jax.data.sources.record_index import Keys, RecordIndex, first_label, index_records
from convmixer_jax.data.sources.records import KINDS, RecordImages
from convmixer_jax.data.sources.tfds_directory import describe_tfds_directory, newest_version
from convmixer_jax.data.splits import held_out_count, train_and_test
from convmixer_jax.errors import UserError, lookup

_PLACE = re.compile(r"(?P<name>\w+)(?:/(?P<config>[\w.+-]+))?(?::(?P<version>\d+\.\d+\.\d+))?", re.ASCII)
_SIDE = 224  # pixels that images without a size of their own become
_FORMAT = "1"  # of the description that is kept: another number where it holds something else
_UNLABELLED = -1  # what tfds writes where labels are secret
_WAY_OUT = "prepare it anew with `tfds build`"


def find_prepared(place: str, data_dir: Path) -> Path:
    """Returns DATA_DIR/NAME[/CONFIG]/VERSION, the newest version where none is asked for.

    Raises UserError, with the way out, where `place` is not NAME[/CONFIG][:VERSION], or nothing is there.
    """
    match = _PLACE.fullmatch(place)
    if not match:
        raise UserError(
            f"config.dataset is 'tfds:{place}': tfds:NAME and tfds:NAME/CONFIG are accepted, both also with :VERSION, "
            "such as :1.0.0, behind them"
        )
    folder = data_dir / match["name"] / (match["config"] or "")
    found = newest_version(folder, match["version"])
    if found:
        return found
    configs = sorted({info.parts[-3] for info in folder.glob("*/*/dataset_info.json")})
    if configs and not match["config"]:
        raise UserError(
            f"config.dataset is 'tfds:{place}', and {folder} has the configurations {', '.join(configs)}: "
            f"name one, such as tfds:{match['name']}/{configs[0]}"
        )
    raise UserError(
        f"config.dataset is 'tfds:{place}', and {folder / (match['version'] or 'VERSION')} is not there: prepare it "
        f"where there is a network, by `tfds build {place} --data_dir {data_dir}`, or set --data_dir or "
        "$CONVMIXER_DATA_DIR to the folder that has it"
    )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a prepared directory holds.

    kind: a row of KINDS. splits: by name, the shards, each with the number of its records. keys: the features that are
    image and label. image_shape: (H, W, C). varied: whether the images have sizes of their own.
    class_names: in the order of the stored labels. test: the split that is "test" here; "train" where that is all there
    is, of which a fixed fifth is then "test", and the rest "train".
    """

    directory: Path
    kind: str
    splits: dict[str, list[tuple[str, int]]]
    keys: Keys
    image_shape: tuple[int, int, int]
    varied: bool
    class_names: tuple[str, ...]
    test: str

    def num_examples(self) -> dict[str, int]:
        """Returns the number of images in "train" and "test"."""
        train, test = (sum(count for _, count in self.splits[split]) for split in ("train", self.test))
        if self.test == "train":
            test = held_out_count(train)
            train -= test
        return {"train": train, "test": test}

    def index(self, split: str, texts: tuple[str, ...] = ()) -> RecordIndex:
        """Returns the index of a split, a name of `splits`. texts: further features to keep.

        Raises UserError, naming shard and record, where one is damaged, or has not as many records as it should.
        """
        shards = self.splits[split]
        paths = [self.directory / name for name, _ in shards]
        keys = dataclasses.replace(self.keys, texts=texts)
        index = index_records(paths, self.kind, [keys], sum(count for _, count in shards), f"{self.directory} {split}")
        found = np.bincount(index.file, minlength=len(shards)).tolist()
        for path, (_, count), records in zip(paths, shards, found, strict=True):
            if records != count:
                raise UserError(f"{path} has {records:,} records, not {count:,} as dataset_info.json says: {_WAY_OUT}")
        return index

    def images(self, split: str, class_names: Sequence[str], num_examples: Mapping[str, int]) -> RecordImages:
        """Returns the images of "train" or "test", in the order in which they are stored.

        class_names: in the order of the labels, which may be another one than that of the stored labels.
        num_examples: what the splits must have, of those whose number is known.
        Raises UserError, naming shard and record, where one is damaged or has no label, and for other classes.
        """
        if sorted(class_names) != sorted(self.class_names):
            raise UserError(
                f"{self.directory} has the classes {', '.join(self.class_names):.200}, not those of the run, "
                f"{', '.join(class_names):.200}: {_WAY_OUT}"
            )
        index = self.index(lookup({"train": "train", "test": self.test}, split, "split"))
        wrong = (index.label < 0) | (index.label >= len(self.class_names))
        if wrong.any():
            first = int(np.argmax(wrong))
            raise UserError(
                f"{index.called(first)} has the label {index.label[first]}, not one of 0 to "
                f"{len(self.class_names) - 1}: {_WAY_OUT}"
            )
        place = {name: label for label, name in enumerate(class_names)}
        label = np.array([place[name] for name in self.class_names], np.int32)[index.label]
        images = index.images(label, self.image_shape)
        if self.test == "train":
            images = images.take(dict(zip(("train", "test"), train_and_test(label), strict=True))[split])
        if len(images) != num_examples.get(split, len(images)):
            raise UserError(
                f"{self.directory} has {len(images):,} images for {split!r}, and the run began with "
                f"{num_examples[split]:,}: give it what it had, or begin another run"
            )
        return images


def describe_prepared(directory: Path) -> Prepared:
    """Returns what a prepared directory holds. tensorflow_datasets reads it once, in a process of its own.

    Raises UserError, saying what there is, unless it holds one feature of images and one of classes, in a format that
    has records, and images to train on.
    """
    files = sorted([*directory.glob("*.json"), *directory.glob("*.labels.txt")])

    def make() -> Arrays:
        description = describe_tfds_directory(directory)
        splits = {name: shards for name, shards in description["splits"].items() if shards}
        kind, keys = description["file_format"], _find_keys(directory, description)
        if kind not in KINDS:
            raise UserError(f"{directory} has files of the format {kind}, and {', '.join(KINDS)} are read: {_WAY_OUT}")
        chosen = {"splits": splits, "keys": (keys.image, keys.label), "test": _find_test(directory, kind, splits, keys)}
        return {"json": np.array(json.dumps(description | chosen))}

    kept = json.loads(str(made_once("description", files, _FORMAT, make, f"{directory}")["json"]))
    image, label = kept["keys"]
    height, width, channels = _checked_shape(directory, image, **kept["images"][image])
    return Prepared(
        directory=directory,
        kind=kept["file_format"],
        splits={split: [(name, count) for name, count in shards] for split, shards in kept["splits"].items()},
        keys=Keys(image, label),
        image_shape=(height, width, channels) if height and width else (_SIDE, _SIDE, channels),
        varied=not (height and width),
        class_names=tuple(kept["labels"][label]),
        test=kept["test"],
    )


def _find_keys(directory: Path, description: dict[str, Any]) -> Keys:
    """Returns the names of image and label: the supervised keys, or the only ones of their kind."""
    images, labels, others = (sorted(description[kind]) for kind in ("images", "labels", "others"))
    supervised = description["supervised"]
    if supervised and supervised[0] in images and supervised[1] in labels:
        return Keys(*supervised)
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"{directory} has the images {', '.join(images) or 'none'}, the class labels {', '.join(labels) or 'none'} "
            f"and besides {', '.join(others) or 'nothing'}: one image and one class label are needed"
        )
    return Keys(images[0], labels[0])


def _find_test(directory: Path, kind: str, splits: dict[str, list[tuple[str, int]]], keys: Keys) -> str:
    """Returns the split to test with: "test", "validation" or "train", the first whose labels are known."""
    if "train" not in splits:
        raise UserError(f"{directory} has the splits {', '.join(splits) or 'none'}: 'train' is needed")
    labelled = [
        name
        for name in ("test", "validation")
        if name in splits and first_label(directory / splits[name][0][0], kind, keys) != _UNLABELLED
    ]
    return labelled[0] if labelled else "train"


def _checked_shape(
    directory: Path, name: str, shape: Sequence[int | None], dtype: str
) -> tuple[int | None, int | None, int]:
    height, width, channels = shape
    if dtype != "uint8" or channels not in (None, 1, 3):
        raise UserError(
            f"{directory} has images of {channels} channels and type {dtype} as {name!r}: grey or RGB of uint8 are read"
        )
    return height, width, channels or 3
