"""A run that was ended, by whatever, and started again is the run that was not: bit for bit.

Checkpoints, reports and epochs do not meet, a validation split picks the best checkpoint, and everything that is drawn
or averaged is on. What a kill leaves is taken from the run while it goes on: a copy of its folder at that moment. (The
crash test kills processes, of a smaller training.)
"""

import dataclasses
import functools
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convmixer_jax.crashing.contents import read_result, read_rows
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.data.examples import Examples
from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.manifest import MANIFEST_FILE
from tests.data.archives import NUMBERS, python3_batch, spec_with, write_python_folder
from tests.training.starts import (
    Start,
    config_of,
    files_of,
    lines,
    saved_steps,
    start,
    state_bits,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation", "small_cifar")]
# Four updates an epoch, eight in all; checkpoints 3, 6, 8 and the best one, reports 2, 4, 6, 8.
SETTINGS: dict[str, Any] = {
    "dataset": "cifar10",
    "devices": 1,
    "train_examples": 32,
    "val_fraction": 0.2,
    "batch_size": 8,
    "epochs": 2,
    "seed": 5,
    "model.dim": 8,
    "model.depth": 2,
    "model.patch_size": 8,
    "model.kernel_size": 3,
    "model.drop_path": 0.2,
    "model.head_dropout": 0.2,
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
    "accumulate_steps": 2,
    "ema_decay": 0.9,
    "eval_flip": True,
    "schedule.learning_rate": 0.01,
    "checkpoint_every_steps": 3,
    "report_every_steps": 2,
}
LAST = 8


def write_noise(data_dir: Path) -> None:
    """A small CIFAR-10 of noise."""
    draw = np.random.default_rng(0)
    write_python_folder(
        data_dir, lambda pixels, labels: python3_batch(draw.integers(0, 256, pixels.shape, np.uint8), labels)
    )


@pytest.fixture(scope="module")
def small_cifar(tmp_path_factory) -> Iterator[Path]:
    data_dir, spec = tmp_path_factory.mktemp("data"), spec_with()
    write_noise(data_dir)
    row = dataclasses.replace(
        DATASETS["cifar10"],
        load=lambda place, split: Examples(*load_cifar(place, split, spec)),
        num_examples={"train": 60, "test": len(NUMBERS["test_batch"])},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "cifar10", row)
        yield data_dir


@dataclasses.dataclass
class Runs:
    """A run that nothing disturbed, and what it would have left had it been killed after its checkpoint 3."""

    data_dir: Path
    undisturbed: Path
    killed: Path

    def go_on(self, workdir: Path, changes: dict[str, Any] | None = None, **hooks: Any) -> Start:
        return start(workdir, config_of(SETTINGS | (changes or {})), data_dir=self.data_dir, **hooks)

    def after_the_kill(self, workdir: Path, changes: dict[str, Any] | None = None) -> Start:
        shutil.copytree(self.killed, workdir)
        return self.go_on(workdir, changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_cifar) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    made = Runs(small_cifar, folder / "undisturbed", folder / "killed")

    def copy(step: int) -> None:
        """When updates after step 3 are handed over, which is as soon as its manifest is there: it is durable then."""
        deadline = time.monotonic() + 60
        while step == 3 and not (made.undisturbed / "checkpoints/3" / MANIFEST_FILE).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if step == 3:
            shutil.copytree(made.undisturbed, made.killed)

    assert made.go_on(made.undisturbed, before_dispatch=copy).code == ExitCode.DONE
    return made


def assert_same(runs: Runs, workdir: Path) -> None:
    found, wanted = (state_bits(each, config_of(SETTINGS), LAST) for each in (workdir, runs.undisturbed))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert read_rows(workdir) == read_rows(runs.undisturbed)
    assert read_result(workdir) == read_result(runs.undisturbed)
    assert saved_steps(workdir)[-1] == saved_steps(runs.undisturbed)[-1] == LAST


def test_the_undisturbed_run_did_something(runs):
    """What the tests below compare with: eight updates, each of which changed the weights, and all their rows."""
    assert saved_steps(runs.killed) == [3]
    assert [row["step"] for row in read_rows(runs.undisturbed)] == [2, 4, 4, 6, 8, 8, 8]
    assert all("perf/images_per_sec" in row for row in lines(runs.undisturbed) if "train/loss" in row)
    earlier = state_bits(runs.killed, config_of(SETTINGS), 3)
    end = state_bits(runs.undisturbed, config_of(SETTINGS), LAST)
    same = [name for name in end if earlier[name] == end[name]]
    assert all(name.startswith((".report", ".epoch", ".skipped_in_a_row")) for name in same), same
    assert read_result(runs.undisturbed)["step"] == LAST


def test_a_kill_in_the_middle_of_an_epoch_and_of_a_report(runs, tmp_path):
    """The log of the killed process goes further than its checkpoint, and its last line is torn."""
    workdir = tmp_path / "resumed"
    shutil.copytree(runs.killed, workdir)
    lost = {"step": 4, "epoch": 1.0, "train/loss": 99.0}
    torn = '{"step": 6, "train/lo'
    kept = lines(workdir)
    assert [row["step"] for row in kept] == [2]
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(lost) + "\n" + torn)
    resumed = runs.go_on(workdir)
    assert (resumed.code, sum(resumed.counts)) == (ExitCode.DONE, LAST - 3)
    assert_same(runs, workdir)
    discarded = (workdir / "metrics.discarded.jsonl").read_text()
    assert [json.loads(line) for line in discarded.splitlines()] == [lost]
    # The rows of before the kill were kept as they were, speed included.
    assert lines(workdir)[:1] == kept


def test_a_signal_in_the_evaluation_that_finds_the_best_step(runs, tmp_path):
    """Of the validation split after update 4; the next start makes it first, and knows the best step as well."""
    happened = []

    def doing(what: str) -> None:
        if what.startswith("evaluation of val, batch 0") and not happened:
            happened.append(what)
            os.kill(os.getpid(), signal.SIGINT)

    stopped = runs.go_on(tmp_path, doing=doing)
    assert (stopped.code, list(stopped.saved)) == (ExitCode.STOPPED, [3, 4])
    assert runs.go_on(tmp_path).code == ExitCode.DONE
    assert_same(runs, tmp_path)


def test_a_finished_run_says_so_and_changes_nothing(runs, capsys):
    before = files_of(runs.undisturbed)
    assert runs.go_on(runs.undisturbed).code == ExitCode.DONE
    assert f"{runs.undisturbed} is finished: step 8, test top1 " in capsys.readouterr().err
    assert files_of(runs.undisturbed) == before


def test_a_missing_result_is_made_again(runs, tmp_path):
    workdir = tmp_path / "without"
    shutil.copytree(runs.undisturbed, workdir)
    (workdir / "result.json").unlink()
    again = runs.go_on(workdir)
    assert (again.code, again.counts) == (ExitCode.DONE, [])
    assert_same(runs, workdir)


def test_when_to_write_may_change(runs, tmp_path):
    workdir = tmp_path / "resumed"
    changed = {"report_every_steps": 5, "eval_every_epochs": 3, "checkpoint_every_steps": 7, "eval_batch_size": 5}
    assert runs.after_the_kill(workdir, changed).code == ExitCode.DONE
    states = functools.partial(state_bits, config=config_of(SETTINGS), step=LAST)
    found, wanted = states(workdir), states(runs.undisturbed)
    learnt = [name for name in wanted if name.startswith((".params", ".batch_stats", ".ema", ".opt_state"))]
    assert len(learnt) > 90
    assert [name for name in learnt if found[name] != wanted[name]] == []
    # A row at 2 from before the kill; then at 5 and at the end, where both splits are evaluated.
    assert [row["step"] for row in read_rows(workdir)] == [2, 5, 8, 8, 8]
    assert read_result(workdir)["top1"] == read_result(runs.undisturbed)["top1"]


def test_a_streamed_run_goes_on_as_the_resident_one(runs, tmp_path):
    """Its batches are prepared ahead of time, from the one on that comes after the checkpoint."""
    resumed = runs.after_the_kill(tmp_path / "streamed", {"input": "stream"})
    assert (resumed.code, sum(resumed.counts)) == (ExitCode.DONE, LAST - 3)
    assert_same(runs, resumed.workdir)


def test_what_is_computed_may_not_change(runs):
    before = files_of(runs.killed)
    with pytest.raises(UserError, match="config.epochs: 2 -> 3"):
        runs.go_on(runs.killed, {"epochs": 3})
    assert files_of(runs.killed) == before
