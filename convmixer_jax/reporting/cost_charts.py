"""What a score costs: test top-1 against parameters, time and FLOPs, with the Pareto front.

charts = cost_charts(shown_points(section), other_scores(section))
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convmixer_jax.reporting.looks import Theme, legend_below, new_chart
from convmixer_jax.reporting.shown import Chart, Shown
from convmixer_jax.reporting.summaries import pareto_front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MANY_TIMES = 10.0  # from the least to the most: an axis is logarithmic from here on


def cost_charts(shown: Sequence[Shown], others: Sequence[tuple[dict[str, float], float]]) -> list[Chart]:
    """Returns the scores against parameters, time and FLOPs. others: (costs, top1) of points that are mere dots.

    The front is that of all points: a cheap one on it need not be among the best.
    """
    kinds = (
        ("params", "parameters", "trainable parameters", ""),
        ("seconds", "training time", "seconds of the updates", " Times of different machines are not comparable."),
        ("flops", "FLOPs", "MFLOP of an image's forward pass", ""),
    )
    charts = []
    for name, what, label, warning in kinds:
        scored = [each for each in shown if each.point.top1[0] is not None and each.cost.get(name)]
        if len(scored) > 1:  # one point is not better than any other
            rest = [(costs[name], 100 * top1) for costs, top1 in others if costs.get(name)]
            note = f" Dots are the {len(rest)} points that are not among the {len(scored)} best." * bool(rest)
            bar = " over seeds, with the sample standard deviation" * any(each.point.top1[1] for each in scored)
            caption = (
                f"At the last step{bar}. Ringed is the Pareto front: no point that costs as little is better, none as "
                f"good costs less.{warning}{note}"
            )
            drawing = cost_drawing(scored, name, label, rest)
            charts.append(Chart(f"top1-by-{name}", f"Test top-1 accuracy against {what}", caption, drawing))
    return charts


def cost_drawing(
    scored: Sequence[Shown], name: str, label: str, others: Sequence[tuple[float, float]] = ()
) -> Callable[[Theme], "Figure"]:
    """Returns what draws a mark for each point, a dot for each (cost, percent) of others, and the Pareto front."""
    pairs = [(each.cost[name], 100 * (each.point.top1[0] or 0.0)) for each in scored]
    everything = [*pairs, *others]
    front = sorted(everything[place] for place in pareto_front(everything))

    def draw(theme: Theme) -> "Figure":
        with theme.applied():
            figure = new_chart()
            axes = figure.subplots()
            axes.plot(
                *zip(*front, strict=True), "-", color=theme.ink, linewidth=1, marker="o", markersize=12, zorder=1,
                markerfacecolor="none", label="Pareto front",
            )  # fmt: skip
            if others:
                axes.plot(*zip(*others, strict=True), ".", color=theme.ink, alpha=0.5, markersize=4, label="others")
            for each, (cost, score) in zip(scored, pairs, strict=True):
                colour = theme.colours[each.style.colour]
                filled = colour if each.style.line == "-" else theme.paper
                axes.errorbar(
                    cost, score, yerr=100 * (each.point.top1[1] or 0.0) or None, fmt=each.style.marker, color=colour,
                    markerfacecolor=filled, markersize=6, capsize=3, label=each.label,
                )  # fmt: skip
            costs = [cost for cost, _ in everything]
            scale_costs(axes, min(costs), max(costs))
            axes.margins(x=0.12, y=0.15)
            axes.set_xlabel(label)
            axes.set_ylabel("test top-1 accuracy (%)")
            legend_below(figure, 1 + len(scored) + bool(others))
        return figure

    return draw


def scale_costs(axes: Any, least: float, most: float) -> None:
    """Makes the axis of costs logarithmic where they differ much, and writes them with their thousands apart."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if most / least >= MANY_TIMES:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if most / least < MANY_TIMES**3 else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:g}"))
