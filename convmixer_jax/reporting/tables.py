"""The tables of a report, as heads and cells that a page and a Markdown file write in their own ways.

table = main_table(section)
table.heads[0].text, table.rows[0][0].text
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from convmixer_jax.reporting.collection import Point
from convmixer_jax.reporting.sections import Machine, Section
from convmixer_jax.reporting.workdirs import text
from convmixer_jax.runs.progress import printable
from convmixer_jax.studying.cost import Cost
from convmixer_jax.studying.study import labels

NOTHING = "–"  # what a cell shows that has no value


@dataclasses.dataclass(frozen=True)
class Head:
    """unit: "" for none. about: what the column is, in words. numeric: whether its cells are numbers."""

    text: str
    unit: str = ""
    about: str = ""
    numeric: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """value: what it sorts by, None where there is nothing, which comes last."""

    text: str
    value: float | str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """rows: as many cells each as there are heads."""

    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]


def number_cell(value: float | None, form: str = ",.0f") -> Cell:
    """Returns the cell of a number. form: as format() takes it."""
    return Cell(NOTHING) if value is None else Cell(format(value, form), value)


def text_cell(value: str) -> Cell:
    """Returns the cell of a text, in one line."""
    return Cell(printable(value), printable(value))


def value_cell(value: Any) -> Cell:
    """Returns the cell of a config field's value; None is for unknown."""
    if value is None:
        return Cell(NOTHING)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(printable(text(value)), value if numeric else printable(text(value)))


def percent_cell(fraction: float | None, form: str = ".2f") -> Cell:
    """Returns the cell of a fraction, in percent."""
    return number_cell(None if fraction is None else 100 * fraction, form)


def significant(value: float | None) -> Cell:
    """Returns the cell of a number to three digits, and to the whole number above a hundred."""
    return number_cell(value, ",.0f" if value is not None and abs(value) >= 100 else ".3g")


def main_table(section: Section) -> Table:
    """Returns a row for each point of the section."""
    fields = section.fields
    short = labels(fields)
    several = len(section.studies) > 1
    score = "mean over the seeds that are done, at the last step"
    heads = (
        Head("point" if section.studies else "run"),
        *([Head("study")] if several else []),
        *(Head(short[field], about=f"config.{field}", numeric=_is_numeric(section, field)) for field in fields),
        Head("parameters", about="trainable", numeric=True),
        Head("forward", "MFLOP", "of one image: convolutions and products, two for a multiply-add", True),
        Head("seeds", about="done, of those asked for", numeric=True),
        Head("test top-1", "%", score, True),
        Head("spread", "±", "sample standard deviation over seeds, in points of percent", True),
        Head("published", "%", "see the source above the table", True),
        Head("difference", "points", "mean less published, in points of percent", True),
        Head("training", "s", "of the updates alone, mean over seeds", True),
        Head("speed", "images/s", "of the updates alone, mean over seeds", True),
        Head("state"),
    )
    rows = [_row(section, point, cost, several) for point, cost in zip(section.points, section.costs, strict=True)]
    return Table(heads, tuple(rows))


def _is_numeric(section: Section, field: str) -> bool:
    values = [section.value(point, field) for point in section.points]
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def _row(section: Section, point: Point, cost: Cost | None, several: bool) -> tuple[Cell, ...]:
    mean, spread = point.top1
    done, asked = len(point.done), len(point.runs)
    recorded = next((run.result.get("params") for run in point.done if run.result), None)
    params = cost.params if cost else recorded if isinstance(recorded, int) else None
    return (
        text_cell(point.name),
        *([text_cell(point.study.name if point.study else NOTHING)] if several else []),
        *(value_cell(section.value(point, field)) for field in section.fields),
        number_cell(params),
        significant(cost.flops / 1e6 if cost else None),
        Cell(f"{done} of {asked}", float(done)),
        percent_cell(mean),
        percent_cell(spread),
        percent_cell(point.published),
        number_cell(point.difference, "+.2f"),
        significant(point.mean("step_seconds")),
        significant(point.mean("images_per_sec")),
        text_cell(point.states if asked > 1 else point.runs[0].state if asked else NOTHING),
    )


def differences_table(section: Section) -> Table:
    """Returns a row for each field that is not the same in all configs, and a column for each point."""
    heads = (Head("field"), *(Head(printable(point.name)) for point in section.points))
    rows = []
    for difference in section.differences:
        cells = [", ".join(printable(text(value)) for value in values) or NOTHING for values in difference.values]
        rows.append((text_cell(difference.field), *map(Cell, cells)))
    return Table(heads, tuple(rows))


def machines_table(machines: Sequence[Machine]) -> Table:
    """Returns a column for each combination of hardware and versions."""
    columns: list[Mapping[str, str]] = [
        {"runs": ", ".join(machine.runs), "first start": machine.first, "last start": machine.last, **machine.facts}
        for machine in machines
    ]
    names = dict.fromkeys(name for column in columns for name in column)
    heads = (Head(""), *(Head(f"setup {number}") for number in range(1, len(machines) + 1)))
    rows = [(Cell(name), *(text_cell(column.get(name, NOTHING)) for column in columns)) for name in names]
    return Table(heads, tuple(rows))
