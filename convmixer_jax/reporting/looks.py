"""How charts look: a theme for light pages and one for dark ones, and how points are told apart.

    with LIGHT.applied():
        figure = new_chart()
    style = styles(len(points))[0]

The colours are those of Okabe and Ito, which colour-blind readers tell apart (https://jfly.uni-koeln.de/color/), made
darker or lighter so that each stands out from its paper by a contrast of 3; lines and markers differ as well.
"""

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convmixer_jax.inference.figures import SOFTWARE

if TYPE_CHECKING:  # matplotlib takes half a second
    from matplotlib.figure import Figure

DPI = 200  # twice what a page shows, for screens of fine pixels
SHOWN_DPI = 100
WIDTH, HEIGHT = 4.8, 3.5  # inches: two charts side by side on a page, one on a telephone
MOST_COLUMNS = 6  # of a legend
LINE = 0.18  # inches of a line of a legend
SMALLEST = 8.5  # points of the smallest text


@dataclasses.dataclass(frozen=True)
class Theme:
    """paper, ink, faint: of the ground, of text and lines, of the grid. colours: of points."""

    paper: str
    ink: str
    faint: str
    colours: tuple[str, ...]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Draws in this theme what is made inside."""
        import matplotlib

        settings: Any = {
            "figure.facecolor": self.paper, "axes.facecolor": self.paper, "savefig.facecolor": self.paper,
            "text.color": self.ink, "axes.labelcolor": self.ink, "axes.edgecolor": self.ink,
            "xtick.color": self.ink, "ytick.color": self.ink, "grid.color": self.faint, "axes.grid": True,
            "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
            "font.size": 9.5, "axes.titlesize": 10.5, "axes.labelsize": 9.5, "legend.fontsize": SMALLEST,
            "xtick.labelsize": SMALLEST, "ytick.labelsize": SMALLEST, "text.parse_math": False, "hatch.linewidth": 0.6,
        }  # fmt: skip
        with matplotlib.rc_context(settings):
            yield


LIGHT = Theme(
    "#ffffff", "#1f2328", "#d9dde2",
    ("#0072b2", "#d55e00", "#009e73", "#c46d9d", "#b07d00", "#3d9bd4", "#3d3d3d"),
)  # fmt: skip
DARK = Theme(
    "#161b22", "#e6edf3", "#30363d",
    ("#58a6e8", "#ff8c42", "#2fc79a", "#e79cc8", "#f0c04a", "#9bdcff", "#f5f5f5"),
)  # fmt: skip
LINES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_POINTS = len(LIGHT.colours) * 2  # in one chart: with more nothing can be told apart


@dataclasses.dataclass(frozen=True)
class Style:
    """How a point is drawn. colour: place in the theme's colours."""

    colour: int
    line: str
    marker: str


def styles(count: int) -> list[Style]:
    """Returns a style for each of so many points; each of the first MOST_POINTS has its own."""
    colours = len(LIGHT.colours)
    return [Style(n % colours, LINES[n // colours % len(LINES)], MARKERS[n % len(MARKERS)]) for n in range(count)]


def new_chart(height: float = HEIGHT) -> "Figure":
    """Returns an empty figure of the width of a chart. height: in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=SHOWN_DPI, layout="constrained")


def legend_below(figure: "Figure", entries: int) -> None:
    """Puts the legend of all axes under them, where it covers nothing, in as many columns as fit."""
    room = figure.get_figwidth() * figure.dpi
    for columns in range(min(entries, MOST_COLUMNS), 0, -1):
        legend = figure.legend(loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= room:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + LINE * -(-entries // columns))


def png(figure: "Figure", dpi: int) -> bytes:
    """Returns the figure as PNG. Text is drawn as it is; what the font does not have is a box."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name with two $ is no formula
    encoded = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")  # some scripts
        figure.savefig(encoded, format="png", dpi=dpi, metadata={"Software": SOFTWARE})
    return encoded.getvalue()
