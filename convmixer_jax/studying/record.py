"""study.json: what a study is and which points it has, for whoever reads its folder; and whether two are the same.

write_json(folder / STUDY_FILE, make_record(plan, points, "5f0c..."))
check_same(plan, read_json(folder / STUDY_FILE), "the study in runs/studies/norms")
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from convmixer_jax.config_record import differences, read_record
from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import read_json
from convmixer_jax.studying.folder import STUDY_FILE, workdir
from convmixer_jax.studying.plan import Plan
from convmixer_jax.studying.study import Point, Range, encode

METRIC = "test_top1"  # what a report compares; nothing is chosen by it


def read_study(folder: Path) -> dict[str, Any]:
    """Returns what study.json holds; nothing where there is none. Raises UserError where it cannot be read."""
    try:
        return read_json(folder / STUDY_FILE) or {}
    except UserError as error:
        told = str(error).partition(": it is not as this program wrote it")[0]
        raise UserError(
            f"{told}: remove it, a sweep with the same --study writes it anew and keeps the runs"
        ) from error


def identity(plan: Plan) -> dict[str, Any]:
    """Returns what may not change while runs are added: seeds, and points of a grid, may."""
    same = {"recipe": plan.study.recipe, "scale": plan.scale, "settings": plan.record_settings()}
    if plan.study.searches:  # Optuna, too, needs one space for all trials
        same["space"] = {
            field: vars(axis) if isinstance(axis, Range) else [encode(value) for value in axis]
            for field, axis in plan.study.axes.items()
        }
    return json.loads(json.dumps(same))


def check_same(plan: Plan, known: Mapping[str, Any], called: str) -> None:
    """Raises UserError where the study called so was made with something else. known: nothing, or its `identity`."""
    for name, value in identity(plan).items() if known else ():
        if known.get(name) != value:
            raise UserError(
                f"{called} was made with {name} {json.dumps(known.get(name))}, not {json.dumps(value)}: take what it "
                "was made with, or name another folder with --dir"
            )


def check_runs(plan: Plan, folder: Path, points: Iterable[Point]) -> None:
    """Raises UserError for a run in the study's folder of another config than it would have now."""
    for point in points:
        for seed in plan.seeds:
            run = workdir(folder, point.name, seed)
            record = read_record(run)
            changed = differences(record["config"], plan.config(point)) if record else []
            others = [change for change in changed if not change.startswith("config.seed:")]
            if others:
                raise UserError(
                    f"{run} was made with another config ({others[0]}): has {plan.recipe} changed? Take it as it "
                    "was, or name another folder with --dir"
                )


def make_record(plan: Plan, points: Iterable[Point], number: str) -> dict[str, Any]:
    """Returns the object of study.json. number: by which its folder and its storage know each other."""
    study = plan.study
    return {
        "name": study.name,
        "title": study.title,
        "source": study.source,
        **identity(plan),
        "metric": METRIC,
        "axes": study.fields,
        "points": [_point_record(plan, point) for point in points],
        "id": number,
    }


def _point_record(plan: Plan, point: Point) -> dict[str, Any]:
    fields = plan.fields(point)
    return {
        "name": point.name,
        "parameters": {field: fields[field] for field in plan.study.fields},
        "published": point.published,
        "seeds": list(plan.seeds),
    }
