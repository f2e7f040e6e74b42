"""ImageNet-1k (ILSVRC 2012) in whichever of its usual forms there is.

    images = load_imagenet(data_dir, "train")

These are looked for, in this order:
    DATA_DIR/imagenet/{train,val}/WNID/*.JPEG                       a folder for each class
    DATA_DIR/imagenet/[{train,validation}/]train-00000-of-01024 ... shards of records (see imagenet_shards.py)
    DATA_DIR/imagenet2012/VERSION                                   prepared by tensorflow_datasets

The labels of the published test images are secret, so the published validation split, "val", is the split "test" here.
Evaluation sees the images as timm does: the centre, 0.96 of the shorter side, at 224 x 224 pixels.
"""

import hashlib
import re
from pathlib import Path

import numpy as np

from convmixer_jax.data.examples import EncodedImages, ImageFiles
from convmixer_jax.data.sources.folders import check_folder, check_same, names_in
from convmixer_jax.data.sources.imagenet_shards import load_prepared, load_shards
from convmixer_jax.data.sources.imagenet_spec import IMAGENET, ImageNetSpec
from convmixer_jax.data.sources.shard_sets import find_shards
from convmixer_jax.data.sources.tfds_directory import newest_version
from convmixer_jax.errors import UserError, lookup

_TFDS_NAME = "imagenet2012"
# By split: the folder of classes, and what shards, and a folder with nothing but them, may be called.
_NAMES = {"train": ("train", ("train",)), "test": ("val", ("validation", "val"))}


def load_imagenet(data_dir: Path, split: str, spec: ImageNetSpec = IMAGENET) -> EncodedImages:
    """Returns the images of "train" or "test"; files in order of class and name, records as they are stored.

    Opens no file of an image, and reads shards only once, to find where the images lie.
    Raises UserError, naming what is missing, damaged or does not belong there, where they are not as published.
    """
    part, words = lookup(_NAMES, split, "split")
    folder = data_dir / spec.folder
    shards = find_shards([folder, *(folder / word for word in words)], words)
    if (folder / part).is_dir() and not (shards and shards[0][0].parent == folder / part):
        return _load_files(folder, part, split, spec)
    if shards:
        return load_shards(*shards, split, spec)
    if prepared := newest_version(data_dir / _TFDS_NAME):
        return load_prepared(prepared, split, spec)
    raise UserError(
        f"{spec.name} is not in {data_dir} (looked for the folder {spec.folder}/{part}, shards "
        f"{spec.folder}/{words[0]}-00000-of-..., and {_TFDS_NAME}/VERSION): put its images there, those of a class "
        f"into a folder of its WordNet identifier ({spec.classes[0]}); the archives are at {spec.url}; or set "
        "--data_dir or $CONVMIXER_DATA_DIR to the folder that holds it"
    )


def _load_files(folder: Path, part: str, split: str, spec: ImageNetSpec) -> ImageFiles:
    check_folder(folder / part, spec.classes, spec.way_out)
    by_class = (_train_images if split == "train" else _val_images)(folder / part, spec)
    # Bytes at once: as str they would take 200 MB more for a moment.
    names = [f"{part}/{wnid}/{name}".encode() for wnid, of in zip(spec.classes, by_class, strict=True) for name in of]
    labels = np.repeat(np.arange(len(by_class), dtype=np.int32), [len(names) for names in by_class])
    return ImageFiles(folder, np.array(names), label=labels, image_shape=spec.image_shape, crop_pct=spec.crop_pct)


def _train_images(folder: Path, spec: ImageNetSpec) -> list[list[str]]:
    """Returns the names in the folder of each class. Which numbers were published is not known here, but how many."""
    by_class = [_images(folder / wnid, rf"{wnid}_\d+\.JPEG", spec) for wnid in spec.classes]
    count, published = sum(map(len, by_class)), spec.num_examples["train"]
    if count != published:
        raise UserError(f"{folder} has {count:,} images, not {published:,}: {spec.way_out}")
    return by_class


def _val_images(folder: Path, spec: ImageNetSpec) -> list[list[str]]:
    """Returns the names in the folder of each class, where each image is in that of its own."""
    by_class = [_images(folder / wnid, r"ILSVRC2012_val_\d{8}\.JPEG", spec) for wnid in spec.classes]
    wnid_of = {name: wnid for wnid, names in zip(spec.classes, by_class, strict=True) for name in names}
    expected = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, spec.num_examples["test"] + 1)]
    check_same(folder, [name for names in by_class for name in names], expected, spec.way_out)
    in_order = "".join(f"{wnid_of[name]}\n" for name in expected)
    if hashlib.sha256(in_order.encode()).hexdigest() != spec.val_digest:
        raise UserError(f"{folder} has images in the folders of other classes than their own: {spec.way_out}")
    return by_class


def _images(folder: Path, pattern: str, spec: ImageNetSpec) -> list[str]:
    """Returns the sorted names in the folder of a class. Raises UserError where one does not match the pattern."""
    names = names_in(folder, spec.way_out)
    check_same(folder, names, filter(re.compile(pattern).fullmatch, names), spec.way_out)
    return sorted(names)
