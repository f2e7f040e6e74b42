"""Tiny ImageNet (Stanford CS231n, 200 classes of ImageNet at 64 x 64 pixels) in the folder that its archive holds, or
in that archive.

    files = load_tiny_imagenet(data_dir, "train")

The labels of the published test images are secret, so the published validation split, "val", is the split "test" here.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convmixer_jax.data.examples import EncodedImages, ImageFiles
from convmixer_jax.data.sources.folders import check_folder, check_same, difference
from convmixer_jax.data.sources.imagenet_spec import WordNetSpec
from convmixer_jax.data.sources.zipped import ZippedFolder, open_zip
from convmixer_jax.errors import UserError, lookup

# The published wnids.txt: the index of a class is its line. Pinned here, since another order would go unseen: training
# works as well, and every weight that somebody else trained is useless. (A list literal would be 200 lines.)
TINY_IMAGENET_CLASSES = tuple(
    """
    n02124075 n04067472 n04540053 n04099969 n07749582 n01641577 n02802426 n09246464 n07920052 n03970156 n03891332
    n02106662 n03201208 n02279972 n02132136 n04146614 n07873807 n02364673 n04507155 n03854065 n03838899 n03733131
    n01443537 n07875152 n03544143 n09428293 n03085013 n02437312 n07614500 n03804744 n04265275 n02963159 n02486410
    n01944390 n09256479 n02058221 n04275548 n02321529 n02769748 n02099712 n07695742 n02056570 n02281406 n01774750
    n02509815 n03983396 n07753592 n04254777 n02233338 n04008634 n02823428 n02236044 n03393912 n07583066 n04074963
    n01629819 n09332890 n02481823 n03902125 n03404251 n09193705 n03637318 n04456115 n02666196 n03796401 n02795169
    n02123045 n01855672 n01882714 n02917067 n02988304 n04398044 n02843684 n02423022 n02669723 n04465501 n02165456
    n03770439 n02099601 n04486054 n02950826 n03814639 n04259630 n03424325 n02948072 n03179701 n03400231 n02206856
    n03160309 n01984695 n03977966 n03584254 n04023962 n02814860 n01910747 n04596742 n03992509 n04133789 n03937543
    n02927161 n01945685 n02395406 n02125311 n03126707 n04532106 n02268443 n02977058 n07734744 n03599486 n04562935
    n03014705 n04251144 n04356056 n02190166 n03670208 n02002724 n02074367 n04285008 n04560804 n04366367 n02403003
    n07615774 n04501370 n03026506 n02906734 n01770393 n04597913 n03930313 n04118538 n04179913 n04311004 n02123394
    n04070727 n02793495 n02730930 n02094433 n04371430 n04328186 n03649909 n04417672 n03388043 n01774384 n02837789
    n07579787 n04399382 n02791270 n03089624 n02814533 n04149813 n07747607 n03355925 n01983481 n04487081 n03250847
    n03255030 n02892201 n02883205 n03100240 n02415577 n02480495 n01698640 n01784675 n04376876 n03444034 n01917289
    n01950731 n03042490 n07711569 n04532670 n03763968 n07768694 n02999410 n03617480 n06596364 n01768244 n02410509
    n03976657 n01742172 n03980874 n02808440 n02226429 n02231487 n02085620 n01644900 n02129165 n02699494 n03837869
    n02815834 n07720875 n02788148 n02909870 n03706229 n07871810 n03447447 n02113799 n12267677 n03662601 n02841315
    n07715103 n02504458
""".split()  # noqa: SIM905
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyImageNetSpec(WordNetSpec):
    """What must be there. per_class: images of each class in each split."""

    per_class: Mapping[str, int]

    @property
    def archive(self) -> str:
        """The zip archive that holds the folder."""
        return f"{self.folder}.zip"


TINY_IMAGENET = TinyImageNetSpec(
    name="Tiny ImageNet",
    folder="tiny-imagenet-200",
    classes=TINY_IMAGENET_CLASSES,
    per_class={"train": 500, "test": 50},
    image_shape=(64, 64, 3),
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
)


def load_tiny_imagenet(data_dir: Path, split: str, spec: TinyImageNetSpec = TINY_IMAGENET) -> EncodedImages:
    """Returns the images of "train" or "test" as files, in order of class and number, or of number.

    They are in the folder or, where there is none, in its zip archive, which stays packed.
    Opens only the lists, and looks whether every image is there and nothing else.
    Raises UserError, naming what is missing or does not belong there, where the folder is not as published.
    """
    place = find_tiny_imagenet(data_dir, spec)
    if place is None:
        raise UserError(
            f"{spec.name} is not in {data_dir} (looked for the folder {spec.folder} and for {spec.archive}): "
            "`python -m convmixer_jax.prepare tiny_imagenet` downloads it, or set --data_dir or $CONVMIXER_DATA_DIR to "
            "the folder that holds it; configs/digits.py runs without any data"
        )
    return read_tiny_imagenet(place, split, spec)


def find_tiny_imagenet(data_dir: Path, spec: TinyImageNetSpec = TINY_IMAGENET) -> Path | None:
    """Returns the folder, else the zip archive, else None."""
    places = [data_dir / spec.folder, data_dir / spec.archive]
    return next((place for place in places if place.exists()), None)


def read_tiny_imagenet(place: Path, split: str, spec: TinyImageNetSpec = TINY_IMAGENET) -> EncodedImages:
    """Returns what `load_tiny_imagenet` does. place: the folder, or its zip archive."""
    find = lookup({"train": _train_files, "test": _val_files}, split, "split")
    folder = place if place.is_dir() else open_zip(place, spec.way_out) / spec.folder
    wnids = _lines(folder / "wnids.txt", spec)
    if tuple(wnids) != spec.classes:
        raise UserError(
            f"{folder / 'wnids.txt'} is not the published list of {len(spec.classes)} classes, in its order: "
            f"{difference(wnids, spec.classes) or 'the order is another one'}; {spec.way_out}"
        )
    names, labels = find(folder, spec)
    label = np.array(labels, np.int32)
    if isinstance(folder, Path):
        return ImageFiles(folder, np.array(names, np.bytes_), label=label, image_shape=spec.image_shape)
    try:
        return folder.images(names, label=label, image_shape=spec.image_shape)
    except OSError as error:
        raise UserError(f"{place} is damaged ({error.strerror}): {spec.way_out}") from error


def _train_files(folder: Path | ZippedFolder, spec: TinyImageNetSpec) -> tuple[list[str], list[int]]:
    check_folder(folder / "train", spec.classes, spec.way_out)
    names, labels = [], []
    for label, wnid in enumerate(spec.classes):
        images = f"train/{wnid}/images"
        expected = [f"{wnid}_{number}.JPEG" for number in range(spec.per_class["train"])]
        check_folder(folder / images, expected, spec.way_out)
        names += [f"{images}/{name}" for name in expected]
        labels += [label] * len(expected)
    return names, labels


def _val_files(folder: Path | ZippedFolder, spec: TinyImageNetSpec) -> tuple[list[str], list[int]]:
    expected = [f"val_{number}.JPEG" for number in range(spec.per_class["test"] * len(spec.classes))]
    check_folder(folder / "val/images", expected, spec.way_out)
    labels = _val_labels(folder / "val/val_annotations.txt", expected, spec)
    return [f"val/images/{name}" for name in expected], labels


def _val_labels(path: Path | ZippedFolder, expected: list[str], spec: TinyImageNetSpec) -> list[int]:
    """Returns the labels of the images `expected`, from lines of file, class and a box, with tabs between them."""
    index = {wnid: label for label, wnid in enumerate(spec.classes)}
    rows = [line.split("\t") for line in _lines(path, spec)]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or row[1] not in index:
            raise UserError(f"{path} has no image and class of wnids.txt in line {number}: {spec.way_out}")
    check_same(path, [row[0] for row in rows], expected, spec.way_out)
    labels = {row[0]: index[row[1]] for row in rows}
    counts = np.bincount(list(labels.values()), minlength=len(spec.classes))
    for wnid, count in zip(spec.classes, counts, strict=True):
        if count != spec.per_class["test"]:
            raise UserError(f"{path} has {count} images of {wnid}, not {spec.per_class['test']}: {spec.way_out}")
    return [labels[name] for name in expected]


def _lines(path: Path | ZippedFolder, spec: TinyImageNetSpec) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', error)}): {spec.way_out}") from error
