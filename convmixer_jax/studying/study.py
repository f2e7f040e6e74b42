"""What a study is: a recipe, the fields of it that vary, and what was published for the points that they make.

    Study(
        name="kernel_size",
        title="Kernel size of a ConvMixer-256/8 on CIFAR-10",
        source="report A, its table of kernels",
        recipe="configs/report_a.py",
        axes={"model.kernel_size": (3, 5, 7, 9)},
        seeds=(0, 1, 2),
        published={"kernel_size=3": 0.8565},
        scales={"small": Scale({"epochs": 5, "model.dim": 32})},
    )

A file of `studies/` has a `get_study()` that returns one. Fields are dotted, as on the command line of main.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

FULL = "full"  # the scale that every study has: its own settings
SEARCHES = ("random", "tpe")
SAMPLERS = ("grid", *SEARCHES)
PRUNERS = ("none", "asha", "hyperband")
NEAR = 1e-8  # of a step: 0.1 + 2 * 0.1 is not 0.3
DIGITS = 3  # significant ones of a sampled number, in the config as in the name of its point


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; whole ones where both are. step: between two of them; 0 = any number.

    log: sampled evenly over their logarithms.
    """

    low: float
    high: float
    log: bool = False
    step: float = 0

    @property
    def whole(self) -> bool:
        """Whether it has whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        """Whether value is a number of the range."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and abs(steps - round(steps)) < NEAR


# The values of a field: a tuple of all of them, or for searches a range of numbers.
Axis = tuple[Any, ...] | Range


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a study is made smaller. settings: fields of all trials, after the study's; the rest: 0, () = the study's."""

    settings: Mapping[str, Any]
    seeds: tuple[int, ...] = ()
    trials: int = 0
    most_params: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """name: of its folder. source: the document, and its table, that the published column is from.

    recipe: path of a recipe, from the study's folder or one above it. settings: fields of all trials.
    axes: the values of each field that varies; every combination is a point of a grid. points: further ones by name,
    for what is no grid, whose fields count more than settings; a search tries them first, and they then give every
    field of the axes.
    sampler: a row of SAMPLERS; random and tpe (the tree-structured Parzen estimator) try `trials` points.
    seeds: of the runs that each point has; a search looks for points with the first one.
    published: top1 from 0 to 1 by the name of the point. pruner: a row of PRUNERS, which stops hopeless runs.
    most_params: trainable parameters that a point may have; 0 = any number.
    """

    name: str
    title: str
    source: str
    recipe: str
    seeds: tuple[int, ...]
    axes: Mapping[str, Axis] = dataclasses.field(default_factory=dict)
    points: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sampler: str = "grid"
    trials: int = 0
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pruner: str = "none"
    most_params: int = 0
    scales: Mapping[str, Scale] = dataclasses.field(default_factory=dict)

    @property
    def searches(self) -> bool:
        """Whether its points are found as it goes."""
        return self.sampler in SEARCHES

    @property
    def fields(self) -> list[str]:
        """The dotted fields that vary, in order."""
        return list(dict.fromkeys([*self.axes, *itertools.chain.from_iterable(self.points.values())]))


@dataclasses.dataclass(frozen=True)
class Point:
    """A place of the study. parameters: value by dotted field, of those that it sets. published: top1, or None."""

    name: str
    parameters: Mapping[str, Any]
    published: float | None = None


def labels(fields: Iterable[str]) -> dict[str, str]:
    """Returns a short name for each dotted field: its last part, the part before it for "name"; all of it if needed."""
    fields = list(fields)
    short = {field: field.removesuffix(".name").split(".")[-1] for field in fields}
    return {field: short[field] if list(short.values()).count(short[field]) == 1 else field for field in fields}


def value_text(value: Any) -> str:
    """Returns a value as a part of the name of a folder: 0.05, all, crop+flip, none."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "+".join(map(value_text, value)) or "none"
    return re.sub(r"[^\w.+-]", "_", str(value)) or "none"


def point_name(parameters: Mapping[str, Any]) -> str:
    """Returns the name of a point: "kernel_size=3,dim=64"."""
    label = labels(parameters)
    return ",".join(f"{label[field]}={value_text(value)}" for field, value in parameters.items())


def make_point(study: Study, parameters: Mapping[str, Any], name: str = "") -> Point:
    """Returns a point with its published score. name: "" for the one that its parameters make."""
    name = name or point_name(parameters)
    return Point(name, dict(parameters), study.published.get(name))


def known_points(study: Study) -> list[Point]:
    """Returns the points that are known before a run is made: all of a grid, those that a search tries first."""
    points = []
    if study.axes and not study.searches:
        values = [axis for axis in study.axes.values() if isinstance(axis, tuple)]
        points = [make_point(study, dict(zip(study.axes, each, strict=True))) for each in itertools.product(*values)]
    # The name of a search's point says where it lies, of whatever origin it is.
    return points + [
        make_point(study, parameters, "" if study.searches else name) for name, parameters in study.points.items()
    ]


def encode(value: Any) -> Any:
    """Returns a value as Optuna keeps it: numbers, text, True and False as they are, tuples as JSON."""
    return json.dumps(value) if isinstance(value, tuple | list) else value


def decoded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters that were kept as JSON as they were before: lists were tuples."""
    return {field: tuple(value) if isinstance(value, list) else value for field, value in parameters.items()}


def rounded(value: Any) -> Any:
    """Returns a sampled number as it is used: to DIGITS significant ones."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
