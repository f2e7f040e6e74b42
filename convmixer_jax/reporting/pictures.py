"""Charts as the bytes that a page shows: drawn for light and dark, and only where what they show has changed.

pictures = [picture_of(chart) for chart in section_charts(section)]
"""

import dataclasses
import struct

from convmixer_jax.reporting.looks import DARK, DPI, LIGHT, SHOWN_DPI, png
from convmixer_jax.reporting.shown import Chart


@dataclasses.dataclass(frozen=True)
class Picture:
    """name: of its file. light, dark: PNG; no dark one for what is the same on both; neither where it is left out."""

    name: str
    title: str
    caption: str
    light: bytes | None
    dark: bytes | None

    @property
    def shown_width(self) -> int:
        """The pixels of its width on a page at 100 %: of a chart, which has a dark one, half of its own."""
        assert self.light is not None  # what is left out is not shown
        (width,) = struct.unpack(">I", self.light[16:20])
        return round(width * SHOWN_DPI / DPI) if self.dark else width


def picture_of(chart: Chart) -> Picture:
    """Draws a chart."""
    light, dark = (png(chart.draw(theme), DPI) for theme in (LIGHT, DARK))
    return Picture(chart.name, chart.title, chart.caption, light, dark)
