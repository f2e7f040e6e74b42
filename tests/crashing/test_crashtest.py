"""The crash test itself: three trials that pass, and trials that must not."""

import json
import os

import numpy as np
import pytest

from convmixer_jax import crashtest
from convmixer_jax.crashing import campaign, trials
from convmixer_jax.crashing.campaign import Campaign, UndisturbedError, make_orders
from convmixer_jax.crashing.contents import Contents, differences
from convmixer_jax.crashing.faults import FAULTS
from convmixer_jax.crashing.setups import SETUPS
from convmixer_jax.crashing.table import make_table
from convmixer_jax.crashing.trials import Event, Order, Trial

ARRAYS = {"params/w": ("float32", (2,), np.array([1, 2], np.float32).tobytes()), "step": ("int32", (), b"\x04\0\0\0")}
ROWS = [{"step": 2, "train/loss": 1.5}, {"step": 4, "train/loss": 1.25}]
WANTED = Contents(4, ARRAYS, ROWS, {"top1": 0.5})


def test_three_trials_pass(tmp_path, capsys):
    """The trials that `make test` promises: one process and two, killed, stopped and damaged."""
    folder = tmp_path / "crashes"
    assert crashtest.main(["--trials=3", "--seed=303", "--jobs=2", f"--folder={folder}"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("3 of 3 trials passed")
    assert out.splitlines()[-1].endswith(f"; every event is in {folder / 'crashtest.json'}")
    assert err.count(": as if nothing had happened [") == 3
    record = json.loads((folder / "crashtest.json").read_text())
    assert (record["trials"], record["passed"], len(record["each"])) == (3, 3, 3)
    assert all(event["noticed"] for trial in record["each"] for event in trial["events"] if event["happened"])
    assert any(event["happened"] for trial in record["each"] for event in trial["events"])
    assert sorted(os.listdir(folder)) == [".cache", "crashtest.json", "undisturbed-alone", "undisturbed-pair"]


@pytest.mark.slow
def test_what_must_not_pass_does_not(tmp_path, capsys, monkeypatch):
    """One trial whose damage nobody finds, though it is there, and which is compared with another run."""
    compared = trials.differences

    def with_another(found: Contents, wanted: Contents) -> list[str]:
        name = "params/head/kernel"
        kind, shape, values = wanted.arrays[name]
        wanted.arrays[name] = kind, shape, bytes([values[0] ^ 1]) + values[1:]
        return compared(found, wanted)

    monkeypatch.setattr(trials, "damage", lambda checkpoints: {})
    monkeypatch.setattr(trials, "differences", with_another)
    monkeypatch.setattr(campaign, "make_orders", lambda trials, seed: [Order(0, seed, ("bit flip",), "alone")])
    assert crashtest.main(["--trials=1", f"--folder={tmp_path / 'crashes'}"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("0 of 1 trials passed; ")
    assert "start 1: not found: checkpoint " in err
    assert " arrays differ: params/head/kernel" in err
    # The damage was of the newest step or not; where it was, the run itself has found it.
    assert (tmp_path / "crashes/trial-0/run/checkpoints").is_dir()
    assert (tmp_path / "crashes/trial-0/start-2/process-0.txt").exists()


def test_the_undisturbed_run_must_be_one(tmp_path, monkeypatch):
    monkeypatch.setattr("convmixer_jax.crashing.starts.command", lambda *_: ["false"])
    with pytest.raises(UndisturbedError, match="ended with \\[1\\]"):
        Campaign(1, 0, 1, tmp_path).run(print)


def test_every_kind_of_fault_comes_first_in_turn():
    orders = make_orders(3 * 2 * len(FAULTS), seed=0)
    for setup in SETUPS:
        mine = [order for order in orders if order.setup == setup]
        kinds = {name for name, fault in FAULTS.items() if setup in fault.setups}
        assert {order.kinds[0] for order in mine[: len(kinds)]} == kinds
        assert all(set(order.kinds) <= kinds and 1 <= len(order.kinds) <= 3 for order in mine)
    assert orders == make_orders(len(orders), seed=0)
    assert orders != make_orders(len(orders), seed=1)
    assert {order.setup for order in orders[:3]} == set(SETUPS)


def changed(**fields) -> Contents:
    return Contents(**{**vars(WANTED), **fields})


DIFFERENCES = {
    "a bit": (
        changed(arrays={**ARRAYS, "params/w": ("float32", (2,), b"\1" + ARRAYS["params/w"][2][1:])}),
        "1 of 2 arrays differ: params/w",
    ),
    "a dtype": (changed(arrays={**ARRAYS, "step": ("uint32", (), b"\4\0\0\0")}), "1 of 2 arrays differ: step"),
    "a missing array": (changed(arrays={"step": ARRAYS["step"]}), "1 of 2 arrays differ: params/w"),
    "a step": (changed(step=3), "the last checkpoint is 3, not 4"),
    "a metric": (changed(rows=[ROWS[0], {"step": 4, "train/loss": 1.2500000000000002}]), "metrics.jsonl differs: {"),
    "a missing row": (changed(rows=ROWS[:1]), "metrics.jsonl differs: 1 rows, not 2"),
    "a score": (changed(result={"top1": 0.25}), "result.json differs: "),
}


@pytest.mark.parametrize("found, told", DIFFERENCES.values(), ids=DIFFERENCES)
def test_every_difference_is_told(found, told):
    (problem,) = differences(found, WANTED)
    assert problem.startswith(told)
    assert differences(WANTED, WANTED) == []


def test_the_table():
    def event(kind, *, codes, lost=None, happened=True):
        return Event(1, kind, "now", happened, codes, 1.25 if happened else None, noticed=happened, lost=lost)

    made = [
        Trial(Order(0, 0, ("SIGKILL",), "alone"), [event("SIGKILL", codes=[-9], lost=6), event("SIGINT", codes=[75])]),
        Trial(Order(1, 0, ("SIGKILL",), "pair"), [event("SIGKILL", codes=[76, -9], lost=2)], ["start 1: wrong"]),
        Trial(Order(2, 0, ("stuck",), "pair"), [event("stuck", codes=[0, 0], happened=False)]),
    ]
    lines = [line.split("  ") for line in make_table(made).splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[1] == ["SIGINT", "1", "1", "1 of 1", "75", "1.2, 1.2", "-"]
    assert cells[2] == ["SIGKILL", "2", "2", "1 of 2", "-9 76", "1.2, 1.2", "4, 6"]
    assert len(cells) == 3


MISTAKES = {
    "trials": (["--trials=0"], "'0' is no positive whole number"),
    "only": (["--trials=3", "--only=3"], "--only is 3: with --trials 3 it must be 0 to 2"),
    "folder": (["--folder=."], "is not empty: name a new one"),
}


@pytest.mark.parametrize("arguments, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    assert crashtest.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
