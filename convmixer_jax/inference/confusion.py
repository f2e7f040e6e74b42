"""The confusion matrix as a picture and as a table.

    save(confusion_figure(matrix, names, "test split"), Path("confusion.png"))
    save_table(matrix, names, Path("confusion.csv"))

matrix: int [classes, classes], examples by true class (row) and predicted class (column).
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmixer_jax.inference.figures import DPI, new_figure, short
from convmixer_jax.runs.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED_CLASSES = 40  # with more, names beside the rows would not be legible
COUNTED_CLASSES = 20  # with more, counts in the cells would not be
MAP_PIXELS = 800  # of a side, about, where there are more classes than names
PAIRS = 25


def shares(matrix: np.ndarray) -> np.ndarray:
    """Returns each row over its sum, float64; a class without examples has zeros."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def commonest_confusions(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """Returns at most `count` of (examples, true class, predicted class), the commonest confusions first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [(int(wrong[r, c]), int(r), int(c)) for r, c in zip(rows, columns, strict=True) if wrong[r, c]]


def draw_shares(axes: Any, matrix: np.ndarray) -> Any:
    """Draws the shares in colours that tell small ones apart; returns what a colour bar is made of."""
    from matplotlib.colors import PowerNorm

    axes.set_xlabel("predicted class", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    return axes.imshow(shares(matrix), cmap="viridis", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")


def named_figure(matrix: np.ndarray, names: Sequence[str], title: str) -> "Figure":
    """Draws a matrix of few classes, with their names, and for still fewer with the counts."""
    classes = len(names)
    side = max(4.5, 0.45 * classes if classes <= COUNTED_CLASSES else 0.24 * classes)
    figure = new_figure(side + 2.6, side + 1.6)
    axes = figure.add_subplot()
    drawn = draw_shares(axes, matrix)
    labels = [short(name, 18) for name in names]
    axes.set_xticks(range(classes), labels=labels, rotation=90 if max(map(len, labels)) > 2 else 0, fontsize=9)
    axes.set_yticks(range(classes), labels=labels, fontsize=9)
    if classes <= COUNTED_CLASSES:
        bright = drawn.norm(shares(matrix)) > 0.6
        for row, column in np.argwhere(matrix):
            colour = "black" if bright[row, column] else "white"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the true class")
    figure.suptitle(title, fontsize=12)
    return figure


def map_figure(matrix: np.ndarray, names: Sequence[str], title: str) -> "Figure":
    """Draws a matrix of many classes, every cell at least one pixel, beside a list of the commonest confusions."""
    classes = len(names)
    pixels = classes * max(1, round(MAP_PIXELS / classes))
    left, low, bar, text, head = 80, 60, 90, 520, 60
    width, height = left + pixels + bar + text, low + pixels + head
    figure = new_figure(width / DPI, height / DPI)
    figure.set_layout_engine("none")  # so that a cell is a whole number of pixels
    axes = figure.add_axes((left / width, low / height, pixels / width, pixels / height))
    drawn = draw_shares(axes, matrix)
    colours = figure.add_axes(((left + pixels + 14) / width, low / height, 16 / width, pixels / 2 / height))
    figure.colorbar(drawn, cax=colours)
    colours.set_title("share", fontsize=9)
    lines = [
        f"{count:>4}  {short(names[true], 26)} → {short(names[predicted], 26)}"
        for count, true, predicted in commonest_confusions(matrix, PAIRS)
    ]
    listing = "\n".join(["The commonest confusions, true → predicted class:", "", *lines])
    place = ((left + pixels + bar) / width, (low + pixels) / height)
    figure.text(*place, listing, va="top", fontsize=10, linespacing=1.5)
    figure.text(left / width, 1 - 18 / height, title, va="top", fontsize=12)
    return figure


def confusion_figure(matrix: np.ndarray, names: Sequence[str], title: str) -> "Figure":
    """Draws the matrix: each row's colours are shares of the true class."""
    draw = named_figure if len(names) <= NAMED_CLASSES else map_figure
    return draw(matrix, names, title)


def save_table(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Writes the counts as CSV in one move: a row for each true class, a column for each predicted one."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["true class", *names])
    table.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))
    write_bytes(path, text.getvalue().encode())
