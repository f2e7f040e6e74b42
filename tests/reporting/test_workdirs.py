"""A run is what its folder shows: its state, its numbers, and what of it cannot be read."""

import json

import pytest

from convmixer_jax.reporting.workdirs import Evaluation, is_run, missing_run, read_run, signature
from tests.reporting.made_up import rows_of, write_ledger, write_record, write_result, write_rows, write_run


def test_a_run_that_is_done(tmp_path):
    run = read_run(write_run(tmp_path / "run", 0.9, 40.0, seed=7), "run")
    assert (run.state, run.why, run.warnings) == ("done", "", [])
    assert (run.top1, run.val_top1, run.step_seconds, run.images_per_sec) == (0.9, None, 40.0, pytest.approx(140.8))
    assert run.curves["test"][0] == Evaluation(1.0, pytest.approx(0.225), 2.25)
    assert [epoch for epoch, _ in run.rates] == [1, 2, 3, 4]
    assert run.config["seed"] == 7
    assert run.config["label_smoothing"] == 0.0
    assert run.accounts[0].goodput == pytest.approx(0.6)
    assert [start["devices"] for start in run.starts] == [["TPU v5e", "TPU v5e"]]


def test_a_field_that_config_json_lacks_had_the_bases_value(tmp_path):
    folder = write_run(tmp_path / "run")
    record = json.loads((folder / "config.json").read_text())
    del record["config"]["label_smoothing"]
    (folder / "config.json").write_text(json.dumps(record))
    assert read_run(folder, "run").config["label_smoothing"] == 0.0


def test_a_run_that_was_stopped_says_how_far_it_is(tmp_path):
    write_record(tmp_path)
    assert read_run(tmp_path, "run").why.startswith("no update is recorded yet; no ledger, last heard of at 20")
    write_rows(tmp_path, rows_of(0.9, 4)[:3])
    write_ledger(tmp_path, {"step": 1.0}, ended=False)
    run = read_run(tmp_path, "run")
    assert run.state == "unfinished"
    assert run.why.startswith("step 22, epoch 2 of 4; running or killed, last heard of at ")
    assert run.top1 is run.step_seconds is None
    write_ledger(tmp_path, {"step": 1.0}, ended=True)
    assert "epoch 2 of 4; stopped, last" in read_run(tmp_path, "run").why


@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_a_trial_that_was_given_up_says_why(tmp_path, state):
    write_record(tmp_path)
    (tmp_path / "trial.json").write_text(json.dumps({"state": state, "why": "exit 1:\nout of memory"}))
    run = read_run(tmp_path, "run")
    assert (run.state, run.why) == (state, "exit 1: out of memory")
    write_result(tmp_path, 0.5)  # it was taken up again, and is done
    assert read_run(tmp_path, "run").state == "done"


def test_a_missing_run_has_nothing(tmp_path):
    run = missing_run(tmp_path / "no", "no")
    assert (run.state, run.why, run.top1, run.starts) == ("missing", "not begun", None, [])


# (what metrics.jsonl holds, rows that are used, the warning)
ROW = '{"step": 3, "epoch": 1.0, "eval/split": "test", "eval/top1": 0.5}\n'
DAMAGE = {
    "a torn line": (f'{ROW}{{"step"\n{ROW}', 2, "line 2 cannot be read; the other 2 rows are used"),
    "several": (f"{ROW}[1]\nx\n" + "{\n" * 5, 1, "lines 2, 3, 4, 5, 6 and 2 more cannot be read; the other 1 rows"),
    "bytes": (f"\udcff\n{ROW}", 1, "line 1 cannot be read"),
    "a last line that is being written": (f'{ROW}{{"step": 4, "tr', 1, None),
    "brackets without end": (f"{'[' * 100_000}\n{ROW}", 1, "line 1 cannot be read; the other 1 rows are used"),
    "a number beyond all floats": (ROW + ROW.replace("0.5", "1" + "0" * 400), 1, None),
    "an empty line": (f"{ROW}\n{ROW}", 2, None),
    "values that are no numbers": (
        ROW + ROW.replace("0.5", '"x"') + ROW.replace("1.0", "null") + ROW.replace("0.5", "NaN"), 1, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("content, used, warning", DAMAGE.values(), ids=DAMAGE)
def test_of_a_damaged_file_the_readable_rows_are_used(tmp_path, content, used, warning):
    write_record(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(content.encode(errors="surrogateescape"))
    run = read_run(tmp_path, "run")
    assert len(run.curves["test"]) == used
    if warning is None:
        assert run.warnings == []
    else:
        [told] = run.warnings
        assert told.startswith(f"{tmp_path / 'metrics.jsonl'}: {warning}")


@pytest.mark.parametrize("name, content, told", [
    ("config.json", "{", "config.json cannot be read"),
    ("config.json", '{"config": 3}', "config.json names no config"),
    ("result.json", '{"top1": "high"}', "has no top1 that is a number from 0 to 1: the run counts as unfinished"),
    ("result.json", '{"top1": 85.65}', "result.json has no top1 that is a number from 0 to 1"),
    ("result.json", "[" * 100_000, "result.json cannot be read"),
    ("result.json", "[]", "result.json holds no JSON object"),
    ("trial.json", "no", "trial.json cannot be read"),
])  # fmt: skip
def test_other_damage_is_named_and_the_rest_is_read(tmp_path, name, content, told):
    write_run(tmp_path)
    (tmp_path / name).write_text(content)
    run = read_run(tmp_path, "run")
    assert len(run.warnings) == 1
    assert told in run.warnings[0]
    assert len(run.curves["test"]) == 4
    assert run.state == ("unfinished" if name == "result.json" else "done")


def test_what_a_runs_folder_is(tmp_path):
    assert not is_run(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')  # somebody else's
    assert not is_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not is_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert is_run(tmp_path)
    write_record(tmp_path / "run")
    assert is_run(tmp_path / "run")


def test_the_signature_changes_with_every_row(tmp_path):
    write_run(tmp_path)
    before = signature(tmp_path)
    assert signature(tmp_path) == before
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(ROW)
    assert signature(tmp_path) != before
