"""Every file of studies/: all of its points can be run, and it says where its numbers come from."""

import ast
import functools
import re
from pathlib import Path

import pytest

from convmixer_jax.config import flatten
from convmixer_jax.studying.loading import load_study
from convmixer_jax.studying.models import Models, RefusedError
from convmixer_jax.studying.plan import Plan, make_plan
from convmixer_jax.studying.study import FULL, Range, make_point
from tests.commands import ROOT

STUDIES = sorted((ROOT / "studies").glob("*.py"))
SCALES = [(path, scale) for path in STUDIES for scale in (FULL, *load_study(path).scales)]
# By study, the published numbers in percent, copied once more by hand from where they are published.
PUBLISHED = {
    "ablations": [93.61, 95.19, 95.80, 95.88, 95.00, 92.61],
    "architecture": [],
    "augmentation": [92.60],
    "cnn": [79, 88.98],
    "demo": [],
    "heads_blocks": [92.24, 92.32, 92.20, 91.83, 93.05],
    "hyperparameters": [92.24, 92.74],
    "kernel_size": [85.65, 86.98, 88.40, 88.94],
    "norms": [96.03],
    "optimizers": [92.60, 92.24],
    "patch_size": [89.97, 86.03, 80.96],
    "schedules": [88.5],
    "width_depth": [91.26],
}


def ids(value: object) -> str:
    return value.stem if isinstance(value, Path) else str(value)


def test_there_is_one_for_each_row():
    assert [path.stem for path in STUDIES] == sorted(PUBLISHED)


@functools.cache
def planned(path: Path, scale: str = FULL) -> tuple[Plan, Models]:
    plan = make_plan(path, scale)
    return plan, Models(plan)


@pytest.mark.parametrize("path, scale", SCALES, ids=ids)
def test_every_point_can_be_run(path, scale):
    plan, models = planned(path, scale)
    models.check(plan.points)
    for point in plan.points:
        config = dict(flatten(plan.config(point)))
        # Points count more than settings.
        assert {field: config[field] for field in point.parameters} == dict(point.parameters)
        cost, (trained, judged) = models.cost(point), models.images(point)
        assert min(cost.params, cost.flops, trained, judged) > 0
        assert not plan.most_params or cost.params <= plan.most_params


@pytest.mark.parametrize("path", STUDIES, ids=ids)
def test_it_says_what_was_published(path):
    study = load_study(path)
    assert study.name == path.stem
    assert [100 * top1 for top1 in study.published.values()] == pytest.approx(PUBLISHED[path.stem])
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    entries = dict(re.findall(r"^(\w+): +(\S.*)$", doc, re.MULTILINE))
    assert {"Command", "Source", "Cost"} <= entries.keys()
    assert f"python -m convmixer_jax.sweep --study studies/{path.name}" in entries["Command"]
    for number in PUBLISHED[path.stem]:
        assert f"{number:.2f}" in doc or f"{number:g}" in doc


@pytest.mark.parametrize("path, scale", [pair for pair in SCALES if pair[1] != FULL], ids=ids)
def test_a_scale_is_the_same_comparison_with_less_of_everything(path, scale):
    full, less = planned(path)[0], planned(path, scale)[0]
    assert [point.name for point in less.points] == [point.name for point in full.points]
    assert len(less.seeds) <= len(full.seeds)
    assert less.trials <= full.trials

    def work(plan: Plan, models: Models) -> float:
        points = plan.points or [make_point(plan.study, corner(plan.study.axes))]
        return sum(models.cost(point).flops * models.images(point)[0] for point in points)

    assert work(*planned(path, scale)) < work(*planned(path)) / 100


def corner(axes):
    """The first value of each axis."""
    return {field: axis.low if isinstance(axis, Range) else axis[0] for field, axis in axes.items()}


def test_a_budget_leaves_something_and_takes_something_away():
    """The published ConvMixer-256/8 fits into the architecture's budget, one of twice the width does not."""
    plan, models = planned(ROOT / "studies/architecture.py")
    shape = {"model.dim": 256, "model.depth": 8, "model.patch_size": 2, "model.kernel_size": 5}
    models.require(make_point(plan.study, shape))
    with pytest.raises(RefusedError, match=r"parameters are more than 600,000") as refused:
        models.require(make_point(plan.study, shape | {"model.dim": 384}))
    # 3p²h + 3h + d(k²h + h² + 6h) + 10h + 10 for h = 384
    assert refused.value.excess == pytest.approx((12 * 384 + 3 * 384 + 8 * (31 + 384) * 384 + 3850) / 600_000 - 1)
