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


def shown_places(section: Section) -> list[int]:
    """Returns the places of the points that charts show: all, or the MOST_POINTS best ones, in the table's order."""
    places = range(len(section.points))
    best = sorted(places, key=lambda place: -(section.points[place].top1[0] or -1.0))[:MOST_POINTS]
    return sorted(best)


def costs_at(section: Section, place: int) -> dict[str, float]:
    """Returns what is known of a point's parameters, MFLOP of a forward pass and seconds of training."""
    costs, seconds = section.costs[place], section.points[place].mean("step_seconds")
    known = {"params": float(costs.params), "flops": costs.flops / 1e6} if costs else {}
    return known | ({} if seconds is None else {"seconds": seconds})


def shown_points(section: Section) -> list[Shown]:
    """Returns the points at `shown_places`."""
    places = shown_places(section)
    return [
        Shown(section.points[place], label_of(section.points[place]), style, costs_at(section, place))
        for place, style in zip(places, styles(len(places)), strict=True)
    ]


def other_scores(section: Section) -> list[tuple[dict[str, float], float]]:
    """Returns (costs, top1 from 0 to 1) of the points that charts do not show by name, as far as they have a score."""
    places = sorted(set(range(len(section.points))) - set(shown_places(section)))
    scores = [(costs_at(section, place), section.points[place].top1[0]) for place in places]
    return [(costs, top1) for costs, top1 in scores if top1 is not None]


def scale_epochs(axes: Any, most: float) -> None:
    """Labels the axis of epochs, and marks whole ones where there are several. most: the last epoch."""
    from matplotlib.ticker import MaxNLocator

    if most >= 2:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
