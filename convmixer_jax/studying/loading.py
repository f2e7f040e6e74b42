"""Reading a study's file: every mistake in it is told in one line before anything starts.

study = load_study(Path("studies/kernel_size.py"))
recipe = find_recipe(study, Path("studies/kernel_size.py"))
"""

import math
import re
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convmixer_jax.command_line import recipe_line
from convmixer_jax.config import flatten, get_base
from convmixer_jax.config_rules import check_value
from convmixer_jax.errors import UserError, lookup, suggest
from convmixer_jax.studying.study import FULL, PRUNERS, SAMPLERS, Range, Scale, Study, known_points

EXAMPLE = "studies/kernel_size.py"
# Longer names are refused by file systems; the folders of a point hold its seeds.
LONGEST_NAME = 200
WORDS, COUNTS = ("name", "title", "source", "recipe"), ("trials", "most_params")  # parts of a study by their kind


def load_study(file: Path) -> Study:
    """Returns the checked study of a file. Raises UserError, naming the file, for anything that it cannot be."""
    if not file.is_file():
        raise UserError(f"--study {file}: there is no such file; studies are Python files, e.g. {EXAMPLE}")
    try:
        study = runpy.run_path(str(file))["get_study"]()
    except KeyError as error:
        if error.args != ("get_study",):
            raise _broken(error, file) from error
        raise UserError(f"--study {file}: it has no get_study() that returns a Study ({EXAMPLE} has)") from error
    except (Exception, SystemExit) as error:  # a study is a program, which may raise anything
        raise _broken(error, file) from error
    if not isinstance(study, Study):
        raise UserError(f"--study {file}: get_study() returned {type(study).__name__}, not a Study ({EXAMPLE} does)")
    try:
        check_study(study, str(file))
    except (AttributeError, TypeError) as error:  # a part of another kind than Study's docstring says
        raise UserError(f"{file}: a part of the Study is not as it must be: {error} ({EXAMPLE} works)") from error
    return study


def _broken(error: BaseException, file: Path) -> UserError:
    line = recipe_line(error, file)
    place = f", line {line}" if line else ""
    return UserError(f"--study {file}{place}: {type(error).__name__}: {error} ({EXAMPLE} is a study that works)")


def find_recipe(study: Study, file: Path) -> Path:
    """Returns the path of the study's recipe. file: of the study. Raises UserError where there is none."""
    for folder in file.absolute().parents:
        if (folder / study.recipe).is_file():
            return folder / study.recipe
    raise UserError(f"{file}: recipe is {study.recipe!r}: there is no such file in the study's folder or one above it")


def check_study(study: Study, called: str) -> None:
    """Raises UserError, where `called` is what it calls the study, for the first thing that a study cannot have."""
    _check_kinds(study, WORDS, str, called)
    _check_kinds(study, COUNTS, int, called)
    if not re.fullmatch(r"\w[\w.-]*", study.name):
        raise UserError(f"{called}: name is {study.name!r}: letters, digits, _, . and - make a folder's name")
    lookup(dict.fromkeys(SAMPLERS), study.sampler, f"{called}: sampler")
    lookup(dict.fromkeys(PRUNERS), study.pruner, f"{called}: pruner")
    if FULL in study.scales:
        raise UserError(f"{called}: scales has {FULL!r}, which is what the study itself is: give it another name")
    for part, settings in _settings(study, called):
        for field, value in settings.items():
            check_field(field, value, f"{called}: {part}")
            if field in study.axes and part.startswith(("settings", "scales")):
                raise UserError(f"{called}: {part} has {field}, which the study varies: leave one of the two out")
    for seeds in (study.seeds, *(scale.seeds for scale in study.scales.values() if scale.seeds)):
        check_seeds(seeds, f"{called}: seeds")
    _check_axes(study, called)
    _check_points(study, called)


def _check_kinds(part: Study | Scale, names: tuple[str, ...], kind: type, called: str) -> None:
    for name in names:
        value = getattr(part, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{called}: {name} is {value!r}: it must be of the kind {kind.__name__}")


def _settings(study: Study, called: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields (where it stands, fields with their values) of everything that sets fields."""
    yield "settings", study.settings
    for name, scale in study.scales.items():
        if not isinstance(scale, Scale):
            raise UserError(f"{called}: scales: {name!r} is a {type(scale).__name__}: write Scale({{field: value}})")
        _check_kinds(scale, COUNTS, int, f"{called}: scales: {name}")
        yield f"scales: {name}", scale.settings
    for name, parameters in study.points.items():
        yield f"points: {name}", parameters
    for field, axis in study.axes.items():
        if isinstance(axis, Range):
            check_range(axis, f"{called}: axes: {field}")
        values = (axis.low, axis.high) if isinstance(axis, Range) else axis
        if not isinstance(values, tuple) or not values:
            raise UserError(f"{called}: axes: {field} is {axis!r}: write a tuple of values, or a Range")
        yield from (("axes", {field: value}) for value in values)


def check_range(axis: Range, called: str) -> None:
    """Raises UserError for numbers between which nothing can be sampled."""
    numbers = (axis.low, axis.high, axis.step)
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise UserError(f"{called} is {axis}: low, high and step must be numbers")
    if axis.low > axis.high:
        raise UserError(f"{called} is {axis}: low must be at most high")
    if axis.log and (axis.low <= 0 or axis.step):
        raise UserError(f"{called} is {axis}: with log low must be above 0, and there is no step")
    if axis.step < 0 or (axis.whole and axis.step % 1):
        raise UserError(f"{called} is {axis}: step must be above 0, of whole numbers a whole one, or 0 for none")


def check_field(field: str, value: Any, part: str) -> None:
    """Raises UserError, naming `part` of the study, for no field of the config, or no value that it accepts."""
    base = dict(flatten(get_base()))
    if field == "seed":
        raise UserError(f"{part}: seed is no field that a study sets: it has seeds of its own")
    if field not in base:
        raise UserError(f"{part}: there is no field {field!r}{suggest(field, base)}; main --help lists all of them")
    kind = type(base[field])
    if not isinstance(value, (int, float) if kind is float else kind):
        raise UserError(f"{part}: {field} is {value!r}: it must be of the kind {kind.__name__}")
    check_value(field, value, f"{part}: {field}")


def check_seeds(seeds: tuple[int, ...], called: str) -> None:
    """Raises UserError unless these are one or more different whole numbers that config.seed accepts."""
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(seed, int) for seed in seeds):
        raise UserError(f"{called} is {seeds!r}: one or more different whole numbers are needed")
    for seed in seeds:
        check_value("seed", seed, called)


def _check_axes(study: Study, called: str) -> None:
    if not (study.axes or study.points):
        raise UserError(f"{called}: it has neither axes nor points: nothing varies")
    if not study.searches:
        ranges = [field for field, axis in study.axes.items() if isinstance(axis, Range)]
        if ranges:
            raise UserError(f"{called}: axes: {ranges[0]} is a Range: a grid needs a tuple, sampler='tpe' takes both")
        return
    if study.trials < 1:
        raise UserError(f"{called}: trials is {study.trials}: say how many points {study.sampler} tries")
    for name, parameters in study.points.items():
        for field, axis in study.axes.items():
            if field not in parameters or parameters[field] not in axis:
                value = parameters.get(field, "missing")
                raise UserError(
                    f"{called}: points: {name}: {field} is {value!r}: a search needs one of its axis {axis}"
                )
        extra = parameters.keys() - study.axes.keys()
        if extra:
            raise UserError(f"{called}: points: {name}: {min(extra)} is no axis: a search varies its axes only")


def _check_points(study: Study, called: str) -> None:
    names = [point.name for point in known_points(study)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{called}: two points are called {name!r}: give one of them as a point with a name")
        if len(name) > LONGEST_NAME or not re.fullmatch(r"\w[\w.+,= -]*", name):
            raise UserError(f"{called}: {name!r} is no name of a folder: letters, digits and _.+,=- make one")
    for name, top1 in study.published.items():
        if name not in names:
            raise UserError(f"{called}: published has {name!r}{suggest(name, names)}: it is no point of the study")
        if not 0 <= top1 <= 1:
            raise UserError(f"{called}: published: {name} is {top1}: a score is a number from 0 to 1")
