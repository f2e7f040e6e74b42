"""The queue of a study's runs: who makes what, what waits again, what a search asks for."""

import contextlib
import gc
import json
import sqlite3
from pathlib import Path

import pytest
from optuna.trial import TrialState

from convmixer_jax.config import to_plain
from convmixer_jax.errors import RunAgainError, UserError
from convmixer_jax.studying import samplers, study
from convmixer_jax.studying.folder import workdir
from convmixer_jax.studying.models import Models
from convmixer_jax.studying.queue import Counts, Queue
from convmixer_jax.studying.samplers import first_rung
from convmixer_jax.studying.storage import default_url
from tests.studying.conftest import GRID, search

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
STORAGES = ["", "journal:study.log"]


def name(claim) -> tuple[str, int] | None:
    return claim and (claim.point.name, claim.seed)


def finish(queue, claim, folder, value: float) -> None:
    """Ends a claim as a worker does that has a result."""
    run = workdir(folder / "study", claim.point.name, claim.seed)
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps({"top1": value}))
    queue.finish(claim, COMPLETE, value)


@pytest.mark.parametrize("url", STORAGES)
def test_two_workers_share_a_grid_seed_by_seed(open_queue, url, tmp_path):
    (_, one), (_, other) = open_queue(GRID, url), open_queue(GRID, url)
    claims = [queue.claim() for queue in (one, other, one, other)]
    assert list(map(name, claims)) == [(f"kernel_size={k}", seed) for seed in (0, 1) for k in (3, 5)]
    assert (one.claim(), other.claim()) == (None, None)
    for queue, claim in zip((one, other, one), claims, strict=False):
        finish(queue, claim, tmp_path, 0.5)
    assert other.counts() == Counts(ended=3, running=1, left=0, refused=0)
    finish(other, claims[3], tmp_path, 0.5)
    # A further worker finds nothing to do, and nothing is queued a second time.
    _, late = open_queue(GRID, url)
    assert (late.claim(), late.counts()) == (None, Counts(4, 0, 0, 0))


@pytest.mark.parametrize("url", STORAGES)
def test_what_a_worker_puts_back_waits_for_the_others(open_queue, url):
    (_, one), (_, other) = open_queue(GRID, url), open_queue(GRID, url)
    one.put_back(one.claim())
    assert one.counts() == Counts(ended=0, running=0, left=4, refused=0)
    claims = [name(other.claim()) for _ in range(4)]
    assert sorted(claims) == [(f"kernel_size={k}", seed) for k in (3, 5) for seed in (0, 1)]
    assert claims[-1] == ("kernel_size=3", 0)
    assert one.claim() is None


def age_heartbeats(folder) -> None:
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")


def test_a_run_without_a_heartbeat_is_given_up_and_made_once_more(open_queue, tmp_path):
    (_, gone), (_, other) = open_queue(GRID), open_queue(GRID)
    lost, mine = gone.claim(), other.claim()
    age_heartbeats(tmp_path / "study")
    other.alive(mine)
    claims = [other.claim() for _ in range(4)]
    assert [name(claim) for claim in claims] == [("kernel_size=3", 1), ("kernel_size=5", 1), name(lost), None]
    finish(other, claims[2], tmp_path, 0.5)
    # The worker was only suspended: what it tells now changes nothing, and nothing is queued again.
    assert gone.report(lost, 1, 0.9) is False
    gone.put_back(lost)
    gone.finish(lost, FAIL)
    assert other.counts() == Counts(ended=1, running=3, left=0, refused=0)


def test_a_run_whose_lock_nobody_holds_is_given_up(open_queue):
    (_, gone), (_, other) = open_queue(GRID, "journal:study.log"), open_queue(GRID, "journal:study.log")
    lost, mine = gone.claim(), other.claim()
    del gone
    gc.collect()
    claims = [other.claim() for _ in range(4)]
    assert [name(claim) for claim in claims] == [("kernel_size=3", 1), ("kernel_size=5", 1), name(lost), None]
    assert name(mine) == ("kernel_size=5", 0)


def test_what_failed_is_tried_again_by_the_next_start_alone(open_queue, tmp_path):
    _, queue = open_queue(GRID, seeds=(0,))
    queue.finish(queue.claim(), FAIL)
    finish(queue, queue.claim(), tmp_path, 0.5)
    assert (queue.claim(), queue.counts()) == (None, Counts(2, 0, 0, 0))
    _, again = open_queue(GRID, seeds=(0,))
    assert name(again.claim()) == ("kernel_size=3", 0)
    assert again.claim() is None


def test_a_result_that_was_removed_is_made_again(open_queue, tmp_path):
    _, queue = open_queue(GRID, seeds=(0,))
    for _ in range(2):
        finish(queue, queue.claim(), tmp_path, 0.5)
    (workdir(tmp_path / "study", "kernel_size=5", 0) / "result.json").unlink()
    _, again = open_queue(GRID, seeds=(0,))
    assert (name(again.claim()), again.claim()) == (("kernel_size=5", 0), None)


def test_a_grid_may_grow_and_shrink(open_queue):
    _, queue = open_queue(GRID, seeds=(0,))
    first = queue.claim()
    _, more = open_queue("axes={'model.kernel_size': (3, 4, 5, 7)}", seeds=(0, 7))
    claims = [name(more.claim()) for _ in range(8)]
    rest = [("kernel_size=5", 0), ("kernel_size=4", 0), ("kernel_size=7", 0)]
    assert claims == [*rest, *((f"kernel_size={k}", 7) for k in (3, 4, 5, 7)), None]
    _, fewer = open_queue("axes={'model.kernel_size': (3,)}", seeds=(0,))
    assert fewer.counts() == Counts(ended=0, running=1, left=0, refused=0)
    assert name(first) == ("kernel_size=3", 0)


def test_study_json_is_what_a_report_reads(open_queue, tmp_path):
    arguments = "axes={'model.kernel_size': (3,)}, points={'wide': {'model.dim': 128}}, published={'wide': 0.5}"
    open_queue(f"{arguments}, settings={{'epochs': 3}}", overrides=["--config.augment.order=()"])
    record = json.loads((tmp_path / "study/study.json").read_text())
    assert record.pop("id")
    assert record == {
        "name": "tiny",
        "title": "Kernels",
        "source": "nobody",
        "recipe": "configs/digits.py",
        "scale": "full",
        "settings": {"epochs": 3, "augment.order": []},
        "metric": "test_top1",
        "axes": ["model.kernel_size", "model.dim"],
        "points": [
            {
                "name": "kernel_size=3",
                "parameters": {"model.kernel_size": 3, "model.dim": 64},
                "published": None,
                "seeds": [0, 1],
            },
            {
                "name": "wide",
                "parameters": {"model.kernel_size": 3, "model.dim": 128},
                "published": 0.5,
                "seeds": [0, 1],
            },
        ],
    }


def test_another_study_in_its_place_is_refused(open_queue, tmp_path):
    open_queue(f"{GRID}, settings={{'epochs': 3}}")
    with pytest.raises(UserError, match=r'was made with settings {"epochs": 3}, not {"epochs": 4}: .* with --dir'):
        open_queue(f"{GRID}, settings={{'epochs': 4}}")
    (tmp_path / "study/study.json").unlink()
    with pytest.raises(UserError, match=r"the study 'study' of --storage was made with settings"):
        open_queue(f"{GRID}, settings={{'epochs': 4}}")
    plan, _ = open_queue(f"{GRID}, settings={{'epochs': 3}}")
    other = tmp_path / "other/study"
    other.mkdir(parents=True)
    with pytest.raises(UserError, match=r"all workers share one folder"):
        Queue(plan, Models(plan), other, default_url(tmp_path / "study"))


def test_runs_of_another_recipe_are_no_part_of_it(open_queue, tmp_path):
    plan, _ = open_queue(GRID)
    run = workdir(tmp_path / "study", "kernel_size=5", 1)
    run.mkdir(parents=True)
    made = to_plain(plan.config(plan.points[1])) | {"seed": 1, "compilation_cache": False}
    (run / "config.json").write_text(json.dumps({"config": made}))
    open_queue(GRID)
    (run / "config.json").write_text(json.dumps({"config": made | {"epochs": 3}}))
    with pytest.raises(
        UserError, match=r"kernel_size=5/seed-1 was made with another config \(config.epochs: 3 -> 20\)"
    ):
        open_queue(GRID)


def test_a_search_asks_for_so_many_points_and_then_for_their_other_seeds(open_queue, tmp_path):
    arguments = search(seeds="(4, 5)", points="{'first': {'model.dim': 8, 'schedule.learning_rate': 0.05}}")
    (_, one), (_, other) = open_queue(arguments), open_queue(arguments)
    assert one.counts() == Counts(ended=0, running=0, left=6, refused=0)
    first, second = one.claim(), other.claim()
    assert (name(first), first.prunes) == (("dim=8,learning_rate=0.05", 4), True)
    assert second.point.parameters["model.dim"] in range(8, 65, 8)
    assert 1e-3 <= second.point.parameters["schedule.learning_rate"] <= 0.1
    assert f"{second.point.parameters['schedule.learning_rate']:.3g}" in second.point.name
    finish(one, first, tmp_path, 0.5)
    other.finish(second, PRUNED)
    # The pruned point gets no further runs.
    later = one.claim()
    assert (name(later), later.prunes) == ((first.point.name, 5), False)
    third = other.claim()
    assert (third.seed, third.point.name in (first.point.name, second.point.name)) == (4, False)
    assert (one.claim(), other.claim()) == (None, None)
    assert one.counts() == Counts(ended=2, running=2, left=1, refused=0)
    record = json.loads((tmp_path / "study/study.json").read_text())
    assert [point["name"] for point in record["points"]] == [each.point.name for each in (first, second, third)]
    assert record["points"][1]["parameters"] == second.point.parameters
    finish(one, later, tmp_path, 0.5)
    other.put_back(third)
    _, late = open_queue(arguments)
    assert json.loads((tmp_path / "study/study.json").read_text()) == record
    again = late.claim()
    assert (name(again), again.point.parameters) == (name(third), third.point.parameters)


def test_points_beyond_the_budget_are_never_handed_out(open_queue):
    arguments = search(trials="4", axes="{'model.dim': Range(8, 64, step=8)}", most_params="7000")
    _, queue = open_queue(arguments)
    claims = [queue.claim() for _ in range(5)]
    # p²h + 3h + 4(9h + h² + 6h) + 10h + 10, of one channel
    affordable = [h for h in range(8, 65, 8) if 14 * h + 4 * h * (h + 15) + 10 <= 7000]
    assert affordable == [8, 16, 24, 32]
    assert sorted(claim.point.parameters["model.dim"] for claim in claims[:4]) == affordable
    assert claims[4] is None
    assert queue.counts().refused > 0


def test_a_search_ends_where_there_are_no_new_points(open_queue, tmp_path, monkeypatch):
    monkeypatch.setattr("convmixer_jax.studying.queue.MOST_REFUSED", 20)
    _, queue = open_queue(search(trials="9", sampler="'random'", axes="{'model.activation': ('gelu', 'relu')}"))
    claims = [queue.claim() for _ in range(3)]
    assert {claim.point.name for claim in claims[:2]} == {"activation=gelu", "activation=relu"}
    assert (claims[2], queue.counts().left) == (None, 0)


def test_the_hopeless_are_told_apart(open_queue):
    """ASHA's first rung is after a ninth of 20 epochs: of three runs the best goes on, and the first has nobody
    beside it.
    """
    arguments = "pruner='asha', settings={'val_fraction': 0.1}, axes={'model.kernel_size': (3, 4, 5, 7)}, seeds=(0,)"
    _, queue = open_queue(arguments)
    claims = [queue.claim() for _ in range(4)]
    curves = [(0.5, 0.5), (0.6, 0.4), (0.1, 0.6)]
    told = [
        [queue.report(claim, n, top1) for n, top1 in enumerate(curve, 1)]
        for claim, curve in zip(claims, curves, strict=False)
    ]
    assert told == [[False, False], [False, True], [False, False]]
    # A run that has come to its end is not stopped any more.
    assert queue.report(claims[3], 20, 0.0) is False
    queue.finish(claims[1], PRUNED)
    assert queue.counts() == Counts(ended=1, running=3, left=0, refused=0)
    assert queue.claim() is None


def test_what_a_study_may_name_is_there():
    """Two places, since a study is checked before Optuna is imported."""
    assert list(samplers.SAMPLERS) == list(study.SAMPLERS)
    assert list(samplers.PRUNERS) == list(study.PRUNERS)


@pytest.mark.parametrize("epochs, first", [(3, 1), (9, 1), (18, 2), (25, 2), (200, 22)])
def test_nobody_is_judged_before_a_ninth_of_the_epochs(epochs, first):
    assert first_rung(epochs) == first


def test_a_storage_that_is_lost_is_no_mistake(open_queue, tmp_path):
    _, queue = open_queue(GRID)
    (tmp_path / "study/study.db").write_bytes(b"not any more")
    with pytest.raises(RunAgainError, match=r"--storage sqlite:///.*study.db: file is not a database"):
        queue.claim()


@pytest.mark.parametrize("url", STORAGES)
def test_a_lost_study_json_is_written_anew(open_queue, url, tmp_path):
    _, queue = open_queue(GRID, url)
    finish(queue, queue.claim(), tmp_path, 0.5)
    file = tmp_path / "study/study.json"
    before = file.read_text()
    file.write_text(before[:20])
    with pytest.raises(UserError, match=r"study\.json cannot be read .*: remove it, a sweep with the same --study"):
        open_queue(GRID, url)
    file.unlink()
    _, again = open_queue(GRID, url)
    assert file.read_text() == before
    assert again.counts() == Counts(ended=1, running=0, left=3, refused=0)


def test_a_folder_has_one_name_however_it_is_called(open_queue, tmp_path, monkeypatch):
    plan, queue = open_queue(GRID)
    monkeypatch.chdir(tmp_path / "study")
    here = Queue(plan, Models(plan), Path(), default_url(Path()))
    claims = [one.claim() for one in (queue, here, queue, here)]
    assert len({name(claim) for claim in claims}) == 4
