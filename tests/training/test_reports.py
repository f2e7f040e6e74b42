"""Rows of metrics: what they hold, and speeds by a clock whose hands the test turns."""

import types

import jax.numpy as jnp
import pytest

from convmixer_jax.runs import clock
from convmixer_jax.runs.clock import RunClock
from convmixer_jax.runs.progress import Progress
from convmixer_jax.training.metrics import TrainSums
from convmixer_jax.training.reports import Reports


class Log:
    """In the place of MetricsLog: keeps the rows."""

    def __init__(self):
        self.rows = []

    def write(self, row):
        self.rows.append(row)


class Hands:
    now = 100.0


@pytest.fixture
def hands(monkeypatch):
    hands = Hands()
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(monotonic=lambda: hands.now))
    return hands


def sums_of(updates: int, skipped: int = 0) -> TrainSums:
    """Updates of ten examples, of which seven are right, with a loss of 2 and a gradient norm of 3."""
    good = updates - skipped
    return TrainSums(*map(jnp.asarray, (20.0 * good, 7 * good, 10 * good, 3.0 * good, good, skipped)))


def test_rows_and_speeds(hands, capsys):
    log, run = Log(), RunClock()
    reports = Reports(log, Progress(100, 30, 10), run, batch_size=10, steps_per_epoch=20, step=30)
    run.start_updates()
    hands.now += 5  # ten updates
    reports.write(40, sums_of(10), 0.5)
    with run.waiting_for_input():
        hands.now += 1
    with run.pause("save"):
        hands.now += 60
    hands.now += 3
    reports.write(45, sums_of(5, skipped=1), 0.25)
    learnt = {"train/loss": 2.0, "train/top1": 0.7, "norm/grad": 3.0}
    assert log.rows == [
        {
            **{"step": 40, "epoch": 2.0, "perf/images_per_sec": 20.0, "perf/input_wait": 0.0},
            **learnt,
            **{"train/skipped_updates": 0, "schedule/learning_rate": 0.5},
        },
        {
            **{"step": 45, "epoch": 2.25, "perf/images_per_sec": 12.5, "perf/input_wait": 0.25},
            **learnt,
            **{"train/skipped_updates": 1, "schedule/learning_rate": 0.25},
        },
    ]
    said = capsys.readouterr().err
    assert "step 40/100  epoch 2.00  loss 2.0000  top1 0.7000" in said
    assert said.count("warning") == 1
    assert "warning: 1 updates up to step 45 were skipped" in said


def test_an_evaluation_names_its_split_and_leaves_classes_out(capsys):
    log = Log()
    reports = Reports(log, Progress(100, 0, 10), RunClock(), batch_size=10, steps_per_epoch=20, step=0)
    reports.write_evaluation(40, "val", {"n": 50, "top1": 0.5, "loss": 1.25, "per_class": [0.25, 0.75]})
    assert log.rows == [
        {"step": 40, "epoch": 2.0, "eval/split": "val", "eval/n": 50, "eval/top1": 0.5, "eval/loss": 1.25}
    ]
    assert "step 40  epoch 2  val split, 50 images: top1 0.5000  loss 1.2500" in capsys.readouterr().err


def test_other_processes_write_nothing():
    reports = Reports(None, Progress(100, 0, 10, False), RunClock(), batch_size=10, steps_per_epoch=20, step=0)
    reports.write(10, sums_of(10), 0.5)
    reports.write_evaluation(20, "test", {"n": 50, "top1": 0.5})


def test_a_failed_save_is_a_row_and_a_warning(hands, capsys):
    log = Log()
    for kept in (log, None):  # the second as in all processes but the first
        reports = Reports(kept, Progress(100, 30, 10), RunClock(), batch_size=10, steps_per_epoch=20, step=30)
        reports.write_failed_save(40, "too little space")
    assert log.rows == [{"step": 40, "epoch": 2.0, "save/failed": 1, "save/reason": "too little space"}]
    assert capsys.readouterr().err.splitlines() == ["warning: checkpoint 40 could not be saved: too little space"] * 2


def test_replaced_examples_are_counted_where_they_may_be():
    log, run = Log(), RunClock()
    asked = []
    reports = Reports(
        log,
        Progress(100, 30, 10, False),
        run,
        batch_size=10,
        steps_per_epoch=20,
        step=30,
        replaced=lambda updates: asked.append(updates) or 3,
    )
    run.start_updates()
    reports.write(40, sums_of(10), 0.5)
    reports.write(45, sums_of(5), 0.5)
    assert asked == [range(30, 40), range(40, 45)]
    assert [row["perf/replaced_examples"] for row in log.rows] == [3, 3]
