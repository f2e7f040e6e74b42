"""Learning curves: top-1 and loss of each split by epoch, a line for each point and a band over its seeds.

charts = curve_charts(shown_points(section), note="")
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from convmixer_jax.reporting.collection import Point
from convmixer_jax.reporting.looks import Theme, legend_below, new_chart
from convmixer_jax.reporting.shown import Chart, Shown, scale_epochs
from convmixer_jax.reporting.summaries import mean_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 12  # points of a curve that are marked
SPLITS = ("val", "test")


def curve_charts(shown: Sequence[Shown], note: str) -> list[Chart]:
    """Returns the learning curves of each split that was evaluated: top-1 and loss."""
    charts = []
    for split in SPLITS:
        for name, what, unit in (("top1", "top-1 accuracy", "%"), ("loss", "loss", "nats")):
            curves = [(each, means(each.point, split, name)) for each in shown]
            curves = [(each, curve) for each, curve in curves if curve]
            # One evaluation, that of the last step, is in the table: a curve takes two.
            if any(len(curve) > 1 for _, curve in curves):
                several = any(spread > 0 for _, curve in curves for *_, spread in curve)
                band = " Mean over the seeds that came so far; the band is the sample standard deviation." * several
                charts.append(
                    Chart(
                        f"{split}-{name}",
                        f"{split.capitalize()} {what} by epoch",
                        f"Evaluations of the {split} split while training.{band}{note}",
                        curve_drawing(curves, f"{split} {what} ({unit})"),
                    )
                )
    return charts


def means(point: Point, split: str, name: str) -> list[tuple[float, float, float]]:
    """Returns (epoch, mean, spread) over a point's runs: of top-1 in percent, or of the loss."""
    factor = 100.0 if name == "top1" else 1.0
    curves = []
    for run in point.runs:
        values = [(one.epoch, getattr(one, name)) for one in run.curves.get(split, [])]
        curves.append({epoch: factor * value for epoch, value in values if value is not None})
    return mean_curve(curves)


def curve_drawing(
    curves: Sequence[tuple[Shown, list[tuple[float, float, float]]]], label: str
) -> Callable[[Theme], "Figure"]:
    """Returns what draws a line and a band for each point."""

    def draw(theme: Theme) -> "Figure":
        with theme.applied():
            figure = new_chart()
            axes = figure.subplots()
            for each, curve in curves:
                epochs, middle, spread = zip(*curve, strict=True)
                colour = theme.colours[each.style.colour]
                marker = each.style.marker if len(curve) <= FEW else ""
                axes.plot(
                    epochs, middle, each.style.line, color=colour, marker=marker, markersize=4, linewidth=1.6,
                    label=each.label,
                )  # fmt: skip
                if any(spread):
                    low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
                    axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
            scale_epochs(axes, max(epoch for _, curve in curves for epoch, *_ in curve))
            axes.set_ylabel(label)
            legend_below(figure, len(curves))
        return figure

    return draw
