"""The charts of a section; one that has nothing to show is left out.

for chart in section_charts(section):
    figure = chart.draw(LIGHT)
"""

from convmixer_jax.reporting.cost_charts import cost_charts
from convmixer_jax.reporting.curve_charts import curve_charts
from convmixer_jax.reporting.run_charts import rate_charts, time_charts
from convmixer_jax.reporting.sections import Section
from convmixer_jax.reporting.shown import Chart, other_scores, shown_points


def section_charts(section: Section) -> list[Chart]:
    """Returns the charts for which there is anything to show."""
    shown = shown_points(section)
    left_out = len(section.points) - len(shown)
    note = f" The {len(shown)} best of {len(section.points)} points." if left_out else ""
    costs = cost_charts(shown, other_scores(section))
    return [*curve_charts(shown, note), *costs, *rate_charts(shown, note), *time_charts(section)]
