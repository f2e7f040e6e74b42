"""The table of pictures of a model: what each shows, and how it is drawn.

    subject = Subject(*read_weights("runs/cifar10"), data_dir, image_files=["cat.jpg"])
    files = PICTURES["cam"].draw(subject, Path("pictures"))

To add a picture, write a function of a Subject and a folder, and give it a row in PICTURES. One that cannot be drawn
raises UserError. Nothing here imports JAX, so that the command's help is quick.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convmixer_jax.errors import UserError
from convmixer_jax.inference import figures
from convmixer_jax.inference.confusion import confusion_figure, save_table
from convmixer_jax.runs.progress import tell

if TYPE_CHECKING:  # it imports JAX
    from convmixer_jax.inference.subject import Subject

IMAGES_PER_FIGURE = 16


def remove_earlier(folder: Path, names: str, written: list[Path]) -> None:
    """Removes pictures of an earlier start that none of `written` replaced, and tells. names: their pattern."""
    for file in sorted(folder.iterdir()):
        if re.fullmatch(names, file.name) and file not in written and file.is_file() and figures.is_saved_here(file):
            file.unlink()
            tell(f"removed: {file}, of an earlier start")


def draw_embedding(subject: "Subject", out: Path) -> list[Path]:
    """Draws the filters of the first convolution."""
    stem = subject.embedding
    if stem is None:
        raise UserError(f"{subject.description.source} has no convolution, so there is no patch embedding to draw")
    figures.save(figures.filters_figure(stem), out / "embedding.png")
    return [out / "embedding.png"]


def draw_kernels(subject: "Subject", out: Path) -> list[Path]:
    """Draws the depthwise kernels: a sheet of all layers, and each layer whole."""
    kernels = subject.depthwise
    if not kernels:
        raise UserError(f"{subject.description.source} has no depthwise convolution, so there are no kernels to draw")
    sheet = out / "kernels.png"
    title = f"Depthwise kernels, those of the largest norm\n(at most {figures.SHEET_KERNELS} of each layer)"
    figures.save(figures.kernels_sheet(kernels, title), sheet)
    folder = out / "kernels"
    folder.mkdir(exist_ok=True)
    files = [sheet]
    for number, kernel in enumerate(kernels):
        files.append(folder / f"{number:02d}_{kernel.name.replace('/', '_')}.png")
        figures.save(figures.filters_figure(kernel), files[-1])
    remove_earlier(folder, r"\d{2,}_.*\.png", files)
    return files


def draw_maps(subject: "Subject", out: Path) -> list[Path]:
    """Draws class-activation maps over the images that were given, else over test images."""
    last = subject.last_map
    if last is None:
        raise UserError(f"{subject.description.source} has no layer with positions: there are no activation maps")
    activation_maps = subject.activation_maps(last)
    given = bool(subject.image_files)
    captioned, caption = (subject.given_images(), "file") if given else (subject.tested_images(), "true class")
    files: list[Path] = []
    while part := list(itertools.islice(captioned, IMAGES_PER_FIGURE)):
        captions, images = [name for name, _ in part], np.stack([image for _, image in part])
        maps = activation_maps(images)
        kind = (
            "exact: its mean plus a constant is the logit"
            if maps.exact
            else "an approximation by the gradient: the head is not linear in this map"
        )
        title = (
            f"Left: image and {caption}. Right: predicted class and, bright, where the evidence for it is "
            f"({last.name}, {last.shape[0]}x{last.shape[1]}; {kind})"
        )
        number = f"_{len(files):03d}" if len(subject.image_files) > IMAGES_PER_FIGURE else ""
        files.append(out / f"cam{number}.png")
        figures.save(figures.maps_figure(images, captions, maps, subject.class_names, title), files[-1])
    if files:
        remove_earlier(out, r"cam(_\d{3,})?\.png", files)
    return files


def draw_confusion(subject: "Subject", out: Path) -> list[Path]:
    """Draws the confusion matrix of the test split, and writes its counts."""
    matrix = subject.examination.confusion
    figures.save(confusion_figure(matrix, subject.class_names, subject.tested()), out / "confusion.png")
    save_table(matrix, subject.class_names, out / "confusion.csv")
    return [out / "confusion.png", out / "confusion.csv"]


def draw_mistakes(subject: "Subject", out: Path) -> list[Path]:
    """Draws the mistakes of the highest loss."""
    mistakes = subject.examination.mistakes
    if not mistakes:
        raise UserError(f"{subject.description.source} makes no mistakes on the test split: there are none to draw")
    total = subject.examination.count - int(np.trace(subject.examination.confusion))
    title = f"The worst {len(mistakes)} of {total:,} mistakes, those of the highest loss; {subject.tested()}"
    figures.save(figures.mistakes_figure(mistakes, subject.class_names, title), out / "mistakes.png")
    return [out / "mistakes.png"]


@dataclasses.dataclass(frozen=True)
class Picture:
    """meaning: for people. draw: writes it, of a Subject into a folder; returns the files."""

    meaning: str
    draw: Callable[["Subject", Path], list[Path]]


PICTURES: dict[str, Picture] = {
    "embedding": Picture("the filters of the patch embedding", draw_embedding),
    "kernels": Picture("the depthwise kernels of each layer", draw_kernels),
    "cam": Picture("class-activation maps over the IMAGEs, or over test images", draw_maps),
    "confusion": Picture("the confusion matrix of the test split, as PNG and CSV", draw_confusion),
    "mistakes": Picture("the mistakes of the highest loss on the test split", draw_mistakes),
}
