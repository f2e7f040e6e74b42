"""Rows go to Weights & Biases where that is asked for; the package is not there in tests, a stand-in is."""

import json
import sys
from types import SimpleNamespace

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.runs.metrics_log import MetricsLog


class Service:
    """What our side sees of the package, and what came to it: rows by run. broken: what fails."""

    class Error(Exception):
        pass

    def __init__(self):
        self.runs: dict[str, list] = {}
        self.asked: list[dict] = []
        self.finished = 0
        self.broken = ""

    def init(self, **asked):
        if self.broken == "init":
            raise self.Error("no API key\nwas found")
        self.asked.append(asked)
        rows = self.runs.setdefault(asked["id"], [])

        def log(numbers, step):
            if self.broken == "log":
                raise self.Error("the network is down")
            rows.append((step, numbers))

        def finish():
            self.finished += 1

        return SimpleNamespace(log=log, finish=finish)


@pytest.fixture
def service(monkeypatch):
    made = Service()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def test_without_a_project_the_package_is_not_even_looked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    MetricsLog(tmp_path, after_step=0).close()
    assert not (tmp_path / "wandb.json").exists()


def test_numbers_are_sent_with_the_tags_of_the_curves(tmp_path, service):
    (tmp_path / "config.json").write_text('{"config": {"epochs": 3}}')
    log = MetricsLog(tmp_path, after_step=0, wandb_project="mixers")
    log.write({"step": 4, "epoch": 0.5, "train/loss": 0.25})
    log.write({"step": 8, "epoch": 1.0, "eval/split": "val", "eval/top1": 0.5})
    log.close()
    [asked], [rows] = service.asked, service.runs.values()
    assert rows == [(4, {"epoch": 0.5, "train/loss": 0.25}), (8, {"epoch": 1.0, "eval/val/top1": 0.5})]
    assert {name: asked[name] for name in ("project", "name", "dir", "config", "resume")} == {
        "project": "mixers", "name": tmp_path.name, "dir": str(tmp_path), "config": {"epochs": 3}, "resume": "allow",
    }  # fmt: skip
    assert service.finished == 1


def test_a_restart_goes_on_with_the_run_and_another_project_gets_all_rows(tmp_path, service):
    for after_step, step, project in ((0, 4, "mixers"), (4, 8, "mixers"), (8, 12, "others")):
        log = MetricsLog(tmp_path, after_step, project)
        log.write({"step": step, "train/loss": 1.0})
        log.close()
    first, again, other = (asked["id"] for asked in service.asked)
    assert first == again != other
    assert [step for step, _ in service.runs[first]] == [4, 8]
    assert [step for step, _ in service.runs[other]] == [4, 8, 12]
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": other, "project": "others"}


def test_a_missing_package_is_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (tmp_path / "metrics.jsonl").write_text('{"step": 9}\n')
    with pytest.raises(UserError, match=r"config.wandb_project is 'mixers', but the package wandb .*pip install wandb"):
        MetricsLog(tmp_path, after_step=0, wandb_project="mixers")
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 9}\n'  # nothing was rewound


def test_a_service_that_refuses_is_told_in_one_line(tmp_path, service):
    service.broken = "init"
    with pytest.raises(UserError, match=r"\(no API key was found\): `wandb login`, or WANDB_MODE=offline"):
        MetricsLog(tmp_path, after_step=0, wandb_project="mixers")
    assert not (tmp_path / "wandb.json").exists()


def test_trouble_on_the_way_stops_no_run(tmp_path, service, capsys):
    log = MetricsLog(tmp_path, after_step=0, wandb_project="mixers")
    service.broken = "log"
    log.write({"step": 1, "train/loss": 1.0})
    service.broken = ""
    log.write({"step": 2, "train/loss": 1.0})
    log.close()
    assert list(service.runs.values()) == [[]]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Weights & Biases fails (the network is down): the run goes on" in told
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
