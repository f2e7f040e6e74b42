"""Every second of a run is in one category, over restarts; the tests write ledgers as of a clock that they choose."""

import json
from pathlib import Path

import pytest

from convmixer_jax.runs import ledger
from convmixer_jax.runs.ledger import CATEGORIES, Ledger, add_up, ledger_path, read_run, read_starts


def line(what: str, time: float, done: int | None = None, **seconds: float) -> str:
    named = {name.replace("_", "-"): value for name, value in seconds.items()}
    return json.dumps({"what": what, "time": time, "step": done, "seconds": named}) + "\n"


# Starts at 1000 and is killed after its report of update 80, at 1110; its last checkpoint is that of 50.
KILLED = [
    line("start", 1000),
    line("ready", 1020, 0, start_up=8, compile=12),
    line("report", 1050, 40, step=28, input=2),
    line("save", 1060, 50, step=8, save=2),
    line("evaluation", 1080, 60, step=10, evaluation=10),
    line("report", 1110, 80, step=20, input=8),
]
# Goes on at 1200.
RESUMED = [
    line("start", 1200),
    line("ready", 1210, 50, start_up=10),
    line("report", 1260, 100, step=50),
    line("end", 1261, None),
]


def written(folder: Path, lines: list[str], process: int = 0) -> Path:
    path = ledger_path(folder, process)
    path.write_text("".join(lines))
    return path


def test_an_undisturbed_start(tmp_path):
    account = add_up(read_starts(written(tmp_path, RESUMED)))
    assert (account.starts, account.wall, account.updates, account.lost_updates) == (1, 61, 100, 0)
    assert {name: value for name, value in account.seconds.items() if value} == {"start-up": 10, "step": 50, "other": 1}
    assert account.goodput == pytest.approx(50 / 61)


def test_what_a_kill_cost(tmp_path):
    """Of updates 51 to 80 the first ten took 10 s and an evaluation 10, the others 20 and 8 of waiting."""
    account = add_up(read_starts(written(tmp_path, KILLED + RESUMED)))
    assert (account.starts, account.wall, account.updates, account.lost_updates) == (2, 261, 100, 30)
    assert account.seconds == {
        **dict.fromkeys(CATEGORIES, 0.0),
        **{"step": 28 + 8 + 50, "input": 2, "save": 2, "compile": 12, "start-up": 18},
        **{"lost work": 10 + 10 + 20 + 8, "downtime": 90, "other": 2 + 1},
    }
    assert sum(account.seconds.values()) == account.wall


def test_of_a_line_that_reaches_past_the_checkpoint_a_part_is_lost(tmp_path):
    lines = [line("start", 0), line("ready", 0, 0), line("report", 40, 40, step=40), line("start", 40)]
    account = add_up(read_starts(written(tmp_path, [*lines, line("ready", 40, 30), line("end", 40, 30)])))
    assert (account.seconds["step"], account.seconds["lost work"], account.lost_updates) == (30, 10, 10)


def test_a_start_that_never_got_ready_counts_as_time_gone(tmp_path):
    lines = [*KILLED, line("start", 1150), *RESUMED]
    account = add_up(read_starts(written(tmp_path, lines)))
    assert (account.starts, account.lost_updates, account.seconds["downtime"]) == (3, 30, 90)


FOREIGN = (
    '{"what": "report", "time": 11',
    "[1]",
    '{"what": "report", "time": 1115, "step": "a", "seconds": {}}',
    '{"what": "report", "time": 1115, "step": 90, "seconds": {"step": "b"}}',
    '{"what": "report", "time": 1115, "step": 90, "seconds": []}',
    '{"what": "start", "time": NaN, "step": null, "seconds": {}}',
    '{"what": "start", "time": 1e999, "step": null, "seconds": {}}',
)


def test_torn_and_foreign_lines_are_left_out(tmp_path):
    path = written(tmp_path, [*KILLED, *(f"{each}\n" for each in FOREIGN), *RESUMED, '{"wh'])
    assert len(read_starts(path)) == 2
    assert add_up(read_starts(path)).lost_updates == 30


def test_a_folder_is_no_ledger(tmp_path):
    ledger_path(tmp_path, 0).mkdir()
    assert read_run(tmp_path) == {}


def test_what_is_written_is_what_is_read(tmp_path, monkeypatch):
    moments = iter([1010.0, 1020.0, 1030.0, 1040.0])
    monkeypatch.setattr(ledger.time, "time", lambda: next(moments))
    path = written(tmp_path, ['{"torn'])
    with Ledger(tmp_path, 0, began=1000.0) as written_by_us:
        written_by_us.ready(0, {"start-up": 10.0})
        written_by_us.note("report", 5, {"step": 8.0, "input": 1.0})
        written_by_us.note("evaluation", 5, {"step": 8.0, "input": 1.0, "evaluation": 9.5})
    assert path.read_text().splitlines()[0] == '{"torn'
    account = add_up(read_starts(path))
    expected = {"start-up": 10.0, "step": 8.0, "input": 1.0, "evaluation": 9.5, "other": 11.5}
    assert {name: value for name, value in account.seconds.items() if value} == expected
    assert (account.wall, account.updates) == (40.0, 5)


def test_each_process_has_a_ledger(tmp_path):
    written(tmp_path, RESUMED)
    written(tmp_path, KILLED, process=3)
    assert {number: account.wall for number, account in read_run(tmp_path).items()} == {0: 61, 3: 110}
    assert read_run(tmp_path / "none") == {}
