"""Folders become points: studies with their seeds, runs of no study, and each data set by itself."""

import json

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.reporting.collection import collect, not_done, signatures, summary
from convmixer_jax.reporting.sections import UNKNOWN, describe_start, machines, make_sections, moment
from tests.reporting.made_up import START, point, write_record, write_run, write_study, write_study_file


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "kernels")


def sections_of(*places):
    return make_sections(collect(places), lambda point: None)


def test_the_numbers_of_a_study(study):
    points = collect([study]).points
    assert [point.name for point in points] == [f"kernel_size={k}" for k in (3, 5, 7, 9)]
    three, five, seven, nine = points
    assert three.top1 == (pytest.approx(0.82), pytest.approx(0.0282842712))
    assert three.difference == pytest.approx(-3.0)
    assert three.mean("step_seconds") == pytest.approx(25.0)
    assert three.states == "2 done"
    # Of one seed there is no spread, and what is not done does not count.
    assert five.top1 == (0.9, None)
    assert (five.published, five.difference) == (None, None)
    assert five.states == "1 done, 1 failed"
    assert seven.top1 == (0.88, None)
    assert seven.difference == pytest.approx(2.0)
    assert seven.states == "1 done, 1 unfinished"
    assert (nine.top1, nine.difference, nine.states) == ((None, None), None, "1 pruned, 1 missing")
    assert summary(collect([study]).runs) == "8 runs: 4 done, 1 unfinished, 1 failed, 1 pruned, 1 missing"


def test_runs_without_a_result_are_told_those_not_begun_in_one_line(study):
    *told, missing = not_done(collect([study]).points)
    assert [state for _, state, _ in told] == ["failed", "unfinished", "pruned"]
    assert told[0] == ("kernels/kernel_size=5/seed-1", "failed", "the loss was not finite")
    assert missing == ("kernels/kernel_size=9/seed-1", "missing", "not begun")
    write_study_file(study, [point(11, None, seeds=tuple(range(10)))])
    assert not_done(collect([study]).points)[-1][0].endswith("/seed-6, kernels/kernel_size=11/seed-7 and 2 more")


def test_runs_of_no_study_are_points_of_their_own(tmp_path, study):
    write_run(tmp_path / "other" / "wide")
    (tmp_path / "other" / "empty").mkdir()
    names = [point.name for point in collect([tmp_path]).points]
    assert names[4:] == ["other/wide"]
    # However often a place is named.
    assert len(collect([tmp_path, study, tmp_path / "other"]).points) == 5
    assert [run.name for run in collect([tmp_path / "other" / "wide"]).runs] == ["wide"]


def test_a_run_that_its_study_does_not_ask_for_is_shown_with_it(study):
    write_run(study / "kernel_size=11/seed-0", **{"model.kernel_size": 11})
    last = collect([study]).points[-1]
    assert last.name.endswith("kernel_size=11/seed-0 (not in study.json)")
    assert (last.parameters, last.published) == ({"model.kernel_size": 11}, None)
    assert last.study is not None


@pytest.mark.parametrize("made, told", [
    (lambda folder: None, "is no folder"),
    (lambda folder: folder.mkdir(), "holds no run and no study"),
    (lambda folder: (folder.mkdir(), (folder / "study.json").write_text("{}")), "is not as `sweep` wrote it"),
    (lambda folder: (folder.mkdir(), (folder / "study.json").write_text('{"points": [3]}')), "is not as `sweep`"),
    (lambda folder: (folder.mkdir(), (folder / "study.json").write_text("{")), "cannot be read"),
])  # fmt: skip
def test_a_place_without_a_run_is_refused(tmp_path, study, made, told):
    made(tmp_path / "odd")
    with pytest.raises(UserError, match=told):
        collect([study, tmp_path / "odd"])


def test_a_study_that_cannot_be_read_leaves_the_others(tmp_path, study):
    before = collect([tmp_path])
    write_run(tmp_path / "odd/kernel_size=3/seed-0")
    (tmp_path / "odd/study.json").write_text('{"points": [')
    found = collect([tmp_path])
    assert [point.name for point in found.points] == [
        *(point.name for point in before.points),
        "odd/kernel_size=3/seed-0",
    ]
    assert (found.points[-1].study, found.studies) == (None, before.studies)
    (told,) = set(found.warnings) - set(before.warnings)
    assert told.startswith(f"{tmp_path / 'odd/study.json'} cannot be read")
    assert [run.name for run in collect([tmp_path / "odd"]).runs] == ["seed-0"]


def test_each_data_set_has_a_section(tmp_path):
    write_run(tmp_path / "a", dataset="digits")
    write_run(tmp_path / "b", dataset="cifar10")
    write_run(tmp_path / "c", dataset="digits")
    assert [(section.dataset, [point.name for point in section.points]) for section in sections_of(tmp_path)] == [
        ("digits", ["a", "c"]),
        ("cifar10", ["b"]),
    ]


def test_a_point_nobody_has_begun_is_of_the_studys_data_set(tmp_path):
    write_study_file(tmp_path, [point(3, None), point(5, None)], settings={})
    assert [section.dataset for section in sections_of(tmp_path)] == [UNKNOWN]
    write_run(tmp_path / "kernel_size=3/seed-0", dataset="cifar100")
    assert [section.dataset for section in sections_of(tmp_path)] == ["cifar100"]
    write_study_file(tmp_path, [point(5, None)], settings={"dataset": "cifar10"})
    assert "cifar10" in [section.dataset for section in sections_of(tmp_path)]


def test_what_varies_between_runs_has_columns_but_not_how_they_report(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=1, report_every_steps=7, **{"model.dim": 16, "schedule.learning_rate": 0.1})
    [section] = sections_of(tmp_path)
    assert section.fields == ["model.dim", "schedule.learning_rate", "seed"]
    a, b = section.points
    assert [section.value(point, "model.dim") for point in (a, b)] == [8, 16]
    differences = {difference.field: difference.values for difference in section.differences}
    assert differences == {
        "model.dim": ((8,), (16,)),
        "schedule.learning_rate": ((0.05,), (0.1,)),
        "report_every_steps": ((50,), (7,)),
        "seed": ((0,), (1,)),
    }


def test_the_seeds_of_a_point_are_told_together(study):
    [section] = sections_of(study)
    assert section.fields == ["model.kernel_size"]
    differences = {difference.field: difference.values for difference in section.differences}
    assert differences == {"model.kernel_size": ((3,), (5,), (7,), (9,)), "seed": ((0, 1), (0, 1), (0, 1), (1,))}


def test_the_best_run_is_chosen_by_the_validation_split_where_all_have_one(tmp_path):
    write_run(tmp_path / "a", 0.90)
    write_run(tmp_path / "b", 0.88)
    [section] = sections_of(tmp_path)
    assert [part if isinstance(part, str) else part.name for part in section.best] == ["a", "test top-1"]
    for name, value in (("a", 0.91), ("b", 0.93)):
        path = tmp_path / name / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"val_top1": value}))
    [section] = sections_of(tmp_path)
    assert [part if isinstance(part, str) else part.name for part in section.best] == ["b", "validation top-1"]
    write_record(tmp_path / "c")
    assert sections_of(tmp_path / "c")[0].best is None


def test_setups_are_gathered_over_all_starts(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    moved = START | {"time": "2026-11-21T09:00:00+00:00", "devices": ["cpu"], "earlier_starts": [START]}
    write_record(tmp_path / "b", moved)
    first, second = machines(collect([tmp_path]).runs)
    assert (first.runs, first.facts["devices"]) == (("a", "b"), "2 × TPU v5e")
    assert (second.runs, second.facts["devices"]) == (("b",), "1 × cpu")
    assert (second.first, second.last) == ("2026-11-21 09:00 UTC", "2026-11-21 09:00 UTC")
    assert describe_start({"versions": {"jax": "1"}}) == {
        "devices": "unknown", "processes": "unknown", "platform": "unknown", "revision": "unknown", "jax": "1",
    }  # fmt: skip
    assert moment("yesterday") == moment(None) == "unknown"


def test_the_signatures_change_with_a_run_and_with_the_study(study):
    seen = {signatures([study])}
    write_run(study / "kernel_size=9/seed-1")
    seen.add(signatures([study]))
    write_study_file(study, [point(3, 0.85)])
    seen.add(signatures([study]))
    assert len(seen) == 3
