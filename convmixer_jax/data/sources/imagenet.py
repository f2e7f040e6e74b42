"""ImageNet-1k (ILSVRC 2012) in its usual folders: DATA_DIR/imagenet/{train,val}/WNID/*.JPEG, one folder per class.

    files = load_imagenet(data_dir, "train")

The labels of the published test images are secret, so the published validation split, "val", is the split "test" here.

Both splits are read as timm evaluates them: the centre, 0.96 of the shorter side, at 224 x 224 pixels. For training too
that square is all that is seen, so `random_resized_crop` chooses within it and not within the whole image.

imagenet_classes.tsv has the 1,000 classes in the order of their indices, that of their WordNet identifiers: identifier
and name. The names are the first of WordNet 3.0's words for it, as words.txt of Tiny ImageNet lists them; where several
classes share that one, all of its words (maillot, Cardigan), and a word of ours for the two cranes.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.sources.folders import check_folder, check_same, names_in
from convmixer_jax.errors import UserError, lookup

CLASSES = Path(__file__).with_name("imagenet_classes.tsv")


def read_classes() -> dict[str, str]:
    """Returns the names of the classes by their WordNet identifiers, in the order of their indices."""
    return dict(line.split("\t") for line in CLASSES.read_text(encoding="utf-8").splitlines())


IMAGENET_CLASSES = read_classes()


@dataclasses.dataclass(frozen=True)
class ImageNetSpec:
    """What the folder must hold.

    classes: the WordNet identifiers in the order of their indices. num_examples: images in each split.
    val_digest: SHA-256 of the identifiers of the validation images in the order of their numbers, a line each.
    image_shape: (H, W, C). crop_pct: share of an image's shorter side that is looked at.
    """

    name: str
    folder: str
    classes: tuple[str, ...]
    num_examples: Mapping[str, int]
    val_digest: str
    image_shape: tuple[int, int, int]
    crop_pct: float
    url: str

    @property
    def way_out(self) -> str:
        """The end of a message on what is wrong with the folder."""
        return f"delete what does not belong there, or unpack that part anew from the archives of {self.url}"


IMAGENET = ImageNetSpec(
    name="ImageNet",
    folder="imagenet",
    classes=tuple(IMAGENET_CLASSES),
    num_examples={"train": 1_281_167, "test": 50_000},
    val_digest="313fc3f23c864dde9183c9a368809065765dd1b657a6904fded44e3e46d34604",
    image_shape=(224, 224, 3),
    crop_pct=0.96,
    url="https://www.image-net.org/download.php",
)


def load_imagenet(data_dir: Path, split: str, spec: ImageNetSpec = IMAGENET) -> ImageFiles:
    """Returns the images of "train" or "test" as files, in order of class and name.

    Opens none of them, and looks whether every image is there and nothing else.
    Raises UserError, naming what is missing or does not belong there, where the folder is not as published.
    """
    part, find = lookup({"train": ("train", _train_images), "test": ("val", _val_images)}, split, "split")
    folder = data_dir / spec.folder
    if not (folder / part).is_dir():
        raise UserError(
            f"{spec.name} is not in {data_dir} (looked for the folder {spec.folder}/{part}): put its images there, "
            f"those of a class into a folder of its WordNet identifier ({spec.classes[0]}); the archives are at "
            f"{spec.url}; or set --data_dir or $CONVMIXER_DATA_DIR to the folder that holds it"
        )
    check_folder(folder / part, spec.classes, spec.way_out)
    by_class = find(folder / part, spec)
    names = [f"{part}/{wnid}/{name}" for wnid, names in zip(spec.classes, by_class, strict=True) for name in names]
    labels = np.repeat(np.arange(len(by_class), dtype=np.int32), [len(names) for names in by_class])
    return ImageFiles(folder, np.array(names), labels, spec.image_shape, spec.crop_pct)


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
