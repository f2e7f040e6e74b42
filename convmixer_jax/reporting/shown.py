"""What charts are made of: a chart with its caption, and the points of a section as charts show them.

shown = shown_points(section)
chart = Chart("learning-rate", "Learning rate by epoch", caption, draw)
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convmixer_jax.reporting.collection import Point
from convmixer_jax.reporting.looks import MOST_POINTS, Style, Theme, styles
from convmixer_jax.reporting.sections import Section
from convmixer_jax.runs.progress import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL = 32  # characters of a point's name in a legend


@dataclasses.dataclass(frozen=True)
class Chart:
    """name: of its file. title, caption: for people. draw: of a theme."""

    name: str
    title: str
    caption: str
    draw: Callable[[Theme], "Figure"]


@dataclasses.dataclass(frozen=True)
class Shown:
    """A point with what it is called and how it is drawn."""

    point: Point
    label: str
    style: Style
    cost: dict[str, float]


def label_of(point: Point) -> str:
    """Returns what a legend calls a point, in one line."""
    name = printable(point.name)
    return name if len(name) <= LABEL else f"{name[: LABEL // 2 - 1]}…{name[-LABEL // 2 :]}"


def shown_points(section: Section) -> list[Shown]:
    """Returns the points that charts show: all, or the MOST_POINTS best ones, in the order of the table."""
    points = list(zip(section.points, section.costs, strict=True))
    if len(points) > MOST_POINTS:
        best = sorted(range(len(points)), key=lambda place: -(points[place][0].top1[0] or -1.0))[:MOST_POINTS]
        points = [points[place] for place in sorted(best)]
    shown = []
    for (point, costs), style in zip(points, styles(len(points)), strict=True):
        cost = {"params": float(costs.params), "flops": costs.flops / 1e6} if costs else {}
        seconds = point.mean("step_seconds")
        shown.append(Shown(point, label_of(point), style, cost | ({} if seconds is None else {"seconds": seconds})))
    return shown


def scale_epochs(axes: Any, most: float) -> None:
    """Labels the axis of epochs, and marks whole ones where there are several. most: the last epoch."""
    from matplotlib.ticker import MaxNLocator

    if most >= 2:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
