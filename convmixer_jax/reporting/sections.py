"""The runs of one data set, which one table compares: what varies, what it costs, which run is the best.

    for section in make_sections(collection, costs_of): ...
    section.fields, section.best, section.differences

Runs of different data sets never share a table: their scores have nothing to do with each other.
"""

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convmixer_jax.config_record import RESUME_MAY_CHANGE
from convmixer_jax.reporting.collection import Collection, Point, Study
from convmixer_jax.reporting.summaries import different
from convmixer_jax.reporting.workdirs import Run
from convmixer_jax.studying.cost import Cost

UNKNOWN = "unknown data set"
MOST_FIELDS = 6  # columns of the main table for what varies; the table of differences has all
# Fields of config.model and of the schedule say more of a run than those of its augmentation: which come first.
FIRST = ("model.", "epochs", "batch_size", "train_examples", "schedule.", "optimizer.", "seed")


@dataclasses.dataclass(frozen=True)
class Difference:
    """A field that is not the same in all configs. values: those of each point, a point's own differing ones too."""

    field: str
    values: tuple[tuple[Any, ...], ...]


@dataclasses.dataclass(frozen=True)
class Machine:
    """What some starts have in common: devices, platform, versions, revision. first, last: when (UTC)."""

    facts: Mapping[str, str]
    runs: tuple[str, ...]
    first: str
    last: str


@dataclasses.dataclass(frozen=True)
class Section:
    """number: from 1. costs: of each point's model, None for unknown."""

    number: int
    dataset: str
    points: tuple[Point, ...]
    costs: tuple[Cost | None, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs, those that are missing among them."""
        return [run for point in self.points for run in point.runs]

    @property
    def studies(self) -> list[Study]:
        """The studies that the points are of."""
        return [*{str(point.study.folder): point.study for point in self.points if point.study}.values()]

    @property
    def varying(self) -> list[str]:
        """All dotted fields that tell the points apart: the studies' axes, and what differs between other runs."""
        axes = [axis for study in self.studies for axis in study.axes]
        lonely = [point.runs[0].config for point in self.points if not point.study and point.runs[0].config]
        fields = [field for field in different(lonely) if field not in RESUME_MAY_CHANGE] if lonely else []
        return [*dict.fromkeys([*axes, *sorted(fields, key=_importance)])]

    @property
    def fields(self) -> list[str]:
        """Of those the ones that the main table has columns for."""
        return self.varying[:MOST_FIELDS]

    def value(self, point: Point, field: str) -> Any:
        """Returns a point's value of a field; None for unknown."""
        if field in point.parameters:
            return point.parameters[field]
        return next((run.config[field] for run in point.runs if field in run.config), None)

    @property
    def best(self) -> tuple[Run, str] | None:
        """Returns (the best of the runs that are done, by which score); None where none is.

        By the validation split where all of them have one: the test split is not for choosing.
        """
        done = [run for run in self.runs if run.top1 is not None]
        if not done:
            return None
        if all(run.val_top1 is not None for run in done):
            return max(done, key=lambda run: run.val_top1 or 0.0), "validation top-1"
        return max(done, key=lambda run: run.top1 or 0.0), "test top-1"

    @property
    def differences(self) -> list[Difference]:
        """All fields that are not the same in all configs, the seed among them."""
        configs = [run.config for run in self.runs if run.config]
        found = different(configs) if configs else []
        return [Difference(field, tuple(_values(point, field) for point in self.points)) for field in found]


def _importance(field: str) -> tuple[int, str]:
    rank = next((place for place, begin in enumerate(FIRST) if field.startswith(begin)), len(FIRST))
    return rank, field


def _values(point: Point, field: str) -> tuple[Any, ...]:
    values: list[Any] = []
    for run in point.runs:
        if field in run.config and run.config[field] not in values:
            values.append(run.config[field])
    return tuple(values)


def describe_start(start: Mapping[str, Any]) -> dict[str, str]:
    """Returns the facts of a start that results depend on, by what people call them."""
    devices = start.get("devices")
    kinds = list(map(str, devices)) if isinstance(devices, list) else []
    counted = ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
    versions = {str(name): str(version) for name, version in start["versions"].items()}
    return {
        "devices": counted or "unknown",
        "processes": str(start.get("processes", "unknown")),
        "platform": str(start.get("platform") or "unknown"),
        "revision": str(start.get("git_revision") or "unknown"),
        **versions,
    }


def moment(time: Any) -> str:
    """Returns an ISO time in UTC, as `provenance.now` writes it, to the minute and for people."""
    try:
        return f"{datetime.datetime.fromisoformat(str(time)).astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return "unknown"


def machines(runs: Sequence[Run]) -> list[Machine]:
    """Returns a Machine for each combination of facts, the one of most runs first."""
    found: dict[tuple[tuple[str, str], ...], list[tuple[str, str]]] = {}
    for run in runs:
        for start in run.starts:
            found.setdefault(tuple(describe_start(start).items()), []).append((run.name, moment(start.get("time"))))
    made = [
        Machine(dict(facts), tuple(dict.fromkeys(name for name, _ in starts)), min(times), max(times))
        for facts, starts in found.items()
        for times in [[time for _, time in starts]]
    ]
    return sorted(made, key=lambda machine: -len(machine.runs))


def make_sections(collection: Collection, costs_of: Callable[[Point], Cost | None]) -> list[Section]:
    """Returns a section for each data set, in the order in which they come. costs_of: a point's."""
    by_dataset: dict[str, list[Point]] = {}
    for point in collection.points:
        by_dataset.setdefault(_dataset(point, collection), []).append(point)
    return [
        Section(number, dataset, tuple(points), tuple(map(costs_of, points)))
        for number, (dataset, points) in enumerate(by_dataset.items(), 1)
    ]


def _dataset(point: Point, collection: Collection) -> str:
    """Returns a point's data set; where nothing says which, that of its study's other points if they agree."""
    if point.dataset or point.study is None:
        return point.dataset or UNKNOWN
    others = {other.dataset for other in collection.points if other.study is point.study} - {""}
    return others.pop() if len(others) == 1 else UNKNOWN
