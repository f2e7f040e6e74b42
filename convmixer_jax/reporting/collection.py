"""What lies below the folders that a report is made of: studies, their points, and runs of no study.

    collection = collect([Path("runs/kernel_size"), Path("runs/cifar10")])
    collection.points, collection.studies, collection.warnings

A point is what a row of the table is about: the runs of a study that differ in their seed alone, or one run of none.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from convmixer_jax.errors import UserError
from convmixer_jax.reporting.summaries import mean_and_spread, number
from convmixer_jax.reporting.workdirs import DONE, MISSING, STATES, Run, is_run, missing_run, read_run, signature
from convmixer_jax.runs.files import read_json
from convmixer_jax.studying.folder import STUDY_FILE, workdir

NOT_ASKED_FOR = "not in study.json"
NAMED_MISSING = 8


@dataclasses.dataclass(frozen=True)
class Study:
    """study.json, as far as a report needs it. axes: dotted fields that vary, in order. settings: of all its runs."""

    folder: Path
    name: str
    title: str
    source: str
    recipe: str
    scale: str
    axes: tuple[str, ...]
    settings: Mapping[str, Any]
    points: tuple[Mapping[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Point:
    """A row. study: None for a run of no study. parameters: by dotted field. published: top1 from 0 to 1, or None."""

    name: str
    study: Study | None
    parameters: Mapping[str, Any]
    published: float | None
    runs: tuple[Run, ...]

    @property
    def done(self) -> list[Run]:
        """The runs that have a result."""
        return [run for run in self.runs if run.state == DONE]

    @property
    def top1(self) -> tuple[float | None, float | None]:
        """Mean and sample standard deviation of the test top-1 at the last step, from 0 to 1."""
        return mean_and_spread([run.top1 for run in self.done if run.top1 is not None])

    @property
    def difference(self) -> float | None:
        """From the published score to the mean, in points of percent."""
        mean = self.top1[0]
        return None if mean is None or self.published is None else 100 * (mean - self.published)

    def mean(self, name: str) -> float | None:
        """Returns the mean of a property of Run over the runs that are done and have it."""
        values = [getattr(run, name) for run in self.done]
        return mean_and_spread([value for value in values if value is not None])[0]

    @property
    def states(self) -> str:
        """The states of the runs, see `told_states`."""
        return told_states(self.runs)

    @property
    def dataset(self) -> str:
        """What config.dataset names; "" where neither a run nor the study says."""
        known = [str(run.config["dataset"]) for run in self.runs if "dataset" in run.config]
        settings = self.study.settings if self.study else {}
        return next(iter(known), str(self.parameters.get("dataset", settings.get("dataset", ""))))


@dataclasses.dataclass(frozen=True)
class Collection:
    """Everything that a report is made of."""

    points: tuple[Point, ...]
    studies: tuple[Study, ...]
    warnings: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """All runs, those that are missing among them."""
        return [run for point in self.points for run in point.runs]


def found_below(place: Path) -> Iterator[tuple[Path, bool]]:
    """Yields (folder, whether it is a study's) below a place, itself among them; what is in a run is not looked at."""
    for folder, below, files in os.walk(place):
        path = Path(folder)
        if STUDY_FILE in files:
            yield path, True
        elif is_run(path):
            yield path, False
            below.clear()
        below[:] = sorted(name for name in below if not name.startswith("."))


def look(places: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the folders of studies and those of runs, each once. Raises UserError for a place without any."""
    studies: dict[Path, Path] = {}
    runs: dict[Path, Path] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place} is no folder: name folders of runs, or of studies")
        found = list(found_below(place))
        if not found:
            raise UserError(f"{place} holds no run and no study: name folders of runs, or train first")
        for folder, is_study in found:
            (studies if is_study else runs).setdefault(folder.resolve(), folder)
    return list(studies.values()), list(runs.values())


def signatures(places: Sequence[Path]) -> tuple[Any, ...]:
    """Returns what changes when anything below the places does. Raises UserError for a place without any run."""
    studies, runs = look(places)
    files = [(folder / STUDY_FILE).stat() for folder in studies]
    return (
        *((str(folder), told.st_size, told.st_mtime_ns) for folder, told in zip(studies, files, strict=True)),
        *((str(folder), signature(folder)) for folder in runs),
    )


def read_study(folder: Path) -> Study:
    """Returns what study.json says. Raises UserError where it is not one."""
    path = folder / STUDY_FILE
    record = read_json(path) or {}
    points = record.get("points")
    axes, settings = record.get("axes", []), record.get("settings", {})
    right = isinstance(points, list) and all(isinstance(point, dict) and "name" in point for point in points)
    if not (right and isinstance(axes, list) and isinstance(settings, dict)):
        raise UserError(f"{path} is not as `sweep` wrote it: run the sweep again, it keeps what is done")
    words = {name: str(record.get(name) or "") for name in ("name", "title", "source", "recipe", "scale")}
    words["name"] = words["name"] or folder.name
    return Study(folder, **words, axes=tuple(map(str, axes)), settings=settings, points=tuple(points or ()))


def collect(places: Sequence[Path]) -> Collection:
    """Returns everything below the places. Raises UserError for one without any run or study that can be read.

    What else cannot be read is in the warnings; runs of such a study are shown as runs of none.
    """
    folders, runs = look(places)
    studies, warnings = [], []
    for folder in folders:
        try:
            studies.append(read_study(folder))
        except UserError as error:
            if folder in places and not any(run.is_relative_to(folder) for run in runs):
                raise
            warnings.append(str(error))
    names = _names([*(study.folder for study in studies), *runs])
    points: list[Point] = []
    taken: set[Path] = set()
    for study in studies:
        for asked in study.points:
            point = _read_point(study, asked, names)
            points.append(point)
            taken.update(run.folder.resolve() for run in point.runs)
    for folder in runs:
        if folder.resolve() not in taken:
            points.append(_lonely_point(read_run(folder, names[folder]), studies))
    warnings += [warning for point in points for run in point.runs for warning in run.warnings]
    return Collection(tuple(points), tuple(studies), tuple(warnings))


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """Returns a name for each folder: its path below what all have in common."""
    resolved = {folder: folder.resolve() for folder in folders}
    parents = [path.parent for path in resolved.values()]
    common = Path(os.path.commonpath(parents))
    return {folder: path.relative_to(common).as_posix() for folder, path in resolved.items()}


def _read_point(study: Study, asked: Mapping[str, Any], names: Mapping[Path, str]) -> Point:
    """Returns a point of a study with the runs that it asks for, whether they are there or not."""
    name, parameters, seeds = str(asked["name"]), asked.get("parameters"), asked.get("seeds")
    runs = []
    for seed in seeds if isinstance(seeds, list) else []:
        folder = workdir(study.folder, name, seed)
        called = workdir(Path(names[study.folder]), name, seed).as_posix()
        runs.append(read_run(folder, called) if is_run(folder) else missing_run(folder, called))
    return Point(
        name=name,
        study=study,
        parameters=parameters if isinstance(parameters, dict) else {},
        published=number(asked.get("published")),
        runs=tuple(runs),
    )


def _lonely_point(run: Run, studies: Sequence[Study]) -> Point:
    """Returns the point of a run that no study asks for. One in a study's folder is shown with that study."""
    inside = [study for study in studies if run.folder.resolve().is_relative_to(study.folder.resolve())]
    study = inside[-1] if inside else None
    name = f"{run.name} ({NOT_ASKED_FOR})" if study else run.name
    parameters = {axis: run.config[axis] for axis in (study.axes if study else ()) if axis in run.config}
    return Point(name, study, parameters, None, (run,))


def told_states(runs: Sequence[Run]) -> str:
    """Returns all states with their number: "2 done, 1 failed"."""
    counts = {state: sum(run.state == state for run in runs) for state in STATES}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def summary(runs: Sequence[Run]) -> str:
    """Returns how many runs are in which state: "12 runs: 10 done, 1 unfinished, 1 failed"."""
    return f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}: {told_states(runs)}"


def not_done(points: Sequence[Point]) -> list[tuple[str, str, str]]:
    """Returns (name, state, why) of each run without a result; of those that nobody has begun all in one at the end."""
    runs = [run for point in points for run in point.runs if run.state != DONE]
    missing = [run.name for run in runs if run.state == MISSING]
    told = [(run.name, run.state, run.why) for run in runs if run.state != MISSING]
    if missing:
        more = f" and {len(missing) - NAMED_MISSING} more" if len(missing) > NAMED_MISSING else ""
        told.append((", ".join(missing[:NAMED_MISSING]) + more, MISSING, "not begun"))
    return told
