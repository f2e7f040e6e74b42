"""What the best run has learnt: its depthwise kernels, and its confusion matrix on the test split.

    pictures = ModelPictures(data_dir)
    for picture in pictures.of(run): ...

Both are drawn as `visualize` does. A picture that cannot be drawn says why; none is made twice.
"""

import csv
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from convmixer_jax.errors import UserError
from convmixer_jax.inference.confusion import confusion_figure
from convmixer_jax.inference.figures import DPI, SHEET_KERNELS, kernels_sheet
from convmixer_jax.inference.loading import read_weights
from convmixer_jax.inference.subject import Subject
from convmixer_jax.reporting.costs import recorded_cost
from convmixer_jax.reporting.looks import png
from convmixer_jax.reporting.pictures import Picture
from convmixer_jax.reporting.summaries import number
from convmixer_jax.reporting.workdirs import Run
from convmixer_jax.runs.progress import printable
from convmixer_jax.studying.folder import RESULT_FILE

MOST_WORK = 2e13  # FLOPs of a pass over the test split: ten minutes on a small CPU
WRITTEN = Path("pictures/confusion.csv")  # where `visualize` writes the counts, in the workdir


class ModelPictures:
    """Draws pictures of runs and keeps them. data_dir: the folder of the data sets."""

    def __init__(self, data_dir: Path):
        self._data_dir = data_dir
        self._drawn: dict[tuple[Path, int], list[Picture]] = {}

    def of(self, run: Run) -> list[Picture]:
        """Returns the pictures of a run that is done."""
        key = run.folder, (run.folder / RESULT_FILE).stat().st_mtime_ns
        if key not in self._drawn:
            # One subject for both; it reads the weights, and may fail for each.
            subject = functools.cache(lambda: Subject(*read_weights(run.folder), self._data_dir, []))
            self._drawn[key] = [
                _drawn("kernels", f"Depthwise kernels of {run.name}", lambda: kernels(subject())),
                _drawn("confusion", f"Confusion matrix of {run.name}", lambda: confusion(run, subject)),
            ]
        return self._drawn[key]


def _drawn(name: str, title: str, draw: Callable[[], tuple[bytes, str]]) -> Picture:
    image = None
    try:
        image, caption = draw()
    except UserError as error:
        caption = f"Left out: {error}"
    except Exception as error:  # of damaged files; flax, JAX and Orbax may raise anything
        caption = f"Left out: the run cannot be read ({type(error).__name__}: {error})"
    return Picture(name, printable(title), printable(" ".join(caption.split())), image, None)


def kernels(subject: Subject) -> tuple[bytes, str]:
    """Returns (PNG, caption) of the depthwise kernels. Raises UserError where the model has none."""
    if not subject.depthwise:
        raise UserError("the model has no depthwise convolution")
    title = f"The filters of the largest norm, at most {SHEET_KERNELS} of each layer"
    caption = "Blue is below zero, white is zero, red above; each filter on its own scale, the first layers first."
    return png(kernels_sheet(subject.depthwise, title), DPI), caption


def confusion(run: Run, subject: Callable[[], Subject]) -> tuple[bytes, str]:
    """Returns (PNG, caption) of the confusion matrix. Raises UserError where it cannot be made, or takes too long."""
    written = read_counts(run)
    if written is None:
        check_work(run)
        matrix, names = subject().examination.confusion, subject().class_names
    else:
        matrix, names = written
    total = int(matrix.sum())
    title = f"test split, {total:,} images, top1 {np.trace(matrix) / total:.2%}"
    return png(confusion_figure(matrix, names, title), DPI), "Colours are shares of the true class, a row each."


def check_work(run: Run) -> None:
    """Raises UserError where a pass over the test split would take too long here."""
    images = number((run.result or {}).get("n")) or 0.0
    work = recorded_cost(run).flops * images
    if work > MOST_WORK:
        raise UserError(
            f"a pass over {images:,.0f} test images takes {work / 1e12:,.0f} TFLOP on this CPU; make it where it is "
            f"quick, `python -m convmixer_jax.visualize --workdir {run.folder} --what confusion`, and the report again"
        )


def read_counts(run: Run) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Returns (matrix, names of the classes) that `visualize` wrote into the workdir.

    None where there is none, or it is not of the result: older, or of another score.
    """
    path = run.folder / WRITTEN
    try:
        if path.stat().st_mtime_ns < (run.folder / RESULT_FILE).stat().st_mtime_ns:
            return None
        head, *rows = csv.reader(path.read_text().splitlines())
        matrix = np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)
    except (OSError, ValueError):
        return None
    names, total = tuple(head[1:]), int(matrix.sum())
    if matrix.shape != (len(names), len(names)) or total == 0:
        return None
    # Programs differ in the order of sums, which may move an example or two.
    near = abs(np.trace(matrix) / total - (run.top1 or 0.0)) <= 2 / total
    return (matrix, names) if near else None
