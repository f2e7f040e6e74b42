"""Charts show what there is to show, and nothing lies on anything else."""

import io

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.reporting.charts import section_charts
from convmixer_jax.reporting.collection import collect
from convmixer_jax.reporting.cost_charts import cost_drawing
from convmixer_jax.reporting.looks import DARK, LIGHT, MOST_POINTS, png, styles
from convmixer_jax.reporting.pictures import picture_of
from convmixer_jax.reporting.sections import make_sections
from convmixer_jax.reporting.shown import label_of, shown_points
from convmixer_jax.studying.cost import Cost
from tests.reporting.made_up import rows_of, write_record, write_rows, write_run, write_study


def section_of(*places):
    """The one section of the places; a point costs a million parameters and FLOPs for each kernel position."""

    def cost(point):
        size = point.parameters.get("model.kernel_size", 1)
        return Cost(size * 1_000_000, size * 2_000_000)

    [section] = make_sections(collect(places), cost)
    return section


@pytest.fixture
def section(tmp_path):
    return section_of(write_study(tmp_path / "k"))


def drawn(section, name):
    [chart] = [chart for chart in section_charts(section) if chart.name == name]
    return chart.draw(LIGHT)


def lines(figure):
    """{label: points} of all lines."""
    [axes] = figure.axes
    return {line.get_label(): np.column_stack(line.get_data()).tolist() for line in axes.lines}


def test_the_charts_of_a_study(section):
    assert [chart.name for chart in section_charts(section)] == [
        "test-top1", "test-loss", "top1-by-params", "top1-by-seconds", "top1-by-flops", "learning-rate", "goodput",
    ]  # fmt: skip


def test_a_curve_is_the_mean_over_seeds_with_a_band(section):
    figure = drawn(section, "test-top1")
    curves = lines(figure)
    assert curves["kernel_size=3"] == [[epoch, pytest.approx(20.5 * epoch)] for epoch in (1, 2, 3, 4)]
    # The second seed came to the middle with the same scores; the third point's seeds to its first epoch and its end.
    assert curves["kernel_size=7"] == [[epoch, pytest.approx(22 * epoch)] for epoch in (1, 2, 3, 4)]
    assert curves["kernel_size=5"][0] == [1, pytest.approx((22.5 + 10) / 2)]
    assert curves["kernel_size=9"] == [[1, pytest.approx(10)]]
    bands = figure.axes[0].collections
    assert len(bands) == 2  # of 3 and 5: the seeds of 7 are equal
    low, high = bands[0].get_datalim(figure.axes[0].transData).intervaly
    assert high == pytest.approx(82 + 100 * 0.0282842712)
    assert low == pytest.approx(20.5 - 25 * 0.0282842712)


def test_the_front_is_ringed_and_connected(section):
    # 3, 5, 7 kernel positions with 82, 90 and 88 %: the largest is dearer and worse.
    curves = lines(drawn(section, "top1-by-params"))
    assert curves["Pareto front"] == [[3e6, pytest.approx(82)], [5e6, pytest.approx(90)]]
    assert lines(drawn(section, "top1-by-flops"))["Pareto front"] == [[6, pytest.approx(82)], [10, pytest.approx(90)]]
    assert [x for x, _ in lines(drawn(section, "top1-by-seconds"))["Pareto front"]] == [25, 50]


def test_points_with_one_schedule_share_a_line(tmp_path, section):
    assert list(lines(drawn(section, "learning-rate"))) == ["all"]
    write_run(tmp_path / "slow", **{"schedule.learning_rate": 0.01})
    path = tmp_path / "slow/metrics.jsonl"
    path.write_text(path.read_text().replace("0.0375", "0.01"))
    assert list(lines(drawn(section_of(tmp_path), "learning-rate"))) == [
        "kernel_size=3 and 2 more",
        "slow",
    ]


def test_the_bars_are_shares_of_the_time(section):
    figure = drawn(section, "goodput")
    [axes] = figure.axes
    widths = {bar.get_label(): [patch.get_width() for patch in bar] for bar in axes.containers}
    assert widths == {
        "step": pytest.approx([60] * 4), "evaluation": pytest.approx([10] * 4), "compile": pytest.approx([30] * 4),
    }  # fmt: skip
    assert axes.get_yticklabels()[0].get_text() == "k/kernel_size=3/seed-0\n0:00:20, 60 %"


@pytest.mark.parametrize("name", ["test-top1", "top1-by-params", "goodput"])
def test_labels_and_legend_lie_beside_the_data(section, name):
    figure = drawn(section, name)
    png(figure, 50)
    [axes], [legend] = figure.axes, figure.legends
    assert axes.get_xlabel()
    assert axes.get_ylabel() or name == "goodput"
    box = legend.get_window_extent()
    assert not box.overlaps(axes.get_window_extent())
    assert box.y0 >= 0
    assert box.width <= figure.bbox.width


def test_many_points_with_long_names_are_the_best_ones(tmp_path):
    for number in range(MOST_POINTS + 3):
        write_run(tmp_path / f"{'a rather long name ' * 4}{number:02d}", 0.5 + number / 100, seed=number)
    section = section_of(tmp_path)
    shown = shown_points(section)
    assert [each.point.name[-2:] for each in shown] == [f"{number:02d}" for number in range(3, MOST_POINTS + 3)]
    assert all(len(label_of(point)) <= 32 for point in section.points)
    [curve, *_] = section_charts(section)
    assert curve.caption.endswith(f"The {MOST_POINTS} best of {MOST_POINTS + 3} points.")
    figure = curve.draw(LIGHT)
    png(figure, 50)
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width


def test_the_front_is_that_of_all_points(tmp_path):
    """The cheapest point is the worst: it is not among those that have a name in the chart."""
    for number in range(MOST_POINTS + 2):
        write_run(tmp_path / f"run-{number:02d}", 0.5 + number / 100, step_seconds=10.0 + number)
    section = section_of(tmp_path)
    [chart] = [chart for chart in section_charts(section) if chart.name == "top1-by-seconds"]
    assert chart.caption.endswith(f" Dots are the 2 points that are not among the {MOST_POINTS} best.")
    curves = lines(chart.draw(LIGHT))
    assert [score for _, score in curves["Pareto front"]] == pytest.approx([50 + n for n in range(MOST_POINTS + 2)])
    assert [score for _, score in curves["others"]] == pytest.approx([50, 51])


def test_where_there_is_nothing_there_is_no_chart(tmp_path):
    write_record(tmp_path / "new")
    assert section_charts(section_of(tmp_path)) == []
    write_rows(tmp_path / "new", rows_of(0.5, 4, split="val")[:4])
    assert [chart.name for chart in section_charts(section_of(tmp_path))] == ["val-top1", "val-loss", "learning-rate"]


def test_one_point_has_no_front(tmp_path):
    write_run(tmp_path)
    assert not [chart for chart in section_charts(section_of(tmp_path)) if chart.name.startswith("top1-by")]


def test_points_differ_without_colours():
    assert len({(style.colour, style.line) for style in styles(MOST_POINTS)}) == MOST_POINTS
    for theme in (LIGHT, DARK):
        assert len(set(theme.colours)) == len(theme.colours) == MOST_POINTS // 2


def luminance(colour):
    """WCAG's relative luminance of #rrggbb."""
    levels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(theme):
    def contrast(colour):
        low, high = sorted([luminance(colour), luminance(theme.paper)])
        return (high + 0.05) / (low + 0.05)

    assert contrast(theme.ink) >= 7
    assert min(map(contrast, theme.colours)) >= 3  # what WCAG asks of graphics


def test_a_picture_is_drawn_for_both_pages(section):
    picture = picture_of(section_charts(section)[0])
    light, dark = (np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in (picture.light, picture.dark))
    assert light[0, 0].tolist() == [255, 255, 255]
    assert dark[0, 0].tolist() == [0x16, 0x1B, 0x22]
    assert picture.shown_width == light.shape[1] / 2


def test_costs_that_differ_much_have_a_logarithmic_axis(section):
    shown = [each for each in shown_points(section) if each.point.done]
    assert cost_drawing(shown, "params", "")(LIGHT).axes[0].get_xscale() == "linear"
    shown[0].cost["params"] = 100.0
    assert cost_drawing(shown, "params", "")(LIGHT).axes[0].get_xscale() == "log"
