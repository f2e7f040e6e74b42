"""How many updates share a dispatch changes nothing of a run but its speed, to the last bit.

Every run has the looped program, whatever its number: these operations are as quick inside of a loop as outside.
"""

import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from convmixer_jax.config import get_base
from convmixer_jax.crashing.contents import read_result, read_rows
from convmixer_jax.errors import ExitCode
from convmixer_jax.training import evaluate, loop, program
from convmixer_jax.training.pace import Pace
from tests.training.starts import Start, start

pytestmark = pytest.mark.usefixtures("quick_compilation")

# 12 updates an epoch, two epochs; reports 5, 10, 15, 20, 24; checkpoints 7, 14, 21 and the last.
DUE = {5, 7, 10, 12, 14, 15, 20, 21, 24}


def config_of(steps_per_dispatch: int) -> ConfigDict:
    config = get_base()
    config.dataset = "digits"
    config.devices = 1
    config.train_examples = 192
    config.batch_size = 16
    config.epochs = 2
    config.augment.order = ("pad_and_crop",)
    config.augment.pad_and_crop.pixels = 1
    config.model.dim, config.model.depth = 4, 1
    config.model.patch_size, config.model.kernel_size = 1, 3
    config.model.head_dropout = 0.2
    config.model.ops = "channel_major"
    config.ema_decay = 0.9
    config.compilation_cache = False
    config.report_every_steps = 5
    config.checkpoint_every_steps = 7
    config.steps_per_dispatch = steps_per_dispatch
    return config


def run(workdir: Path, steps_per_dispatch: int, **hooks: Any) -> Start:
    return start(workdir, config_of(steps_per_dispatch), **hooks)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, Start]:
    """The same run with 1, 3 and 8 updates in a dispatch."""
    return {steps: run(tmp_path_factory.mktemp("run"), steps) for steps in (1, 3, 8)}


def test_one_by_one_is_the_run_that_is_compared_with(runs):
    one = runs[1]
    assert (one.code, one.counts, list(one.saved)) == (ExitCode.DONE, [1] * 24, [7, 14, 21, 24])
    # Reports, two evaluations, the last one after the last report.
    assert [row["step"] for row in read_rows(one.workdir)] == [5, 10, 12, 15, 20, 24, 24]
    different = [name for name, value in one.saved[24].items() if one.saved[21][name] != value]
    assert len(different) > 20, "updates change the state"


@pytest.mark.parametrize("steps, counts", [
    (3, [1, 3, 1, 2, 3, 2, 2, 1, 3, 2, 1, 3]), (8, [1, 4, 2, 3, 2, 2, 1, 5, 1, 3])
])  # fmt: skip
def test_several_at_once_are_the_same_run(runs, steps, counts):
    several, one = runs[steps], runs[1]
    assert several.code == ExitCode.DONE
    # The first is of one update, and none goes past a step at which something is due.
    assert several.counts == counts
    assert set(several.ends()) >= DUE
    assert several.saved == one.saved
    assert read_rows(several.workdir) == read_rows(one.workdir)
    assert read_result(several.workdir) == read_result(one.workdir)


def test_a_signal_in_an_evaluation_abandons_it_and_the_next_start_makes_it_first(runs, tmp_path):
    """Of the one after update 12, where no checkpoint is due."""
    before_batch: list[int] = []
    sums = evaluate.summarise_evaluation

    def interrupt(batches):
        before_batch.append(len(batches))
        os.kill(os.getpid(), signal.SIGTERM)
        return sums(batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "summarise_evaluation", interrupt)
        stopped = run(tmp_path, 8)
    # The moving average and the plain weights are evaluated one after the other; the signal comes between the two.
    assert (stopped.code, list(stopped.saved), len(before_batch)) == (ExitCode.STOPPED, [7, 12], 1)
    assert [row["step"] for row in read_rows(tmp_path)] == [5, 10]
    resumed = run(tmp_path, 8)
    assert resumed.code == ExitCode.DONE
    assert resumed.saved == {step: state for step, state in runs[1].saved.items() if step > 12}
    assert read_rows(tmp_path) == read_rows(runs[1].workdir)
    assert read_result(tmp_path) == read_result(runs[1].workdir)


def test_a_signal_is_seen_between_two_dispatches_and_the_next_start_may_take_other_ones(runs, tmp_path):
    """It comes while updates 8 and 9 are handed over; eight at a time would have gone from 7 to 10."""

    def interrupt(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = run(tmp_path, 2, before_dispatch=interrupt)
    assert (stopped.code, stopped.ends()) == (ExitCode.STOPPED, [1, 3, 5, 7, 9])
    assert list(stopped.saved) == [7, 9]
    resumed = run(tmp_path, 8)
    assert (resumed.code, resumed.ends(9)) == (ExitCode.DONE, [10, 12, 14, 15, 20, 21, 24])
    assert resumed.saved == {step: state for step, state in runs[1].saved.items() if step > 9}
    assert read_rows(tmp_path) == read_rows(runs[1].workdir)
    assert read_result(tmp_path) == read_result(runs[1].workdir)


def interrupt_once(moment: str) -> dict[str, Any]:
    """Returns hooks that send SIGTERM when that begins."""
    happened: list[str] = []

    def doing(what: str) -> None:
        if what.startswith(moment) and not happened:
            happened.append(what)
            os.kill(os.getpid(), signal.SIGTERM)

    return {"doing": doing}


# What begins at the moment; the exit code, what was saved by then, and what the next start saves.
MOMENTS = {
    "checkpoints, data": (ExitCode.STOPPED, [], [7, 14, 21, 24]),
    "update 1, the first": (ExitCode.STOPPED, [1], [7, 14, 21, 24]),
    "save of step 14": (ExitCode.STOPPED, [7, 14], [21, 24]),
    "evaluation of test, batch 0": (ExitCode.STOPPED, [7, 12], [14, 21, 24]),
    "save of step 24": (ExitCode.DONE, [7, 14, 21, 24], []),  # the last: nothing is left to go on with
}


def test_a_last_save_that_fails_is_made_once_more(tmp_path, monkeypatch, capsys):
    """The disk is full for one save: that of the last step, after which none would come."""
    disk_usage, full = shutil.disk_usage, []

    def now_and_then(path):
        usage = disk_usage(path)
        if ended and not full:
            full.append(path)
            return usage._replace(free=0)
        return usage

    ended: list[str] = []
    monkeypatch.setattr(shutil, "disk_usage", now_and_then)
    last = run(tmp_path, 8, doing=lambda what: ended.append(what) if what == "save of step 24" else None)
    assert (last.code, len(full)) == (ExitCode.DONE, 1)
    assert (tmp_path / "checkpoints/24").is_dir()
    told = capsys.readouterr().err
    assert told.count("warning: checkpoint 24 could not be saved: too little space in ") == 1
    assert told.count("saving step 24 once more") == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_changes_nothing(runs, tmp_path, moment):
    code, before, after = MOMENTS[moment]
    stopped = run(tmp_path, 8, **interrupt_once(moment))
    assert (stopped.code, list(stopped.saved)) == (code, before)
    resumed = run(tmp_path, 8)
    assert (resumed.code, list(resumed.saved)) == (ExitCode.DONE, after)
    both = stopped.saved | resumed.saved
    assert {step: both[step] for step in runs[1].saved} == runs[1].saved
    assert read_rows(tmp_path) == read_rows(runs[1].workdir)
    assert read_result(tmp_path) == read_result(runs[1].workdir)


@pytest.mark.slow
def test_a_signal_while_the_program_is_compiled_waits_for_no_compiler(tmp_path, monkeypatch):
    waiting = threading.Event()

    def never(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        waiting.wait(60)

    monkeypatch.setattr(program, "compile_updates", never)
    began = time.monotonic()
    assert run(tmp_path, 8).code == ExitCode.STOPPED
    assert time.monotonic() - began < 30
    waiting.set()


class TurnedClock(Pace):
    """As if every update took 99 ms."""

    last = now = 0.0

    def completed(self, updates: int, end: float) -> None:
        assert end > self.last, "the clock of the run tells when each dispatch had ended"
        self.last = end
        self.now += 0.099 * updates
        super().completed(updates, self.now)


def test_the_automatic_choice_follows_the_clock(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Pace", TurnedClock)
    config = config_of(0)
    config.report_every_steps = config.checkpoint_every_steps = 12
    automatic = start(tmp_path, config)
    # One to warm up, one that is measured and two handed over meanwhile, then up to half a second.
    assert automatic.counts[:6] == [1, 1, 1, 1, 2, 4]
    assert automatic.ends()[6] == 12
    assert max(automatic.counts[7:]) == 5
    assert automatic.saved[24].keys() == runs[1].saved[24].keys()
    learnt = [name for name in automatic.saved[24] if "report" not in name]
    assert {name: automatic.saved[24][name] for name in learnt} == {name: runs[1].saved[24][name] for name in learnt}
