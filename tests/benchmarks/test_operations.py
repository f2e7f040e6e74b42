"""Implementations beside the reference: who is timed how often, who is the quickest, what is written.

The sides' processes and times are pretended.
"""

import json
from typing import Any

import pytest

from convmixer_jax import benchmark
from convmixer_jax.benchmarks.operations import FAR, formatted, measure_operations, operations_table, write_choices
from convmixer_jax.benchmarks.ours import FixedBatch, build_step
from convmixer_jax.benchmarks.speed import Settings
from convmixer_jax.benchmarks.workers import UnavailableError
from convmixer_jax.errors import UserError
from convmixer_jax.ops import choice
from convmixer_jax.ops.choice import CHOICES, OPS
from convmixer_jax.ops.native import layout as native_layout
from tests.benchmarks.sides import Pretended, pretending, small_config, squeezed
from tests.commands import DIGITS

WHERE = {"versions": {"jax": "1", "flax": "2", "python": "3"}, "devices": ["cpu"]}
# Seconds of a call by implementation, an update each; for bfloat16 half of them, but for the shifted products a tenth.
SECONDS: dict[str, float | None] = {
    "reference": 6.0,
    "channel_major": 0.5,
    "native": 0.7,
    "lax": 1.5,
    "lax_nchw": 1.6,
    "shifted": 0.6,
}


class OfTable(Pretended):
    """Takes the seconds of its row of SECONDS for an update of six."""

    def behaviour(self):
        dtype = self.arguments[0].dtype
        if self.name not in SECONDS:
            return None
        share = 1 if dtype == "float32" else 0.1 if self.name == "shifted" else 0.5
        seconds = SECONDS[self.name]
        return seconds and seconds * share, 6, {"platform": "cpu", "provenance": WHERE, "dtype": dtype}


@pytest.fixture(autouse=True)
def _pretended(monkeypatch):
    monkeypatch.setattr(native_layout, "lacking", lambda: None)  # with or without a compiler
    with pretending(monkeypatch, OfTable):
        yield


def measured(dtypes=("float32",), kernel_sizes=(3,)) -> dict[str, Any]:
    settings = Settings(3, 0.5, "default", FixedBatch(0, 0), None, (), 60)
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
    assert [worker.arguments[0].model.ops for worker in Pretended.made] == [worker.name for worker in Pretended.made]


def test_the_quickest_is_chosen_for_each_dtype_and_kernel_size():
    found = measured(("float32", "bfloat16"), (3, 9))
    json.dumps(found)
    assert found["choices"] == {
        "cpu": {
            "float32": {"3": "channel_major", "9": "channel_major"},
            "bfloat16": {"3": "shifted", "9": "shifted"},
        }
    }
    configs = [worker.arguments[0] for worker in Pretended.made]
    asked = [(config.dtype, config.model.kernel_size) for config in configs]
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


def test_one_that_is_killed_by_its_first_call_is_left_out(monkeypatch):
    monkeypatch.setitem(SECONDS, "channel_major", None)
    found = measured()
    assert found["rows"][1]["note"] == "its process ended with code -9"
    assert found["choices"]["cpu"]["float32"] == {"3": "shifted"}


def test_nothing_that_is_ready_is_a_mistake(monkeypatch):
    for name in list(SECONDS):
        monkeypatch.delitem(SECONDS, name)
    with pytest.raises(UserError, match="no implementation could be measured; ") as told:
        measured(kernel_sizes=(3, 5))
    # Where nothing was ready the platform is not known, so that all were tried.
    assert str(told.value).endswith(f"measured; {', '.join(OPS)}: not ready after 60 s")


def test_every_reason_is_told_once(monkeypatch):
    def behave(self):
        raise UnavailableError("no memory" if self.name == "shifted" else "not ready")

    monkeypatch.setattr(OfTable, "behaviour", behave)
    with pytest.raises(UserError, match="; reference, channel_major, .*: not ready; shifted: no memory$"):
        measured(("float32", "bfloat16"))


def test_no_case_is_measured_where_one_is_a_mistake():
    # Patches of 4 make a map of 8 x 8 from 32 x 32 pixels, of which a kernel of 15 reaches all from a corner.
    with pytest.raises(UserError, match="config.model.kernel_size is 17: .* beyond a kernel of 15"):
        measured(kernel_sizes=(3, 17))
    with pytest.raises(UserError, match="config.dtype is 'float16'"):
        measured(("float32", "float16"))
    assert Pretended.made == []


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
