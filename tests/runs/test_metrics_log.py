"""metrics.jsonl loses no row, repeats none after a restart, and the curves are made from it."""

import errno
import json
import types
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

from convmixer_jax.runs.metrics_log import MetricsLog, parse_row, rewind


def rows_of(workdir: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def curves(workdir: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point of the newest events, by TensorBoard's reader of records that needs no TensorFlow."""
    [path] = (workdir / "tensorboard").iterdir()
    points: dict[str, list[tuple[int, float]]] = {}
    reader = PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except Exception:  # the end of the file
            return points
        event = Event.FromString(reader.record())
        for value in event.summary.value:
            if value.HasField("simple_value"):
                points.setdefault(value.tag, []).append((event.step, value.simple_value))


def write(workdir: Path, *steps: int, after_step: int = 0) -> None:
    log = MetricsLog(workdir, after_step)
    for step in steps:
        log.write({"step": step, "epoch": step / 4, "train/loss": 1 / step})
    log.close()


def test_a_row_is_a_line_and_a_point_of_each_curve(tmp_path):
    log = MetricsLog(tmp_path, after_step=0)
    log.write({"step": 4, "epoch": 0.5, "train/loss": 0.25})
    assert rows_of(tmp_path) == [{"step": 4, "epoch": 0.5, "train/loss": 0.25}]  # readable while the run goes on
    log.write({"step": 8, "epoch": 1.0, "eval/split": "val", "eval/n": 10, "eval/top1": 0.5})
    log.write({"step": 8, "epoch": 1.0, "eval/split": "test", "eval/n": 20, "eval/top1": 0.75})
    log.flush()
    assert curves(tmp_path) == {
        "epoch": [(4, 0.5), (8, 1.0), (8, 1.0)],
        "train/loss": [(4, 0.25)],
        "eval/val/n": [(8, 10)],
        "eval/val/top1": [(8, 0.5)],
        "eval/test/n": [(8, 20)],
        "eval/test/top1": [(8, 0.75)],
    }
    log.close()
    assert rows_of(tmp_path)[1] == {"step": 8, "epoch": 1.0, "eval/split": "val", "eval/n": 10, "eval/top1": 0.5}


def test_nan_is_null(tmp_path):
    log = MetricsLog(tmp_path, after_step=0)
    log.write({"step": 1, "train/loss": float("nan"), "norm/grad": float("inf")})
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "train/loss": null, "norm/grad": null}\n'
    write(tmp_path, after_step=1)  # and null is no point of a curve
    assert curves(tmp_path) == {}


def test_a_restart_goes_on_after_its_checkpoint(tmp_path):
    write(tmp_path, 1, 2, 3)
    write(tmp_path, 3, 4, after_step=2)
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4]
    assert [row["step"] for row in rows_of(tmp_path, "metrics.discarded.jsonl")] == [3]
    # One file of events, with every point once.
    assert curves(tmp_path)["train/loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]


def test_a_restart_that_loses_nothing_discards_nothing(tmp_path):
    write(tmp_path, 1, 2)
    before = (tmp_path / "metrics.jsonl").stat()
    assert [row["step"] for row in rewind(tmp_path, 2)] == [1, 2]
    after = (tmp_path / "metrics.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert not (tmp_path / "metrics.discarded.jsonl").exists()


def test_a_fresh_workdir_has_nothing_to_rewind(tmp_path):
    assert rewind(tmp_path, 0) == []
    assert list(tmp_path.iterdir()) == []


# (what a crash left in metrics.jsonl, steps that stay after a rewind to 5, lines of the discarded file)
LEFT = {
    "torn last line": ('{"step": 1}\n{"step": 2}\n{"st', [1, 2], []),
    "torn last line of an earlier crash": ('{"step": 1}\n{"st\n{"step": 2}\n', [1, 2], ['{"st']),
    "whole row without its line break": ('{"step": 1}\n{"step": 2}', [1, 2], []),
    "row after the step": ('{"step": 1}\n{"step": 6}\n{"step": 9}\n', [1], ['{"step": 6}', '{"step": 9}']),
    "row at the step": ('{"step": 5}\n{"step": 5}\n{"step": 6}\n', [5, 5], ['{"step": 6}']),
    "both": ('{"step": 1}\n{"step": 6}\n{"step": 7, "tra', [1], ['{"step": 6}']),
    "not a row": ('[1]\n{"step": 1}\n{"loss": 1}\n{"step": 2}\n', [1, 2], ["[1]", '{"loss": 1}']),
    "zeros after a power cut": ('{"step": 1}\n' + "\0" * 50, [1], []),
    "nothing": ("", [], []),
}


@pytest.mark.parametrize("text, kept, discarded", LEFT.values(), ids=LEFT)
def test_what_a_crash_left(tmp_path, text, kept, discarded):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    assert [row["step"] for row in rewind(tmp_path, 5)] == kept
    assert [row["step"] for row in rows_of(tmp_path)] == kept
    found = tmp_path / "metrics.discarded.jsonl"
    assert (found.read_text().splitlines() if found.exists() else []) == discarded
    # The next row has a line of its own.
    write(tmp_path, 6, after_step=5)
    assert [row["step"] for row in rows_of(tmp_path)] == [*kept, 6]


def test_bytes_that_are_no_text_stop_no_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2, "\xff\xfe')
    write(tmp_path, 2, after_step=1)
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2]


def test_discarded_rows_gather(tmp_path):
    write(tmp_path, 1, 2, 3)
    write(tmp_path, 2, 3, after_step=1)
    write(tmp_path, 2, after_step=1)
    assert [row["step"] for row in rows_of(tmp_path, "metrics.discarded.jsonl")] == [2, 3, 2, 3]
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2]


def test_rows_are_those_with_a_step():
    assert parse_row('{"step": 3, "x": null}') == {"step": 3, "x": None}
    assert [parse_row(line) for line in ("", "{", "3", "[]", "{}", '{"step": "3"}', '{"step": 1.5}')] == [None] * 7


def test_a_picture_is_in_the_events(tmp_path):
    log = MetricsLog(tmp_path, after_step=0)
    log.write_image("train/augmented", np.zeros((2, 3, 3), np.uint8), 0)
    log.close()
    [path] = (tmp_path / "tensorboard").iterdir()
    assert b"train/augmented" in path.read_bytes()
    assert b"\x89PNG" in path.read_bytes()


def test_a_full_disk_loses_no_row_and_stops_no_run(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    log = MetricsLog(tmp_path, after_step=0)
    log.write({"step": 1})
    with monkeypatch.context() as patch:
        lines = log._lines
        methods = {name: getattr(lines._file, name) for name in ("fileno", "truncate")}
        patch.setattr(lines, "_file", types.SimpleNamespace(write=full, **methods))
        patch.setattr(log._events, "flush", full)
        log.write({"step": 2})
        log.flush()
    assert rows_of(tmp_path) == [{"step": 1}]
    log.write({"step": 3})
    assert rows_of(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3}]
    monkeypatch.setattr(log._events, "close", full)
    log.close()
