"""Drawings of what a model has learnt and of what it mistakes, as matplotlib figures.

    save(filters_figure(patch_embedding(kernels)), Path("embedding.png"))

Filters are drawn between minus and plus their own largest absolute value: the mid colour is zero in every one of
them, and strength cannot be compared between two. They come with the largest norm first.
"""

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convmixer_jax.runs.files import write_bytes

if TYPE_CHECKING:  # they import JAX, and matplotlib takes half a second
    from matplotlib.figure import Figure

    from convmixer_jax.inference.activation_maps import ActivationMaps
    from convmixer_jax.inference.examination import Mistake
    from convmixer_jax.inference.layers import Kernel

SOFTWARE = "convmixer_jax.visualize"  # in every picture, so that it is known again
HEAD_BYTES = 512  # of a PNG, among which the program that wrote it is named
DPI = 100
WEIGHT_COLOURS = "RdBu_r"  # blue below zero, white, red above
EVIDENCE_COLOURS = "inferno"
GAP, LEAST_GAP = 0.1, 3  # between two filters: a share of their longer side, and at least so many pixels
FAINT_WHITE = 400  # the level that would be white under a map: the image must not look like evidence
SHEET_KERNELS = 64  # of each layer, on the sheet of all layers
SHEET_PIXELS = 36  # of a kernel's side there, about
SHEET_COLUMNS = 4
FILTERS_PIXELS = 1000  # of the width of a grid, about, where that is between a zoom of LEAST and MOST
LEAST, MOST = 3, 40  # pixels for a weight
MARGIN, LINE = 12, 18  # pixels around a grid; pixels of a line of text
TITLE_PIXELS = 400  # of the width, at least


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Writes the figure as PNG, in one move. Its text is drawn as it is; what the font does not have is a box."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with two $ is no formula
    encoded = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")  # some scripts
        figure.savefig(encoded, format="png", metadata={"Software": SOFTWARE})
    write_bytes(path, encoded.getvalue())


def is_saved_here(path: Path) -> bool:
    """Whether a file is a picture that `save` wrote."""
    with path.open("rb") as file:
        return b"tEXtSoftware\0" + SOFTWARE.encode() in file.read(HEAD_BYTES)


def strongest_first(weights: np.ndarray) -> np.ndarray:
    """Returns the filters of weights [kh, kw, in, out] as [out, kh, kw, in], those of the largest norm first."""
    filters = np.moveaxis(weights, -1, 0)
    order = np.argsort(-np.linalg.norm(filters.reshape(len(filters), -1), axis=1), kind="stable")
    return filters[order]


def to_scale(filters: np.ndarray) -> np.ndarray:
    """Returns each of the filters [N, ...] over its own largest absolute value; one that is all zero stays so.

    Filters of a single value would all be 1 or -1: they are divided by the largest of all.
    """
    axes = tuple(range(1, filters.ndim)) if is_own_scale(filters[0]) else None
    largest = np.abs(filters).max(axis=axes, keepdims=True)
    return filters / np.where(largest == 0, 1, largest)


def is_own_scale(one: np.ndarray) -> bool:
    """Whether a filter has a scale of its own."""
    return one.size > 1


def coloured(filters: np.ndarray) -> np.ndarray:
    """Returns filters [N, h, w, C] as colours [N, h, w, 3] in 0-1, each on its own scale.

    Three channels are red, green and blue, zero being grey; a single one, or the mean of another number, takes
    WEIGHT_COLOURS.
    """
    from matplotlib import colormaps

    if filters.shape[-1] == 3:
        return (to_scale(filters) + 1) / 2
    return colormaps[WEIGHT_COLOURS]((to_scale(filters.mean(axis=-1)) + 1) / 2)[..., :3]


def even_columns(n: int, aspect: float = 1.0) -> int:
    """Returns the columns of a grid of n, about a square, and with full rows where that is near.

    aspect: height over width of what lies in it.
    """
    least = math.ceil(math.sqrt(n * aspect))
    return next((columns for columns in range(least, 2 * least) if n % columns == 0), min(least, n))


def gap_pixels(height: int, width: int) -> int:
    """Returns the pixels between two filters of this size in pixels."""
    return max(LEAST_GAP, round(GAP * max(height, width)))


def mosaic(tiles: np.ndarray, columns: int, zoom: int) -> np.ndarray:
    """Lays tiles [N, h, w, 3], each enlarged `zoom` times, out row by row on white; returns [H, W, 3]."""
    tiles = np.repeat(np.repeat(tiles, zoom, axis=1), zoom, axis=2)
    n, height, width, channels = tiles.shape
    rows, gap = -(-n // columns), gap_pixels(height, width)
    framed = np.ones((rows * columns, height + gap, width + gap, channels))
    framed[:n, :height, :width] = tiles
    grid = framed.reshape(rows, columns, height + gap, width + gap, channels).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * (height + gap), columns * (width + gap), channels)[:-gap, :-gap]


def show(axes: Any, image: np.ndarray, **settings: Any) -> None:
    """Draws an image without smoothing, ticks and frame."""
    axes.imshow(image, interpolation="nearest", **settings)
    axes.set_axis_off()


def pixel_figure(width: int, height: int, title: str, fontsize: int) -> "Figure":
    """Returns a figure of this many pixels, on which things are put by `put`, with a title at its top."""
    figure = new_figure(width / DPI, height / DPI)
    figure.set_layout_engine("none")
    figure.text(MARGIN / width, 1 - MARGIN / height, title, va="top", fontsize=fontsize)
    return figure


def put(figure: "Figure", grid: np.ndarray, left: int, top: int) -> Any:
    """Draws a grid so that its pixels are those of the figure; returns its axes. left, top: of its corner."""
    width, height = figure.get_size_inches() * DPI
    h, w = grid.shape[:2]
    axes = figure.add_axes((left / width, 1 - (top + h) / height, w / width, h / height))
    show(axes, grid)
    return axes


def filters_figure(kernel: "Kernel") -> "Figure":
    """Draws all filters of a kernel."""
    filters = strongest_first(kernel.weights)
    count, kh, kw, _ = filters.shape
    columns = even_columns(count, kh / kw)
    zoom = round(FILTERS_PIXELS / (1 + GAP) / columns / kw)
    grid = mosaic(coloured(filters), columns, min(max(LEAST, zoom), MOST))
    scale = "each on its own scale" if is_own_scale(filters[0]) else "all on one scale"
    title = f"{kernel.name}: {count} filters of {kh}x{kw}, the largest norm first, {scale}"
    width = max(grid.shape[1], TITLE_PIXELS)
    lines = textwrap.wrap(title, width // 9)
    top = 2 * MARGIN + LINE * len(lines)
    figure = pixel_figure(width + 2 * MARGIN, top + grid.shape[0] + MARGIN, "\n".join(lines), fontsize=11)
    put(figure, grid, MARGIN, top)
    return figure


def kernels_sheet(kernels: Sequence["Kernel"], title: str) -> "Figure":
    """Draws the SHEET_KERNELS strongest filters of every kernel, the first layers first."""
    grids = []
    for kernel in kernels:
        filters = strongest_first(kernel.weights)[:SHEET_KERNELS]
        kh, kw = filters.shape[1:3]
        zoom = max(1, round(SHEET_PIXELS / math.sqrt(kh * kw)))
        grids.append(mosaic(coloured(filters), even_columns(len(filters), kh / kw), zoom))
    columns = min(len(kernels), SHEET_COLUMNS)
    width = max(*(grid.shape[1] for grid in grids), 200) + 2 * MARGIN
    height = max(grid.shape[0] for grid in grids) + LINE + 2 * MARGIN
    top = 2 * MARGIN + 2 * LINE
    rows = -(-len(kernels) // columns)
    figure = pixel_figure(max(columns * width, TITLE_PIXELS), top + rows * height, title, fontsize=12)
    for n, (kernel, grid) in enumerate(zip(kernels, grids, strict=True)):
        row, column = divmod(n, columns)
        axes = put(figure, grid, column * width + MARGIN, top + LINE + row * height)
        axes.set_title(kernel.name, fontsize=10, loc="left", pad=4)
    return figure


def short(text: str, width: int) -> str:
    """Returns the text, or its beginning where it is longer than `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Returns an image uint8 [H, W, C], C 1 or 3, as [H, W, 3]."""
    return np.repeat(image, 3 // image.shape[-1], axis=-1)


def maps_figure(
    images: np.ndarray, captions: Sequence[str], maps: "ActivationMaps", names: Sequence[str], title: str
) -> "Figure":
    """Draws each of the images uint8 [N, H, W, C] beside itself under its map.

    captions: of the images themselves. names: of the classes.
    """
    pairs = even_columns(len(images))
    rows = -(-len(images) // pairs)
    figure = new_figure(max(3.8 * pairs, 5), 2.15 * rows + 0.6)
    panels = figure.subplots(rows, 2 * pairs, squeeze=False).reshape(-1, 2)
    for panel in panels.flat:
        panel.set_axis_off()
    height, width = images.shape[1:3]
    for (left, right), image, caption, n in zip(panels, images, captions, range(len(images)), strict=False):
        show(left, as_rgb(image))
        left.set_title(short(caption, 22), fontsize=10)
        show(right, as_rgb(image).mean(axis=-1), cmap="gray", vmin=0, vmax=FAINT_WHITE)
        evidence, most = maps.evidence[n], float(maps.evidence[n].max())
        right.imshow(
            evidence,
            cmap=EVIDENCE_COLOURS,
            vmin=0,
            vmax=most if most > 0 else 1,  # where nothing speaks for the class all is dark
            alpha=0.6,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
        )
        right.set_title(f"{short(names[maps.label[n]], 15)} ({maps.probability[n]:.0%})", fontsize=10)
    figure.suptitle("\n".join(textwrap.wrap(title, 36 * pairs)), fontsize=11)
    return figure


def mistakes_figure(mistakes: Sequence["Mistake"], names: Sequence[str], title: str) -> "Figure":
    """Draws the mistakes with their true and predicted class and both probabilities."""
    columns = min(len(mistakes), 6)
    rows = -(-len(mistakes) // columns)
    figure = new_figure(max(2.1 * columns, 5), 2.6 * rows + 0.6)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel in panels:
        panel.set_axis_off()
    for panel, mistake in zip(figure.axes, mistakes, strict=False):
        show(panel, as_rgb(mistake.image))
        panel.set_title(
            f"no. {mistake.index}\ntrue: {short(names[mistake.label], 18)} ({mistake.probability_of_true:.1%})\n"
            f"taken for: {short(names[mistake.predicted], 14)} ({mistake.probability:.0%})",
            fontsize=9,
        )
    figure.suptitle("\n".join(textwrap.wrap(title, 20 * columns)), fontsize=12)
    return figure
