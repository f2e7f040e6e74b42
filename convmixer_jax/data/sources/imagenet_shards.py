"""ImageNet in shards of records, TFRecord or ArrayRecord, as TensorFlow's scripts for ImageNet or tfds write them.

    images = load_shards(paths, "tfrecord", "train", IMAGENET)
    images = load_prepared(data_dir / "imagenet2012" / "5.1.0", "train", IMAGENET)

The scripts write train-00000-of-01024 and validation-00000-of-00128 with the features image/encoded, image/class/label
(1 to 1,000), image/class/synset (the WordNet identifier) and image/filename; tfds writes image, label (0 to 999) and
file_name. No label is believed that something else in the records contradicts: synset, file name, the published counts.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from convmixer_jax.data.sources.imagenet_spec import ImageNetSpec
from convmixer_jax.data.sources.made_once import Arrays, made_once
from convmixer_jax.data.sources.record_index import Keys, RecordIndex, index_records
from convmixer_jax.data.sources.records import RecordImages
from convmixer_jax.data.sources.tfds_prepared import describe_prepared
from convmixer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Convention:
    """How records are written. first: the label of the first class. synset: may be ""; file_name: further features."""

    keys: Keys
    first: int
    synset: str
    file_name: str


_SCRIPTS = _Convention(
    Keys("image/encoded", "image/class/label", ("image/class/synset", "image/filename")),
    first=1,
    synset="image/class/synset",
    file_name="image/filename",
)
_TFDS = _Convention(Keys("image", "label", ("file_name",)), first=0, synset="", file_name="file_name")
_CONVENTIONS = {convention.keys: convention for convention in (_SCRIPTS, _TFDS)}

_FORMAT = "1"  # of the labels that are kept: another number where they are made in another way

# tfds has the published validation images as "validation", and as "test" those whose labels are secret.
_TFDS_SPLITS = {"train": "train", "test": "validation"}


def load_shards(paths: Sequence[Path], kind: str, split: str, spec: ImageNetSpec) -> RecordImages:
    """Returns the images of "train" or "test" in the order in which they are stored.

    Raises UserError, naming shard and record, where one is damaged or has a label that is wrong, and where the images
    are not as many as published.
    """
    keys = tuple(_CONVENTIONS)
    index = index_records(paths, kind, keys, spec.num_examples[split], f"{spec.name} {split}")
    return _load(index, _CONVENTIONS[index.keys], split, spec)


def load_prepared(directory: Path, split: str, spec: ImageNetSpec) -> RecordImages:
    """Returns the images as `load_shards` does, from a directory that tfds prepared. Raises UserError likewise."""
    prepared = describe_prepared(directory)
    if prepared.class_names != spec.classes:
        raise UserError(f"{directory} has other classes than {spec.name}, or another order: {_way_out(spec)}")
    return _load(prepared.index(_TFDS_SPLITS[split], _TFDS.keys.texts), _TFDS, split, spec)


def _load(index: RecordIndex, convention: _Convention, split: str, spec: ImageNetSpec) -> RecordImages:
    def make() -> Arrays:
        return {"label": _Records(index, convention, spec).labels(split)}

    # Checking a million file names takes seconds.
    kind = repr((_FORMAT, convention, dataclasses.astuple(spec)))
    label = made_once(f"{index.paths[0].name}.labels", index.paths, kind, make, f"{spec.name} {split}: labels")["label"]
    return index.images(label, spec.image_shape, spec.crop_pct)


class _Records:
    """The records of a split, and what their labels must agree with."""

    def __init__(self, index: RecordIndex, convention: _Convention, spec: ImageNetSpec):
        self._index, self._convention, self._spec = index, convention, spec
        self._classes = np.array(spec.classes, np.bytes_)
        texts = index.texts[convention.file_name].tolist()
        self._names = np.array([name.rpartition(b"/")[2] for name in texts], np.bytes_)

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels, int32 [N]. Raises UserError, naming shard and record, where one cannot be right."""
        index, spec = self._index, self._spec
        synsets = index.texts.get(self._convention.synset)
        if synsets is not None and (synsets != b"").any():
            label = self._labels_of_synsets(synsets)
        else:
            first = self._convention.first
            label = index.label - first
            accepted = f"not one of {first} to {first + len(self._classes) - 1}"
            wrong = (label < 0) | (label >= len(self._classes))
            self._refuse(wrong, lambda n: f"has the label {index.label[n]}, {accepted}")
        if len(label) != spec.num_examples[split]:
            self._refuse_all(f"{len(label):,} images, not {spec.num_examples[split]:,}")
        (self._check_train if split == "train" else self._check_val)(label)
        return label.astype(np.int32)

    def _labels_of_synsets(self, synsets: np.ndarray) -> np.ndarray:
        """Returns the labels that the synsets say; those in the records must agree, all from 1 on or all from 0 on."""
        stored, label = self._index.label, self._class_of(synsets)
        self._refuse(label < 0, lambda n: f"has the synset {synsets[n].decode('latin1')!r}, which is no class")
        first = 0 if np.mean(stored == label) > np.mean(stored == label + 1) else 1

        def words(n: int) -> str:
            return f"has the label {stored[n]} and the synset {synsets[n].decode()}, whose label is {label[n] + first}"

        self._refuse(stored != label + first, words)
        return label

    def _check_train(self, label: np.ndarray) -> None:
        """Every class has images, and no file name, WNID_NUMBER.JPEG, is of another class or there twice."""
        counts = np.bincount(label, minlength=len(self._classes))
        if not counts.all():
            self._refuse_all(f"no image of {self._spec.classes[int(np.argmin(counts))]}")
        named = self._class_of(np.strings.partition(self._names, b"_")[0])
        other = (named >= 0) & (named != label)
        self._refuse(
            other, lambda n: f"is {self._names[n].decode()}, and has the label of {self._spec.classes[label[n]]}"
        )
        self._refuse(self._repeated(), lambda n: f"is {self._names[n].decode()}, which an earlier record is, too")

    def _check_val(self, label: np.ndarray) -> None:
        """Each class has its share, and where file names have numbers, each image has the published class."""
        share = self._spec.num_examples["test"] // len(self._classes)
        for wnid, count in zip(self._spec.classes, np.bincount(label, minlength=len(self._classes)), strict=True):
            if count != share:
                self._refuse_all(f"{count:,} images of {wnid}, not {share:,}")
        self._refuse(self._repeated(), lambda n: f"is {self._names[n].decode()}, which an earlier record is, too")
        order = np.argsort(self._names)
        if not all(map(re.compile(rb"ILSVRC2012_val_\d{8}\.JPEG").fullmatch, self._names.tolist())):
            return
        in_order = "".join(f"{self._spec.classes[each]}\n" for each in label[order])
        if hashlib.sha256(in_order.encode()).hexdigest() != self._spec.val_digest:
            self._refuse_all("images with other labels than the published ones of their numbers")

    def _class_of(self, wnids: np.ndarray) -> np.ndarray:
        """Returns the labels of WordNet identifiers, int64 [N]; -1 for what is none."""
        order = np.argsort(self._classes)
        place = order[np.searchsorted(self._classes, wnids, sorter=order).clip(max=len(order) - 1)]
        return np.where(self._classes[place] == wnids, place, -1)

    def _repeated(self) -> np.ndarray:
        """Returns which records, bool [N], have the file name of an earlier one."""
        repeated = np.ones(len(self._names), bool)
        repeated[np.unique(self._names, return_index=True)[1]] = False
        return repeated & (self._names != b"")

    def _refuse(self, wrong: np.ndarray, words: Callable[[int], str]) -> None:
        if wrong.any():
            first = int(np.argmax(wrong))
            raise UserError(f"{self._index.called(first)} {words(first)}: {_way_out(self._spec)}")

    def _refuse_all(self, words: str) -> None:
        paths = self._index.paths
        raise UserError(f"{paths[0]} to {paths[-1].name} have {words}: {_way_out(self._spec)}")


def _way_out(spec: ImageNetSpec) -> str:
    return f"write the shards anew from the archives of {spec.url}"
