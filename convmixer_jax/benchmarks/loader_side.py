"""PyTorch's DataLoader with Pillow, as a side: the same bytes decoded, cropped and flipped by processes of its own.

    side = build_loader(config, data_dir, workers=2)
    side.run(10)                       # ten times IN_A_RUN batches

It is meant to be as quick as such a loader can be without leaving Pillow: workers that stay, batches ahead, uint8 all
the way (ToTensor would make four times the bytes), only the box resized. PyTorch is imported only where it is built.
"""

import functools
import importlib.metadata
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from convmixer_jax.benchmarks.pillow_pool import RESAMPLE, Step, apply_step, draw_box, has_counterpart
from convmixer_jax.benchmarks.torch_side import check_installed, import_torch
from convmixer_jax.benchmarks.workers import IN_A_RUN
from convmixer_jax.data.datasets import find_dataset, open_split
from convmixer_jax.data.examples import Examples, Stored
from convmixer_jax.data.order import batch_indices
from convmixer_jax.errors import UserError

MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels


def loader_steps(config: ConfigDict) -> list[Step]:
    """Returns the steps of the recipe. Raises UserError where PyTorch is missing or Pillow cannot do one of them."""
    check_installed()
    steps: list[Step] = [(name, config.augment[name].to_dict()) for name in config.augment.order]
    lacking = [name for name, settings in steps if not has_counterpart(name, settings)]
    if lacking:
        raise UserError(
            f"config.augment.order has {', '.join(lacking)}: the DataLoader of --against torch has no counterpart; "
            'set --config.augment.order=\'("random_resized_crop", "horizontal_flip")\', say'
        )
    return steps


class PillowImages:
    """A map-style dataset: example n as (uint8 tensor [H, W, C], label). It is copied into each worker."""

    def __init__(self, examples: Stored, steps: Sequence[Step]):
        self.examples, self.steps = examples, steps
        self.height, self.width, channels = examples.image_shape
        self.mode = MODES[channels]

    @functools.cached_property
    def rng(self) -> np.random.Generator:
        """What is drawn with: each worker has another."""
        import torch

        return np.random.default_rng(torch.initial_seed())

    def __len__(self) -> int:
        return len(self.examples)

    def decoded(self, index: int) -> Image.Image:
        """Returns the whole image."""
        if isinstance(self.examples, Examples):
            return Image.fromarray(self.examples.image[index].squeeze())
        return Image.open(io.BytesIO(self.examples.read(index))).convert(self.mode)

    def sized(self, image: Image.Image) -> tuple[Image.Image, Sequence[Step]]:
        """Returns the image in the size of a batch's, and what is left to do: a random crop resizes on its way."""
        size = (self.width, self.height)
        if self.steps and self.steps[0][0] == "random_resized_crop":
            settings = self.steps[0][1]
            methods = RESAMPLE[settings["interpolation"]]
            box = draw_box(self.rng, *image.size, settings["scale"], settings["ratio"])
            # By `box`, without a copy of the box: pixels beside it are looked at, which costs nothing here.
            return image.resize(size, methods[int(self.rng.integers(len(methods)))], box=box), self.steps[1:]
        if image.size == size:
            return image, self.steps
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC), self.steps

    def __getitem__(self, index: int) -> tuple[Any, int]:
        import torch

        image, steps = self.sized(self.decoded(index))
        for step in steps:
            image = apply_step(self.rng, image, step)
        pixels = np.array(image).reshape(self.height, self.width, -1)
        return torch.from_numpy(pixels), int(self.examples.label[index])


class EndlessBatches:
    """The indices of batches without end, in the order of our runs: nothing is drained where an epoch ends."""

    def __init__(self, seed: int, batch_size: int, num_examples: int):
        self.seed, self.batch_size, self.num_examples = seed, batch_size, num_examples

    def __iter__(self) -> Iterator[list[int]]:
        step = 0
        while True:
            yield batch_indices(self.seed, step, self.batch_size, self.num_examples).tolist()
            step += 1


class LoaderSide:
    """See workers.Side."""

    def __init__(self, loader: Any, batch_size: int):
        self.images = IN_A_RUN * batch_size
        self.facts = {"version": importlib.metadata.version("torch"), "pillow": importlib.metadata.version("pillow")}
        self.batches = iter(loader)

    def run(self, count: int) -> None:
        """Takes the next `count` times IN_A_RUN batches."""
        for _ in range(count * IN_A_RUN):
            next(self.batches)

    def device_peak_bytes(self) -> None:
        """See workers.Side."""


def build_loader(config: ConfigDict, data_dir: Path, workers: int) -> LoaderSide:
    """Returns the training split in batches of config.batch_size. Raises UserError as `loader_steps` does.

    workers: processes; with 0 of them this one decodes.
    """
    torch = import_torch()
    steps = loader_steps(config)
    dataset = find_dataset(config.dataset, data_dir, image_size=config.image_size, crop_pct=config.crop_pct)
    examples = open_split(dataset, "train", data_dir, config.val_fraction, config.train_examples)
    loader = torch.utils.data.DataLoader(
        PillowImages(examples, steps),
        batch_sampler=EndlessBatches(config.seed, config.batch_size, len(examples)),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return LoaderSide(loader, config.batch_size)
