"""All that a report says, before it is written as a page or as Markdown.

reporter = Reporter(data_dir)
content = reporter.make([Path("runs/kernel_size")])
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from convmixer_jax.errors import UserError
from convmixer_jax.reporting.charts import section_charts
from convmixer_jax.reporting.collection import Collection, Point, Study, collect, not_done, summary
from convmixer_jax.reporting.costs import recorded_cost
from convmixer_jax.reporting.model_pictures import ModelPictures
from convmixer_jax.reporting.pictures import Picture, picture_of
from convmixer_jax.reporting.sections import MOST_FIELDS, Machine, Section, machines, make_sections, moment
from convmixer_jax.reporting.tables import Table, differences_table, machines_table, main_table
from convmixer_jax.runs.progress import printable
from convmixer_jax.runs.provenance import now
from convmixer_jax.studying.cost import Cost
from convmixer_jax.studying.study import FULL

REVISION = 12  # characters of one that are told at the top
TOLD_VERSIONS = ("convmixer_jax", "python", "jax", "flax", "optax")


@dataclasses.dataclass(frozen=True)
class Part:
    """What is said of one data set. left: (run, state, why) of each run without a result."""

    id: str
    title: str
    notes: tuple[str, ...]
    table: Table
    left: tuple[tuple[str, str, str], ...]
    pictures: tuple[Picture, ...]
    best: str
    differences: Table


@dataclasses.dataclass(frozen=True)
class Content:
    """summary: lines on what this is. written: when (UTC)."""

    title: str
    summary: tuple[str, ...]
    written: str
    warnings: tuple[str, ...]
    parts: tuple[Part, ...]
    machines: Table


class Reporter:
    """Makes reports, and keeps between two of them what is slow to make. data_dir: the folder of the data sets."""

    def __init__(self, data_dir: Path):
        self._model_pictures = ModelPictures(data_dir)

    def make(self, places: Sequence[Path]) -> Content:
        """Returns the report of all runs below the places. Raises UserError for a place without any."""
        collection = collect(places)
        unknown: list[str] = []

        def cost_of(point: Point) -> Cost | None:
            try:
                return next((recorded_cost(run) for run in point.runs if run.config), None)
            except UserError as error:
                unknown.append(f"{point.name}: parameters and FLOPs are unknown ({error})")
            return None

        sections = make_sections(collection, cost_of)
        found = machines(collection.runs)
        return Content(
            title=printable(_title(collection, places)),
            summary=tuple(_summary(collection, found)),
            written=moment(now()),
            warnings=tuple(map(printable, [*collection.warnings, *unknown])),
            parts=tuple(map(self._part, sections)),
            machines=machines_table(found),
        )

    def _part(self, section: Section) -> Part:
        best = section.best
        pictures = [picture_of(chart) for chart in section_charts(section)]
        told = "No run is done yet."
        if best is not None:
            run, score = best
            pictures += self._model_pictures.of(run)
            told = f"The best run that is done, by its {score}, is {run.name}."
        return Part(
            id=f"data-{section.number}",
            title=printable(section.dataset),
            notes=tuple(_notes(section)),
            table=main_table(section),
            left=tuple((printable(name), state, printable(why)) for name, state, why in not_done(section.points)),
            pictures=tuple(pictures),
            best=printable(told),
            differences=differences_table(section),
        )


def _title(collection: Collection, places: Sequence[Path]) -> str:
    names = [study.title or study.name for study in collection.studies]
    return "; ".join(names) if names else f"Runs in {', '.join(map(str, places))}"


def _summary(collection: Collection, found: Sequence[Machine]) -> list[str]:
    """Returns lines on how many runs there are, when, where and with what they were made."""
    lines = [f"{summary(collection.runs)}."]
    if not found:
        return lines
    first, last = min(machine.first for machine in found), max(machine.last for machine in found)
    lines.append(f"Started from {first} to {last}." if first != last else f"Started at {first}.")

    def all_of(name: str) -> str:
        return " or ".join(dict.fromkeys(machine.facts.get(name, "unknown") for machine in found))

    revisions = [machine.facts["revision"] for machine in found]
    shorter = dict.fromkeys(f"{text[:REVISION]}{'-dirty' if text.endswith('-dirty') else ''}" for text in revisions)
    versions = ", ".join(f"{name} {all_of(name)}" for name in TOLD_VERSIONS)
    lines.append(f"On {all_of('devices')}; {versions}; revision {' or '.join(shorter)}.")
    return [printable(line) for line in lines]


def _notes(section: Section) -> list[str]:
    """Returns what is to be known before the table is read."""
    notes = [_study_note(study) for study in section.studies]
    if any(study.scale not in ("", FULL) for study in section.studies):
        notes.append(
            "The published scores are of the full scale: at a smaller one the order of the points can be compared with "
            "theirs, the scores cannot."
        )
    more = len(section.varying) - MOST_FIELDS
    if more > 0:
        notes.append(f"Of what varies, {more} more fields are under “What differs between the configs”.")
    return [printable(note) for note in notes]


def _study_note(study: Study) -> str:
    parts = [f"Study {study.name}"]
    parts += [f"recipe {study.recipe}"] if study.recipe else []
    parts += [f"scale {study.scale}"] if study.scale else []
    settings = ", ".join(f"{name} = {value}" for name, value in study.settings.items())
    parts += [f"settings {settings}"] if settings else []
    source = f" Published scores: {study.source}." if study.source else " Nothing is published for it."
    return "; ".join(parts) + "." + source
