"""A run that was ended, by whatever, and started again is the run that was not: bit for bit.

Each run is a process of its own, as a user starts it. Two settings: "whole epochs", where everything happens at the
end of an epoch, and "mid-epoch", where checkpoints, reports and epochs do not meet and a validation split picks the
best checkpoint, with all that is drawn or averaged. Runs that nothing depends on go side by side.
"""

import concurrent.futures
import json
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.data.archives import write_noise
from tests.training.restarts import (
    ENVIRONMENT,
    Runs,
    assert_same,
    files_of,
    kill_after_checkpoint,
    lines,
    make_runs,
    newest,
    result,
    rows,
    run,
    state_bits,
    stop_by,
)

# An update takes some 0.1 s or more: the signals that follow a line or a file of the run arrive while most of
# the updates are still to come, on any machine, since a slower one makes updates slower too.
COMMON = {
    "dataset": "digits",
    "devices": 1,
    "batch_size": 128,
    "epochs": 2,
    "model.dim": 64,
    "model.depth": 2,
    "model.patch_size": 1,
    "model.kernel_size": 5,
    "augment.order": ("pad_and_crop", "random_resized_crop"),
    "augment.pad_and_crop.pixels": 1,
    "schedule.learning_rate": 0.01,
    "report_every_steps": 1,
}
# Three updates an epoch, six in all; a checkpoint at the end of each epoch.
WHOLE_EPOCHS = COMMON | {"train_examples": 384, "checkpoint_every_steps": 3}
# Four updates an epoch, eight in all; checkpoints 3, 6, 8 and the best one, reports 2, 4, 6, 8.
MID_EPOCH = COMMON | {
    "train_examples": 512,
    "val_fraction": 0.002,
    "checkpoint_every_steps": 3,
    "report_every_steps": 2,
    "seed": 5,
}
# With everything that has draws or a state of its own, on images with colours; a small model, since 10,000 images are
# tested.
MID_EPOCH |= {
    "dataset": "cifar10",
    "model.dim": 16,
    "model.patch_size": 8,
    "model.kernel_size": 3,
    "augment.order": (
        *("random_resized_crop", "horizontal_flip", "rand_augment", "colour_jitter", "affine", "channel_shift"),
        *("cutout", "random_erasing"),
    ),
    "augment.random_resized_crop.interpolation": "random",
    "augment.colour_jitter.brightness": 0.2,
    "augment.colour_jitter.hue": 0.1,
    "augment.cutout.half_side": 4,
    "augment.affine.rotation": 10.0,
    "augment.affine.shift": 0.1,
    "augment.channel_shift.levels": 20.0,
    "mixing.mixup_alpha": 0.8,
    "mixing.cutmix_alpha": 1.0,
    "model.drop_path": 0.2,
    "model.head_dropout": 0.2,
    "accumulate_steps": 2,
    "ema_decay": 0.9,
    "eval_flip": True,
}


@pytest.fixture(scope="module")
def whole_epochs(tmp_path_factory) -> Runs:
    return make_runs(tmp_path_factory.mktemp("whole"), WHOLE_EPOCHS, 6)


@pytest.fixture(scope="module")
def mid_epoch(tmp_path_factory) -> Iterator[Runs]:
    data_dir = tmp_path_factory.mktemp("data")
    write_noise(data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "CONVMIXER_DATA_DIR", str(data_dir))
        yield make_runs(tmp_path_factory.mktemp("mid"), MID_EPOCH, 8)


def test_the_undisturbed_run_did_something(whole_epochs):
    """What the tests below compare with: six updates, each of which changed the weights, and all their rows."""
    workdir, settings = whole_epochs.undisturbed, whole_epochs.settings
    assert [row["step"] for row in rows(workdir)] == [1, 2, 3, 4, 5, 6, 6]
    assert all("perf/images_per_sec" in row for row in lines(workdir) if "train/loss" in row)
    half, end = (state_bits(workdir, settings, step) for step in (3, 6))
    same = [name for name in half if half[name] == end[name]]
    # What was reset at a report and the end of an epoch is zero at both.
    assert all(name.startswith((".report", ".epoch", ".skipped_in_a_row")) for name in same), same
    assert result(workdir)["step"] == 6


def test_three_updates_a_kill_and_three_more_are_six(whole_epochs, tmp_path):
    workdir = tmp_path / "resumed"
    shutil.copytree(whole_epochs.killed, workdir)
    ended = run(workdir, whole_epochs.settings)
    assert ended.returncode == 0, ended.stderr
    assert "going on from step 3" in ended.stderr
    assert_same(whole_epochs, workdir)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_an_epoch_and_of_a_report(mid_epoch, tmp_path):
    """As above; besides, the log of the killed process goes further than its checkpoint, and its last line is torn."""
    workdir = tmp_path / "resumed"
    shutil.copytree(mid_epoch.killed, workdir)
    lost = {"step": 4, "epoch": 1.0, "train/loss": 99.0}
    torn = '{"step": 6, "train/lo'
    kept = [row for row in lines(workdir) if row["step"] <= 3]
    assert [row["step"] for row in kept] == [2]
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(lost) + "\n" + torn)
    after = [row for row in lines(mid_epoch.killed) if row["step"] > 3]
    ended = run(workdir, mid_epoch.settings)
    assert ended.returncode == 0, ended.stderr
    assert "going on from step 3" in ended.stderr
    assert_same(mid_epoch, workdir)
    discarded = (workdir / "metrics.discarded.jsonl").read_text()
    assert [json.loads(line) for line in discarded.splitlines()] == [*after, lost]
    # The rows of before the kill were kept as they were, speed included.
    assert lines(workdir)[:1] == kept


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, mid_epoch) -> dict:
    """For each signal: the workdir, exit code and words of a run that it stopped."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    workdirs = [tmp_path_factory.mktemp(number.name) for number in numbers]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(stop_by, numbers, workdirs, [MID_EPOCH] * 2))
    steps = [newest(workdir) for workdir in workdirs]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        resumed = list(pool.map(run, workdirs, [MID_EPOCH] * 2))
    return dict(zip(numbers, zip(workdirs, ended, steps, resumed, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_a_second_start_goes_on(mid_epoch, stopped, number):
    workdir, (code, said), step, resumed = stopped[number]
    assert code == 75, said
    assert f"{number.name} received: saving step {step}" in said
    assert "Traceback" not in said
    assert 0 < step < mid_epoch.last, "it was stopped too late: nothing would be tested"
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on from step {step}" in resumed.stderr
    assert_same(mid_epoch, workdir)


@pytest.mark.slow
def test_a_finished_run_says_so_and_changes_nothing(mid_epoch):
    before = files_of(mid_epoch.undisturbed)
    ended = run(mid_epoch.undisturbed, mid_epoch.settings)
    assert ended.returncode == 0, ended.stderr
    assert f"{mid_epoch.undisturbed} is finished: step 8, test top1 " in ended.stderr
    assert files_of(mid_epoch.undisturbed) == before


@pytest.mark.slow
def test_a_missing_result_is_made_again(mid_epoch, tmp_path):
    workdir = tmp_path / "without"
    shutil.copytree(mid_epoch.undisturbed, workdir)
    (workdir / "result.json").unlink()
    ended = run(workdir, mid_epoch.settings)
    assert ended.returncode == 0, ended.stderr
    assert "going on from step 8" in ended.stderr
    assert_same(mid_epoch, workdir)


@pytest.mark.slow
def test_when_to_write_may_change(mid_epoch, tmp_path):
    workdir = tmp_path / "resumed"
    shutil.copytree(mid_epoch.killed, workdir)
    changed = {"report_every_steps": 5, "eval_every_epochs": 3, "checkpoint_every_steps": 7, "eval_batch_size": 50}
    ended = run(workdir, mid_epoch.settings | changed)
    assert ended.returncode == 0, ended.stderr
    found, wanted = (state_bits(each, MID_EPOCH, 8) for each in (workdir, mid_epoch.undisturbed))
    learnt = [name for name in wanted if name.startswith((".params", ".batch_stats", ".ema", ".opt_state"))]
    assert len(learnt) > 90
    assert [name for name in learnt if found[name] != wanted[name]] == []
    # A row at 2 from before the kill; then at 5 and at the end, where both splits are evaluated.
    assert [row["step"] for row in rows(workdir)] == [2, 5, 8, 8, 8]
    assert result(workdir)["top1"] == result(mid_epoch.undisturbed)["top1"]


@pytest.mark.slow
def test_a_streamed_run_that_was_killed_ends_as_the_resident_one(mid_epoch, tmp_path):
    """Its batches are prepared ahead of time: those of the killed process are lost, and none is skipped for it."""
    workdir, settings = tmp_path / "streamed", mid_epoch.settings | {"input": "stream"}
    kill_after_checkpoint(workdir, settings, 3)
    ended = run(workdir, settings)
    assert ended.returncode == 0, ended.stderr
    assert "going on from step 3" in ended.stderr
    assert_same(mid_epoch, workdir)


@pytest.mark.slow
def test_what_is_computed_may_not_change(mid_epoch):
    before = files_of(mid_epoch.killed)
    ended = run(mid_epoch.killed, mid_epoch.settings | {"epochs": 3})
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: ")
    assert "config.epochs: 2 -> 3" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert files_of(mid_epoch.killed) == before
