"""Processes that get a signal, hang, or lose another one: each ends with the code that says so, soon, and can go on.

That what goes on comes out the same to the bit, test_loop.py and test_resume.py show in one process, and the crash test
for any number of them.
"""

import pytest

from tests.training.disturbed import disturb
from tests.training.starts import saved_steps

pytestmark = pytest.mark.slow
GRACE = 20.0
SETTINGS = {
    "dataset": "digits",
    "train_examples": 1024,
    "val_fraction": 0.25,
    "batch_size": 32,
    "epochs": 2,
    "model.dim": 8,
    "model.depth": 1,
    "model.patch_size": 1,
    "model.kernel_size": 3,
    "augment.order": ("pad_and_crop",),
    "augment.pad_and_crop.pixels": 1,
    "eval_batch_size": 8,
    "eval_every_epochs": 1,
    "report_every_steps": 20,
    "checkpoint_every_steps": 21,
    "steps_per_dispatch": 8,
    "stop_grace_seconds": GRACE,
}  # 32 updates an epoch


def test_a_signal_while_the_program_is_compiled(tmp_path):
    (ended,) = disturb(tmp_path, SETTINGS, "compile", "SIGINT")
    assert ended.code == 75, ended.said
    assert "SIGINT received: stopped, there was nothing to save" in ended.said.splitlines()[-1]
    assert "Traceback" not in ended.said
    assert ended.seconds is not None
    assert ended.seconds < GRACE
    print(f"SIGINT to exit, compilation: {ended.seconds:.2f} s")


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


def test_all_stop_at_start_up_where_one_got_the_signal(tmp_path):
    ends = disturb(tmp_path, SETTINGS, "checkpoints, data", processes=2, which=1)
    assert [ended.code for ended in ends] == [75, 75], ends
    assert "process 1 ended: SIGTERM received: stopped, there was nothing to save" in ends[0].said


def test_all_end_by_the_mistake_that_one_found(tmp_path):
    first, second = disturb(tmp_path, SETTINGS, "checkpoints, data", "mistake", processes=2, which=1)
    assert (first.code, second.code) == (2, 2), first.said
    assert second.said.endswith("error: images/7.jpg cannot be read\n")
    assert first.said.endswith("error: process 0: process 1 ended: images/7.jpg cannot be read\n")


def test_all_stop_alike_where_one_got_the_signal_and_end_where_process_0_is_lost(tmp_path):
    """First in an evaluation; then in updates that share dispatches, where JAX would abort the survivor."""
    ends = disturb(tmp_path, SETTINGS, "evaluation of val, batch 7", processes=2, which=1)
    assert [ended.code for ended in ends] == [75, 75], ends
    assert "a signal to another process received: saving step 32" in ends[0].said
    assert ends[1].seconds is not None
    assert ends[1].seconds < GRACE
    print(f"SIGTERM to exit, two processes, an evaluation: {ends[1].seconds:.2f} s")
    ends = disturb(tmp_path, SETTINGS, "update 50 (dispatch of 8)", "SIGKILL", processes=2, which=0)
    assert "going on from step 32" in ends[0].said
    assert [ended.code for ended in ends] == [-9, 76], ends
    assert ends[1].said.endswith("error: process 1: process 0, which joins all others, was lost; run again\n")


@pytest.mark.parametrize("action", ["SIGKILL", "SIGSTOP"])
def test_without_one_process_the_other_ends_within_a_minute_and_can_go_on(tmp_path, action):
    ends = disturb(tmp_path, SETTINGS, "update 50 (dispatch of 8)", action, processes=2, which=1)
    assert ends[0].code == 76, ends[0].said
    assert "process 1" in ends[0].said
    assert ends[1].seconds is not None
    seconds = ends[0].at - (ends[1].at - ends[1].seconds)
    assert seconds < 60
    print(f"{action} of process 1 to the end of the other: {seconds:.1f} s")
    assert 21 in saved_steps(tmp_path)
