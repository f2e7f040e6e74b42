"""What runs recorded beside their scores: learning rates, and where the time went.

charts = [*rate_charts(shown_points(section), note=""), *time_charts(section)]
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from convmixer_jax.ledger import COLOURS
from convmixer_jax.reporting.looks import HEIGHT, Theme, legend_below, new_chart
from convmixer_jax.reporting.sections import Section
from convmixer_jax.reporting.shown import LABEL, Chart, Shown, scale_epochs
from convmixer_jax.reporting.workdirs import Run
from convmixer_jax.runs.ledger import CATEGORIES, STEP
from convmixer_jax.runs.progress import duration, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = 40
HATCHES = ("", "//", "", "\\\\", "..", "", "xx", "", "")  # of CATEGORIES: neighbours differ without their colours


def rate_charts(shown: Sequence[Shown], note: str) -> list[Chart]:
    """Returns the learning rates; points with the same ones share a line."""
    lines: list[tuple[list[tuple[float, float]], list[Shown]]] = []
    for each in shown:
        rates = max((run.rates for run in each.point.runs), key=len, default=[])
        same = next((users for known, users in lines if known == rates), None)
        if same is not None:
            same.append(each)
        elif len(rates) > 1:
            lines.append((rates, [each]))
    if not lines:
        return []
    caption = f"As metrics.jsonl has it. Points with the same schedule share a line.{note}"

    def draw(theme: Theme) -> "Figure":
        with theme.applied():
            figure = new_chart()
            axes = figure.subplots()
            for rates, users in lines:
                label = users[0].label + (f" and {len(users) - 1} more" if len(users) > 1 else "")
                style = users[0].style
                axes.plot(
                    *zip(*rates, strict=True), style.line, color=theme.colours[style.colour], linewidth=1.6,
                    label="all" if len(lines) == 1 < len(users) else label,
                )  # fmt: skip
            scale_epochs(axes, max(epoch for rates, _ in lines for epoch, _ in rates))
            axes.set_ylabel("learning rate")
            legend_below(figure, len(lines))
        return figure

    return [Chart("learning-rate", "Learning rate by epoch", caption, draw)]


def time_charts(section: Section) -> list[Chart]:
    """Returns where the time of the runs went."""
    runs = [run for run in section.runs if run.accounts and total_seconds(run)]
    if not runs:
        return []
    note = f" The first {BARS} of {len(runs)} runs." if len(runs) > BARS else ""
    caption = (
        "Shares of the time since a run's first start, over all its starts, by its ledger. Goodput, at the end of each "
        f"name, is the share in which updates were made that count; before it is the time in h:mm:ss.{note}"
    )
    return [Chart("goodput", "Where the time went", caption, time_drawing(runs[:BARS]))]


def total_seconds(run: Run) -> float:
    """Returns the wall seconds of all processes of a run."""
    return sum(account.wall for account in run.accounts.values())


def time_drawing(runs: Sequence[Run]) -> Callable[[Theme], "Figure"]:
    """Returns what draws a stacked bar for each run, all its processes together."""
    shares = {
        kind: [100 * sum(each.seconds[kind] for each in run.accounts.values()) / total_seconds(run) for run in runs]
        for kind in CATEGORIES
    }
    names = []
    for run, updates in zip(runs, shares[STEP], strict=True):
        name = printable(run.name)
        name = name if len(name) <= LABEL else f"…{name[-LABEL:]}"
        names.append(f"{name}\n{duration(run.accounts[min(run.accounts)].wall)}, {updates:.0f} %")

    def draw(theme: Theme) -> "Figure":
        with theme.applied():
            figure = new_chart(max(HEIGHT - 1, 1.2 + 0.34 * len(runs)))
            axes = figure.subplots()
            left = [0.0] * len(runs)
            drawn = 0
            for (kind, widths), hatch in zip(shares.items(), HATCHES, strict=True):
                if any(width >= 0.05 for width in widths):
                    places = range(len(runs))
                    axes.barh(
                        places, widths, left=left, color=COLOURS[kind], label=kind, hatch=hatch, height=0.7,
                        edgecolor=theme.paper, linewidth=0.4,
                    )  # fmt: skip
                    drawn += 1
                left = [begin + width for begin, width in zip(left, widths, strict=True)]
            axes.set_yticks(range(len(runs)), labels=names)
            axes.invert_yaxis()
            axes.grid(False, axis="y")
            axes.set_xlim(0, 100)
            axes.set_xlabel("share of the time (%)")
            legend_below(figure, drawn)
        return figure

    return draw
