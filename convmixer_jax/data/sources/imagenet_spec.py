"""What ImageNet-1k (ILSVRC 2012) is, in whatever form its images are stored.

    label = IMAGENET.classes.index("n02099601")
    IMAGENET_CLASSES["n02099601"]                       # "golden retriever"

imagenet_classes.tsv has the 1,000 classes in the order of their indices, that of their WordNet identifiers: identifier
and name. The names are the first of WordNet 3.0's words for it, as words.txt of Tiny ImageNet lists them; where several
classes share that one, all of its words (maillot, Cardigan), and a word of ours for the two cranes.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

CLASSES = Path(__file__).with_name("imagenet_classes.tsv")


def read_classes() -> dict[str, str]:
    """Returns the names of the classes by their WordNet identifiers, in the order of their indices."""
    return dict(line.split("\t") for line in CLASSES.read_text(encoding="utf-8").splitlines())


IMAGENET_CLASSES = read_classes()


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordNetSpec:
    """What is published in folders of classes with WordNet identifiers.

    classes: these identifiers in the order of their indices. image_shape: (H, W, C). url: of the archives.
    """

    name: str
    folder: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    url: str

    @property
    def way_out(self) -> str:
        """The end of a message on what is wrong with the folder."""
        return f"delete what does not belong there, or unpack that part of {self.folder} anew from {self.url}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNetSpec(WordNetSpec):
    """What must be there.

    num_examples: images in each split. val_digest: SHA-256 of the identifiers of the validation images in the order of
    their numbers, a line each. crop_pct: share of an image's shorter side that is looked at.
    """

    num_examples: Mapping[str, int]
    val_digest: str
    crop_pct: float


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
