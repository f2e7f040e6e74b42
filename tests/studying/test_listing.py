"""What --dry-run lists: parameters, arithmetic, times and what is done."""

import json

import pytest

from convmixer_jax import sweep
from convmixer_jax.config import to_plain
from convmixer_jax.runs.files import write_json
from convmixer_jax.studying import listing
from convmixer_jax.studying.folder import workdir
from convmixer_jax.studying.listing import list_runs, work_of
from convmixer_jax.studying.models import Models
from convmixer_jax.studying.plan import make_plan
from convmixer_jax.studying.record import make_record
from convmixer_jax.studying.study import make_point
from tests.reporting.made_up import write_record, write_result
from tests.runs.test_ledger import line, written
from tests.studying.conftest import GRID, search

# 1,437 images in batches of 64, 20 epochs; evaluated on 360 every 5.
TRAINED, JUDGED = 20 * 22 * 64, 4 * 360


@pytest.fixture
def listed(study_file, tmp_path, monkeypatch, capsys):
    """Returns a function of a study's arguments to the lines; an update is measured to take 0.5 s, a start 7 s."""
    monkeypatch.setattr(listing, "measured", lambda plan, models, point: (0.5, 7.0))

    def list_them(arguments: str, *flags: str) -> list[str]:
        assert sweep.main(["--study", str(study_file(arguments)), "--dir=study", "--dry-run", *flags]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return list_them


def finished_run(folder, name: str, seed: int, busy: float, rest: float, top1: float = 0.5) -> None:
    run = workdir(folder, name, seed)
    run.mkdir(parents=True)
    end = 1000 + rest + busy
    written(run, [line("start", 1000), line("ready", 1000 + rest, 0, start_up=rest), line("end", end, 9, step=busy)])
    (run / "result.json").write_text(json.dumps({"top1": top1}))


def test_points_with_what_they_cost(listed):
    lines = listed(GRID)
    assert lines[0].split() == ["point", "parameters", "MFLOP", "a", "run", "done"]
    assert [row.split()[:3] for row in lines[1:3]] == [
        ["kernel_size=3", "21,130", "2.4"],
        ["kernel_size=5", "25,226", "2.9"],
    ]
    assert [row.split()[4:] for row in lines[1:3]] == [["-", "-"]] * 2
    assert "times are from updates of kernel_size=5 measured here, scaled by arithmetic" in lines[3]
    assert lines[4].endswith("left, one run after the other, in study")


def test_times_from_a_measurement(listed, study_file):
    """0.5 s for an update of 64: a run has 440, and evaluates images at a third of the cost of training on them."""
    seconds = 0.5 * (TRAINED + JUDGED / 3) / 64 + 7
    assert listed("axes={'model.kernel_size': (3,)}")[1].split()[3] == listing.duration(seconds)
    assert listed("axes={'model.kernel_size': (3,)}")[3].startswith(listing.duration(2 * seconds))


def test_times_from_finished_runs(listed, tmp_path, study_file):
    finished_run(tmp_path / "study", "kernel_size=3", 0, busy=100, rest=20, top1=0.75)
    lines = listed(GRID)
    models = Models(plan := make_plan(study_file(GRID)))
    ratio = work_of(models, plan.points[1]) / work_of(models, plan.points[0])
    assert lines[1].split()[3:] == ["0:02:00", "0.7500", "-"]
    assert lines[2].split()[3:] == [listing.duration(100 * ratio + 20), "-", "-"]
    assert "times are those of 1 finished runs of this study" in lines[3]
    assert lines[4].startswith(listing.duration(120 + 2 * (100 * ratio + 20)))


def test_what_is_done_begun_failed_and_pruned(listed, tmp_path, study_file):
    finished_run(tmp_path / "study", "kernel_size=3", 0, busy=100, rest=20)
    for seed, state in ((1, "failed"), (2, "pruned")):
        run = workdir(tmp_path / "study", "kernel_size=3", seed)
        run.mkdir()
        (run / "trial.json").write_text(json.dumps({"state": state}))
    begun = workdir(tmp_path / "study", "kernel_size=3", 3)
    begun.mkdir()
    arguments = "axes={'model.kernel_size': (3,)}, seeds=(0, 1, 2, 3, 4)"
    plan = make_plan(study_file(arguments))
    write_json(begun / "config.json", {"config": to_plain(plan.config(plan.points[0]))})
    lines = listed(arguments)
    assert lines[1].split()[4:] == ["0.5000", "failed", "pruned", "begun", "-"]
    # The failed one, the one that was begun and the last one are left.
    assert lines[3].startswith(listing.duration(3 * 120))


def test_the_work_of_a_run_by_hand(study_file):
    plan = make_plan(study_file("axes={'model.kernel_size': (3,)}"))
    models, (point,) = Models(plan), plan.points
    assert models.images(point) == (TRAINED, JUDGED)
    # A fifth held out: 287 images, evaluated four times, and the test split once; 17 updates of the rest.
    held_out = make_plan(plan.file, overrides=["--config.val_fraction=0.2"])
    assert Models(held_out).images(point) == (20 * 17 * 64, 4 * 287 + 360)
    # p²h + d (k²h + h²) for each of 64 positions, and the classifier; h = 64, d = 4
    flops = 2 * (64 * (64 + 4 * (9 * 64 + 64**2)) + 640)
    assert work_of(models, point) == flops * (3 * TRAINED + JUDGED)


def test_a_search_lists_what_it_knows(listed, tmp_path, study_file):
    assert listed(search()) == ["tiny: tpe will choose 3 points, none is known before"]
    first = "{'first': {'model.dim': 8, 'schedule.learning_rate': 0.05}}"
    lines = listed(search(points=first))
    assert lines[1].split()[0] == "dim=8,learning_rate=0.05"
    assert lines[3] == "and 2 points that tpe chooses, counted as the mean of those above"
    plan = make_plan(study_file(search(points=first)))
    further = make_point(plan.study, {"model.dim": 16, "schedule.learning_rate": 0.02})
    (tmp_path / "study").mkdir()
    write_json(tmp_path / "study/study.json", make_record(plan, [*plan.points, further], "1"))
    assert [row.split()[0] for row in listed(search(points=first))[1:3]] == [
        "dim=8,learning_rate=0.05",
        "dim=16,learning_rate=0.02",
    ]


def test_what_is_of_other_settings_is_not_listed_as_done(listed, tmp_path, study_file, capsys):
    plan = make_plan(study_file(GRID))
    (tmp_path / "study").mkdir()
    write_json(tmp_path / "study/study.json", make_record(plan, plan.points, "1"))
    assert sweep.main(["--study", str(plan.file), "--dir=study", "--dry-run", "--config.epochs=2"]) == 2
    assert 'study in study was made with settings {}, not {"epochs": 2}' in capsys.readouterr().err


def test_what_is_of_another_config_is_not_listed_as_done(listed, tmp_path, study_file, capsys):
    """The name of a point may stay while what it means does not."""
    run = workdir(tmp_path / "study", "mine", 0)
    write_record(run, dataset="digits")
    write_result(run, 0.9)
    file = study_file("points={'mine': {'model.kernel_size': 3}}")
    assert sweep.main(["--study", str(file), "--dir=study", "--dry-run"]) == 2
    assert "study/mine/seed-0 was made with another config" in capsys.readouterr().err


def test_nothing_is_made(listed, tmp_path):
    listed(GRID)
    assert not (tmp_path / "study").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_real_measurement(study_file):
    arguments = "axes={'model.kernel_size': (3,)}, settings={'model.dim': 4, 'model.depth': 1, 'devices': 1}"
    plan = make_plan(study_file(arguments))
    models = Models(plan)
    seconds, fixed = listing.measured(plan, models, plan.points[0])
    assert 0 < seconds < 1 < fixed
    *_, last = list_runs(plan, models, plan.file.parent, lambda point: (seconds, fixed))
    assert " left, one run after the other, in " in last
