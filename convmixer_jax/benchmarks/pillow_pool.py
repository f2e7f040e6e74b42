"""A recipe's augmentation done with Pillow in a pool of processes: what a PyTorch user's data loader would do.

    with PillowPool(images, workers=2) as pool:
        pool.run(steps, seed=0)         # every image through the steps once; arrays come back, as from a loader

Steps are (name of an augmentation or "op:<operation>", its settings); COUNTERPARTS says which there are.
"""

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from convmixer_jax.benchmarks.pillow_ops import apply_with_pillow, torchvision_style

Step = tuple[str, Mapping[str, Any]]
Statistics = tuple[Sequence[float], Sequence[float]]
Apply = Callable[[np.random.Generator, Image.Image, Mapping[str, Any]], Image.Image]


def _crop(rng: np.random.Generator, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
    pixels, (width, height) = settings["pixels"], image.size
    left, top = (int(corner) for corner in rng.integers(0, 2 * pixels + 1, 2))
    return ImageOps.expand(image, pixels).crop((left, top, left + width, top + height))


def draw_box(
    rng: np.random.Generator, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Returns a box (left, top, right, bottom) as torchvision's RandomResizedCrop.get_params draws it."""
    for _ in range(10):
        area = rng.uniform(*scale) * width * height
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        box_w, box_h = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if 0 < box_w <= width and 0 < box_h <= height:
            top, left = int(rng.integers(height - box_h + 1)), int(rng.integers(width - box_w + 1))
            return left, top, left + box_w, top + box_h
    # None fits: the largest box in the centre whose ratio is allowed.
    box_w, box_h = width, height
    if width / height < min(ratio):
        box_h = round(width / min(ratio))
    elif width / height > max(ratio):
        box_w = round(height * max(ratio))
    left, top = (width - box_w) // 2, (height - box_h) // 2
    return left, top, left + box_w, top + box_h


RESAMPLE = {"bilinear": [Image.Resampling.BILINEAR], "bicubic": [Image.Resampling.BICUBIC]}
RESAMPLE["random"] = RESAMPLE["bilinear"] + RESAMPLE["bicubic"]


def _resized_crop(rng: np.random.Generator, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
    box = draw_box(rng, *image.size, settings["scale"], settings["ratio"])
    methods = RESAMPLE[settings["interpolation"]]
    # Cut out first, as torchvision: resize's own `box` would look at pixels beside it.
    return image.crop(box).resize(image.size, methods[int(rng.integers(len(methods)))])


def _flip(rng: np.random.Generator, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
    return ImageOps.mirror(image) if rng.random() < settings["probability"] else image


def _rand_augment(rng: np.random.Generator, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
    return torchvision_style(rng, image, settings["num_ops"], int(settings["magnitude"]))


def _jitter(rng: np.random.Generator, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
    enhancers: dict[str, Callable[[Image.Image], Any]] = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    if rng.random() < settings["probability"]:
        for name in rng.permutation(list(enhancers)):
            if settings[name]:
                image = enhancers[name](image).enhance(rng.uniform(max(0, 1 - settings[name]), 1 + settings[name]))
    return image


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """apply: what Pillow does for an augmentation. does: whether it does so with all of these settings."""

    apply: Apply
    does: Callable[[Mapping[str, Any]], bool] = lambda settings: True


def _as_torchvision(settings: Mapping[str, Any]) -> bool:
    """Whether RandAugment has what `torchvision_style` always takes: its tables, nearest neighbours and black."""
    nearest = settings["interpolation"] in ("default", "nearest")
    return settings["tables"] == "torchvision" and nearest and not any(settings["fill"])


COUNTERPARTS: dict[str, Counterpart] = {
    "pad_and_crop": Counterpart(_crop, lambda settings: settings["mode"] == "zero"),
    "random_resized_crop": Counterpart(_resized_crop),
    "horizontal_flip": Counterpart(_flip),
    "rand_augment": Counterpart(_rand_augment, _as_torchvision),
    "colour_jitter": Counterpart(_jitter, lambda settings: not settings["hue"]),
}


def has_counterpart(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether Pillow is put beside an augmentation with these settings."""
    return name in COUNTERPARTS and COUNTERPARTS[name].does(settings)


def apply_step(rng: np.random.Generator, image: Image.Image, step: Step) -> Image.Image:
    """Returns the image after one step."""
    name, settings = step
    if name.startswith("op:"):
        return apply_with_pillow(image, name.removeprefix("op:"), **settings)
    return COUNTERPARTS[name].apply(rng, image, settings)


_images: np.ndarray  # of a worker: sent once, as a data set lies in the memory of a loader's workers


def _receive(images: np.ndarray) -> None:
    global _images
    _images = images


def _run_part(part: slice, steps: Sequence[Step], seed: int, statistics: Statistics | None) -> np.ndarray:
    rng = np.random.default_rng([seed, part.start])
    done = []
    for pixels in _images[part]:
        image = Image.fromarray(pixels)
        for step in steps:
            image = apply_step(rng, image, step)
        done.append(np.asarray(image))
    # As ToTensor and Normalize: float32, four times the bytes that come back, as loaders have it.
    scaled = np.stack(done).astype(np.float32) / 255
    if statistics is not None:
        mean, std = statistics
        scaled -= np.asarray(mean, np.float32)
        scaled /= np.asarray(std, np.float32)
    return scaled


class PillowPool:
    """Processes that hold the images uint8 [N, H, W, 3] and put all of them through steps, N / workers each."""

    def __init__(self, images: np.ndarray, workers: int):
        bounds = np.linspace(0, len(images), workers + 1).astype(int)
        self._parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        self._pool = concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),  # a fork of a process with JAX's threads may hang
            initializer=_receive,
            initargs=(images,),
        )

    def __enter__(self) -> "PillowPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, steps: Sequence[Step], seed: int = 0, statistics: Statistics | None = None) -> np.ndarray:
        """Returns all images after the steps, float32 [N, H, W, 3] of the scale 0-1.

        statistics: (mean, std) per channel on that scale, by which they are normalised; None leaves them.
        """
        futures = [self._pool.submit(_run_part, part, steps, seed, statistics) for part in self._parts]
        return np.concatenate([future.result() for future in futures])
