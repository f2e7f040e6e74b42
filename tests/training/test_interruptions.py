"""A signal at any moment ends a run in the grace, and the run goes on as if nothing had been; what hangs ends too.

Dispatches of up to eight updates, a validation split that picks the best checkpoint, evaluations of many batches.
"""

import concurrent.futures
from pathlib import Path

import pytest

from tests.training.disturbed import Ended, disturb
from tests.training.restarts import files_of, lines, result, rows, state_bits

pytestmark = pytest.mark.slow
GRACE = 20.0
SETTINGS = {
    "dataset": "digits",
    "train_examples": 1024,
    "val_fraction": 0.25,
    "batch_size": 32,
    "epochs": 2,
    "model.dim": 16,
    "model.depth": 1,
    "model.patch_size": 1,
    "model.kernel_size": 3,
    "augment.order": ("pad_and_crop",),
    "augment.pad_and_crop.pixels": 1,
    "schedule.name": "triangle",
    "schedule.learning_rate": 0.02,
    "ema_decay": 0.9,
    "eval_batch_size": 8,
    "eval_every_epochs": 1,
    "report_every_steps": 20,
    "checkpoint_every_steps": 21,
    "steps_per_dispatch": 8,
    "stop_grace_seconds": GRACE,
}  # 32 updates an epoch
LAST = 64
# The words that begin each moment, the exit code, and the step that the run goes on from where that is certain.
MOMENTS = {
    "start-up": ("checkpoints, data", 75, None),
    "compile": ("compile", 75, None),
    "a dispatch": ("update 9 (dispatch of 8)", 75, None),
    "an evaluation, the best so far": ("evaluation of val, batch 5", 75, 32),
    "the last evaluation": ("evaluation of test, batch 20", 75, 64),
    "a save": ("save of step 21", 75, None),
    "the last save": ("save of step 64", 0, None),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    (ended,) = disturb(workdir, SETTINGS)
    assert ended.code == 0, ended.said
    return workdir


def assert_as(found: Path, wanted: Path) -> None:
    mine, theirs = (state_bits(each, SETTINGS, LAST) for each in (found, wanted))
    assert mine.keys() == theirs.keys()
    assert [name for name in theirs if mine[name] != theirs[name]] == []
    assert rows(found) == rows(wanted)
    assert result(found) == result(wanted)


Disturbed = dict[str, tuple[Path, Ended, Ended]]


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory) -> Disturbed:
    """By moment: the workdir, how the run ended, and how the one after it did."""

    def twice(moment: str) -> tuple[Path, Ended, Ended]:
        workdir = tmp_path_factory.mktemp("run")
        (stopped,) = disturb(workdir, SETTINGS, moment)
        (resumed,) = disturb(workdir, SETTINGS)
        return workdir, stopped, resumed

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        each = {name: pool.submit(twice, moment) for name, (moment, *_) in MOMENTS.items()}
        return {name: end.result() for name, end in each.items()}


def test_the_undisturbed_run_evaluates_and_chooses(undisturbed):
    evaluated = [(row["step"], row["eval/split"]) for row in lines(undisturbed) if "eval/split" in row]
    assert evaluated == [(32, "val"), (64, "val"), (64, "test")]
    assert result(undisturbed)["best_val_step"] in (32, 64)


@pytest.mark.parametrize("name", MOMENTS)
def test_a_signal_ends_the_run_in_the_grace_and_changes_nothing(disturbed, undisturbed, name):
    (_, code, step), (workdir, stopped, resumed) = MOMENTS[name], disturbed[name]
    assert stopped.code == code, stopped.said
    assert "Traceback" not in stopped.said
    assert stopped.seconds is not None
    assert stopped.seconds < GRACE
    print(f"SIGTERM to exit, {name}: {stopped.seconds:.2f} s")
    assert resumed.code == 0, resumed.said
    if step is not None:
        assert f"going on from step {step}" in resumed.said
    assert_as(workdir, undisturbed)


def test_a_run_of_two_processes_stops_where_one_got_the_signal_and_goes_on_alike(tmp_path):
    """Process 1 alone gets it, once in an evaluation and once in updates that share dispatches."""
    wanted, found = tmp_path / "wanted", tmp_path / "found"
    for ended in disturb(wanted, SETTINGS, processes=2):
        assert ended.code == 0, ended.said
    for moment in ("evaluation of val, batch 7", "update 50 (dispatch of 8)"):
        ends = disturb(found, SETTINGS, moment, processes=2, which=1)
        assert [ended.code for ended in ends] == [75, 75], ends
        assert "a signal to another process received: saving step" in ends[0].said
        seconds = ends[1].seconds
        assert seconds is not None
        assert seconds < GRACE
        print(f"SIGTERM to exit, two processes, {moment}: {seconds:.2f} s")
    for ended in disturb(found, SETTINGS, processes=2):
        assert ended.code == 0, ended.said
    assert_as(found, wanted)


def test_a_signal_ends_a_run_that_waits_for_its_data(tmp_path):
    """In C, where Python notices no signal: the run goes back to its checkpoint of step 21."""
    settings = SETTINGS | {"stop_grace_seconds": 5.0}
    (ended,) = disturb(tmp_path, settings, "the batches of updates 22 to", "block")
    assert ended.code == 75, ended.said
    assert "not stopped within config.stop_grace_seconds, which is 5; step 21 is saved" in ended.said
    assert "was at: the batches of updates 22 to" in ended.said
    assert ended.seconds is not None
    assert 4.5 < ended.seconds < 6.5


def test_a_run_that_waits_for_ever_ends_and_says_where(tmp_path):
    (ended,) = disturb(tmp_path, SETTINGS | {"watchdog_seconds": 4.0}, "the batches of updates 22 to", "hang")
    assert ended.code == 76, ended.said
    stacks = (tmp_path / "stuck" / "process-0.txt").read_text()
    for text in (ended.said, stacks):
        assert "waiting for: the batches of updates 22 to" in text
        assert "config.watchdog_seconds" in text
        assert ", line " in text
        assert "in _update" in text, "the main thread's stack"


@pytest.mark.parametrize("action", ["SIGKILL", "SIGSTOP"])
def test_without_one_process_the_other_ends_within_a_minute_and_can_go_on(tmp_path, action):
    ends = disturb(tmp_path, SETTINGS, "update 50 (dispatch of 8)", action, processes=2, which=1)
    assert ends[0].code == 76, ends[0].said
    assert "process 1" in ends[0].said
    assert ends[1].seconds is not None
    seconds = ends[0].at - (ends[1].at - ends[1].seconds)
    assert seconds < 60
    print(f"{action} of process 1 to the end of the other: {seconds:.1f} s")
    before = files_of(tmp_path / "checkpoints")
    assert any(name.startswith("21/") for name in before)
