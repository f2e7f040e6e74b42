"""Implementations beside the reference: who is timed how often, who is the quickest, what is written.

The sides' processes and times are pretended.
"""

import json
import time
from typing import Any

import pytest

from convmixer_jax import benchmark
from convmixer_jax.benchmarks import speed
from convmixer_jax.benchmarks.operations import FAR, formatted, measure_operations, operations_table, write_choices
from convmixer_jax.benchmarks.ours import FixedBatch, build_step
from convmixer_jax.benchmarks.speed import Settings
from convmixer_jax.benchmarks.workers import UnavailableError
from convmixer_jax.errors import UserError
from convmixer_jax.ops import choice
from convmixer_jax.ops.choice import CHOICES, OPS
from tests.benchmarks.sides import small_config, squeezed
from tests.commands import DIGITS

WHERE = {"versions": {"jax": "1", "flax": "2", "python": "3"}, "devices": ["cpu"]}
# Seconds of a call by implementation, an update each; for bfloat16 half of them, but for the shifted products a tenth.
SECONDS = {"reference": 6.0, "channel_major": 0.5, "lax": 1.5, "lax_nchw": 1.6, "shifted": 0.6}


class Pretended:
    """Stands in for a Worker: the clock moves on by its seconds."""

    clock = 0.0
    made: list["Pretended"] = []  # noqa: RUF012

    def __init__(self, name, build, arguments, *, allocator, call_seconds):
        self.name, self.build, self.config, self.calls, self.images = name, build, arguments[0], 0, 6
        self.facts: dict[str, Any] = {}
        self.closed = False
        Pretended.made.append(self)

    def wait_until_ready(self, seconds):
        if self.name not in SECONDS:
            raise UnavailableError(f"not ready after {seconds:g} s")
        self.facts = {"platform": "cpu", "provenance": WHERE, "dtype": self.config.dtype}

    def call(self):
        self.calls += 1
        share = 1 if self.config.dtype == "float32" else 0.1 if self.name == "shifted" else 0.5
        Pretended.clock += SECONDS[self.name] * share

    def peaks(self):
        return {"host": 1, "device": None}

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def _pretended(monkeypatch):
    Pretended.clock, Pretended.made = 0.0, []
    monkeypatch.setattr(speed, "Worker", Pretended)
    monkeypatch.setattr(time, "perf_counter", lambda: Pretended.clock)
    yield
    assert all(worker.closed for worker in Pretended.made)


def measured(dtypes=("float32",), kernel_sizes=(3,)) -> dict[str, Any]:
    settings = Settings(3, 0.5, "default", FixedBatch(0, 0), None, (), 60.0)
    return measure_operations(small_config(), settings, dtypes, kernel_sizes)


def test_rows_that_are_far_behind_are_timed_once():
    rows = {row["name"]: row for row in measured()["rows"]}
    assert list(rows) == list(OPS)
    assert [row["milliseconds"] for name, row in rows.items() if name in SECONDS] == pytest.approx(
        [1000 * seconds for seconds in SECONDS.values()]
    )
    assert {name: row["ratio"] for name, row in rows.items() if name in SECONDS} == pytest.approx(
        {name: 6 / seconds for name, seconds in SECONDS.items()}
    )
    assert "cpu would interpret" in rows["pallas"]["note"]
    # One to see how far, one to warm up, three repetitions.
    assert {worker.name: worker.calls for worker in Pretended.made} == {
        name: 1 if seconds > FAR * 0.5 else 5 for name, seconds in SECONDS.items()
    }
    assert {worker.build for worker in Pretended.made} == {build_step}
    assert [worker.config.model.ops for worker in Pretended.made] == [worker.name for worker in Pretended.made]


def test_the_quickest_is_chosen_for_each_dtype_and_kernel_size():
    found = measured(("float32", "bfloat16"), (3, 9))
    json.dumps(found)
    assert found["choices"] == {
        "cpu": {
            "float32": {"3": "channel_major", "9": "channel_major"},
            "bfloat16": {"3": "shifted", "9": "shifted"},
        }
    }
    asked = [(worker.config.dtype, worker.config.model.kernel_size) for worker in Pretended.made]
    assert list(dict.fromkeys(asked)) == [("float32", 3), ("float32", 9), ("bfloat16", 3), ("bfloat16", 9)]
    lines = operations_table(found)
    assert len(lines) == 1 + 4 * len(OPS) + 1
    assert squeezed(lines[1]) == "float32 3 reference 6,000.0 6,000.0 - 6,000.0 1.00"
    assert squeezed(lines[2]) == "float32 3 channel_major 500.0 500.0 - 500.0 12.00 *"
    assert "pallas not measured: " in squeezed("\n".join(lines))
    assert lines[-1].startswith("an update of 6; ")


def test_a_reference_that_is_not_ready_in_time_is_left_out(monkeypatch):
    monkeypatch.delitem(SECONDS, "reference")
    found = measured()
    reference, ours, *_ = found["rows"]
    assert reference["note"] == "not ready after 60 s"
    assert ours["ratio"] is None
    assert squeezed(operations_table(found)[2]).endswith(" - *")
    assert found["choices"]["cpu"]["float32"] == {"3": "channel_major"}


def test_nothing_that_is_ready_is_a_mistake(monkeypatch):
    for name in list(SECONDS):
        monkeypatch.delitem(SECONDS, name)
    with pytest.raises(UserError, match="no implementation could be measured; the first: not ready after 60 s"):
        measured()


def test_the_table_in_the_package_is_as_it_would_be_written():
    assert formatted(json.loads(CHOICES.read_text())) == CHOICES.read_text()


def test_what_was_not_measured_stays(tmp_path):
    before = {
        "note": "a note",
        "choices": {
            "gpu": {"bfloat16": {"9": "pallas"}},
            "cpu": {"bfloat16": {"3": "lax"}, "float32": {"11": "lax", "3": "lax"}},
        },
    }
    path = tmp_path / "choices.json"
    path.write_text(json.dumps(before))
    write_choices(measured(kernel_sizes=(3, 9)), path)
    text = path.read_text()
    table = json.loads(text)
    assert (table["note"], table["choices"]["gpu"]) == ("a note", before["choices"]["gpu"])
    assert table["choices"]["cpu"] == {
        "float32": {"3": "channel_major", "9": "channel_major", "11": "lax"},
        "bfloat16": {"3": "lax"},
    }
    assert [line.strip() for line in text.splitlines() if "float" in line] == [
        '"float32": {"3": "channel_major", "9": "channel_major", "11": "lax"},',
        '"bfloat16": {"3": "lax"}',
        '"bfloat16": {"9": "pallas"}',
    ]
    with pytest.raises(UserError, match=r"^--write: .* could not be written \(No such file or directory\)"):
        write_choices(measured(), tmp_path / "none" / "choices.json")


def test_the_command_writes_only_when_asked(tmp_path, capsys, elsewhere, monkeypatch):
    path = tmp_path / "choices.json"
    path.write_text(json.dumps({"note": "", "choices": {}}))
    monkeypatch.setattr(choice, "CHOICES", path)
    command = ["ops", *DIGITS, "--dtype", "float32", "--kernel_size", "5", "--json"]
    assert benchmark.main(command) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert len(table) == 1 + len(OPS) + 1
    assert json.loads(last)["choices"] == {"cpu": {"float32": {"5": "channel_major"}}}
    assert json.loads(path.read_text())["choices"] == {}
    assert benchmark.main([*command, "--write"]) == 0
    assert json.loads(path.read_text())["choices"] == {"cpu": {"float32": {"5": "channel_major"}}}
