"""A model with all that can be looked at in it; each part is made when it is first asked for.

subject = Subject(*read_weights("runs/cifar10"), data_dir, image_files=["cat.jpg"])
subject.kernels, subject.examination
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convmixer_jax.data.datasets import Dataset, open_split
from convmixer_jax.data.examples import Stored
from convmixer_jax.data.host_batches import in_memory
from convmixer_jax.errors import UserError
from convmixer_jax.inference.activation_maps import ActivationMaps, make_activation_maps
from convmixer_jax.inference.description import Description, build
from convmixer_jax.inference.examination import Examination, dataset_of, examine
from convmixer_jax.inference.layers import (
    Kernel,
    Layer,
    convolution_kernels,
    depthwise_kernels,
    last_map,
    patch_embedding,
    trace_layers,
)
from convmixer_jax.inference.preprocess import make_preprocess
from convmixer_jax.inference.program import memory_mistakes, quickest_program
from convmixer_jax.ops.choice import REFERENCE
from convmixer_jax.runs.progress import printable

EXAMPLES = 16  # test images, at most, whose maps are drawn
MISTAKES = 24
BATCH_SIZE = 256


class Subject:
    """A model with what it is looked at with. image_files: for the activation maps; none takes test images.

    unreadable: of the image files those that were found to be none, with the reason.
    """

    def __init__(self, description: Description, variables: dict[str, Any], data_dir: Path, image_files: Sequence[str]):
        self.description, self.variables = description, jax.device_put(variables)
        self.data_dir, self.image_files = data_dir, image_files
        self.unreadable: dict[str, str] = {}
        self.preprocess = make_preprocess(description)
        names = description.class_names or map(str, range(description.num_classes))
        self.class_names = tuple(map(printable, names))
        self.model = build(description, REFERENCE)  # the one whose layers can be looked at

    @functools.cached_property
    def layers(self) -> list[Layer]:
        """The model's layers in order."""
        return trace_layers(self.model, self.variables, self.description.image_shape)

    @functools.cached_property
    def kernels(self) -> list[Kernel]:
        """The kernels of its convolutions in order."""
        return convolution_kernels(self.layers, self.variables["params"])

    @property
    def embedding(self) -> Kernel | None:
        """The kernel of the patch embedding; None where there is none."""
        return patch_embedding(self.kernels)

    @property
    def depthwise(self) -> list[Kernel]:
        """The depthwise kernels in order."""
        return depthwise_kernels(self.kernels)

    @property
    def last_map(self) -> Layer | None:
        """The layer that activation maps are of, the last one with positions; None where there is none."""
        return last_map(self.layers)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data set that the model is for."""
        return dataset_of(self.description, self.data_dir)

    @functools.cached_property
    def test_split(self) -> Stored:
        """The test split as it is stored."""
        return open_split(self.dataset, "test", self.data_dir)

    @functools.cached_property
    def examination(self) -> Examination:
        """What the model takes the test split for; one pass, however many pictures are drawn of it."""
        program = quickest_program(self.description)

        def classify(images: np.ndarray) -> np.ndarray:
            return np.asarray(program(self.variables, self.preprocess.normalise(images)))

        size = min(BATCH_SIZE, len(self.test_split))
        return examine(classify, self.test_split, size, MISTAKES, self.description.num_classes)

    def tested(self) -> str:
        """What every picture of the test split says of it."""
        found = self.examination
        return f"test split, {found.count:,} images, top1 {found.top1:.2%}"

    def given_images(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, uint8 [H, W, C]) of the image files that can be read, and notes the others."""
        for file in self.image_files:
            try:
                yield printable(Path(file).name), self.preprocess.levels(file)
            except UserError as error:
                self.unreadable[file] = str(error)

    def tested_images(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name of the true class, uint8 [H, W, C]) of a few test images."""
        examples = in_memory(self.test_split.take(examples_of_classes(self.test_split, EXAMPLES)))
        for image, label in zip(examples.image, examples.label, strict=True):
            yield self.class_names[label], image

    def activation_maps(self, last: Layer) -> Callable[[np.ndarray], ActivationMaps]:
        """Returns images uint8 [N, H, W, C] to their maps. last: the `last_map`."""
        maps = make_activation_maps(self.model, last)

        def of_images(images: np.ndarray) -> ActivationMaps:
            with memory_mistakes(len(images), self.description.image_shape):
                return maps(self.variables, self.preprocess.normalise(images))

        return of_images


def examples_of_classes(split: Stored, count: int) -> np.ndarray:
    """Returns the places of the first example of each class; of at most `count` classes, evenly spread."""
    classes, first = np.unique(split.label, return_index=True)
    chosen = np.linspace(0, len(classes) - 1, min(count, len(classes))).round().astype(int)
    return first[chosen]
