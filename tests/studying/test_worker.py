"""A worker of a study, in this process, with a stand-in for main."""

import json
import os
import signal
import threading
import time

import pytest

from convmixer_jax import sweep
from convmixer_jax.studying import worker
from tests.studying.conftest import GRID, search


@pytest.fixture
def run(study_file, stand_in, monkeypatch, capsys, tmp_path):
    """Returns a function of a study's arguments, and of what its runs do by seed, to (exit code, out, err)."""
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(worker, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.3)

    def run_one(arguments: str, *flags: str, seeds=None):
        monkeypatch.setenv("SEEDS", json.dumps(seeds or {}))
        code = sweep.main(["--study", str(study_file(arguments)), "--dir", str(tmp_path / "study"), *flags])
        return (int(code), *capsys.readouterr())

    return run_one


def starts(tmp_path) -> dict[str, int]:
    """How often each run was begun."""
    found = {}
    for path in sorted((tmp_path / "study").glob("*/*/starts.txt")):
        found[f"{path.parts[-3]} {path.parts[-2]}"] = len(path.read_text().splitlines())
    return found


ALL = {f"kernel_size={k} seed-{seed}": 1 for k in (3, 5) for seed in (0, 1)}


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_all_runs_are_made_once_and_told(run, jobs, tmp_path):
    code, out, err = run(GRID, "--jobs", jobs, seeds={"0": {"top1": 0.9}, "1": {"top1": 0.8}})
    assert code == 0
    lines = err.splitlines()
    assert lines[0].startswith(f"Kernels: 4 runs wait, {jobs} at once; each has its folder in ")
    assert [line.split(":")[0] for line in lines[1:]] == ["1/4", "2/4", "3/4", "4/4"]
    assert sorted(line.split(": ", 1)[1].split(" [")[0] for line in lines[1:]) == [
        f"kernel_size={k} seed {seed}: test top1 {top1}"
        for k in (3, 5)
        for seed, top1 in ((0, "0.9000"), (1, "0.8000"))
    ]
    assert lines[4].endswith("s; 0:00:00 left]")
    assert out == f"tiny: 4 runs are done; all of it is in {tmp_path / 'study'}\n"
    assert starts(tmp_path) == ALL
    # Once more, and for one more seed.
    assert run(GRID)[0] == 0
    assert starts(tmp_path) == ALL
    assert run(GRID, "--seeds=0,2")[0] == 0
    assert starts(tmp_path) == ALL | {f"kernel_size={k} seed-2": 1 for k in (3, 5)}


def test_a_failure_is_kept_told_and_tried_again_by_the_same_command(run, tmp_path):
    code, out, err = run(GRID, seeds={"1": {"code": 2}})
    assert code == 1
    assert "4/4: kernel_size=5 seed 1: failed: ended with code 2: error: it went wrong [" in err
    assert out.splitlines()[-1] == (
        "2 failed: kernel_size=3 seed 1, kernel_size=5 seed 1; the same command tries them again"
    )
    record = tmp_path / "study/kernel_size=3/seed-1/trial.json"
    assert json.loads(record.read_text()) == {
        "state": "failed",
        "why": "ended with code 2: error: it went wrong",
        "points": [],
    }
    assert run(GRID)[0] == 0
    assert not record.exists()
    assert starts(tmp_path) == ALL | {f"kernel_size={k} seed-1": 2 for k in (3, 5)}


def test_a_signal_stops_the_runs_and_the_same_command_goes_on(run, tmp_path):
    def interrupt():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(list((tmp_path / "study").glob("*/*/saved"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, _, err = run(GRID, "--jobs=2", seeds={"0": {"seconds": 0.2}})
    thread.join()
    assert code == 75
    lines = err.splitlines()
    assert lines[-2] == "SIGTERM received: 2 runs save and stop"
    assert lines[-1].startswith("stopped: 2 runs wait in ")
    saved = [int(path.read_text()) for path in sorted((tmp_path / "study").glob("*/seed-0/saved"))]
    assert all(0 < step < 5 for step in saved)
    assert not list((tmp_path / "study").glob("*/*/trial.json"))
    code, _, err = run(GRID, "--jobs=2")
    assert (code, err.splitlines()[0].split(":")[1].split(",")[0]) == (0, " 4 runs wait")
    assert starts(tmp_path) == ALL | {f"kernel_size={k} seed-0": 2 for k in (3, 5)}
    for k, step in zip((3, 5), saved, strict=True):
        text = (tmp_path / f"study/kernel_size={k}/seed-0/starts.txt").read_text()
        assert text.splitlines()[1].endswith(f"from {step}")


def test_the_hopeless_are_stopped_and_say_why(run, tmp_path):
    """ASHA keeps one of three at the first rung: what the second seed shows is worse than the first one's."""
    arguments = (
        "axes={'model.kernel_size': (3,)}, pruner='asha', settings={'val_fraction': 0.1, 'epochs': 5}, seeds=(0, 1)"
    )
    good, bad = {"curve": [0.5, 0.6, 0.7, 0.8, 0.9]}, {"curve": [0.1] * 5, "seconds": 0.5}
    code, _, err = run(arguments, seeds={"0": good, "1": bad})
    assert code == 0
    why = "asha: val top1 0.1000 at step 1 is not among the best so far"
    assert f"2/2: kernel_size=3 seed 1: pruned ({why}) [" in err
    record = json.loads((tmp_path / "study/kernel_size=3/seed-1/trial.json").read_text())
    assert (record["state"], record["why"], record["points"][0]) == ("pruned", why, [1, 0.1])
    assert len(record["points"]) < 5
    assert not (tmp_path / "study/kernel_size=3/seed-1/result.json").exists()
    # A pruned run is done.
    assert run(arguments)[0] == 0
    assert starts(tmp_path) == {"kernel_size=3 seed-0": 1, "kernel_size=3 seed-1": 1}


def test_a_search_is_judged_by_the_validation_split(run, tmp_path):
    import optuna

    code, out, _ = run(search(seeds="(0, 1)"), "--jobs=2", seeds={"0": {"curve": [0.25] * 5, "top1": 0.75}})
    assert code == 0
    assert len(starts(tmp_path)) == 6
    assert out.startswith("tiny: 6 runs are done; all of it is in ")
    (study,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'study/study.db'}")
    trials = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'study/study.db'}").trials
    assert study.study_name == "study"
    assert sorted((trial.user_attrs["seed"], trial.value) for trial in trials) == [(0, 0.25)] * 3 + [(1, 0.5)] * 3
    assert {field for trial in trials for field in trial.params} == {"model.dim", "schedule.learning_rate"}


def test_a_storage_that_is_lost_stops_the_runs(run, tmp_path):
    def lose():
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not list((tmp_path / "study").glob("*/*/saved")):
            time.sleep(0.02)
        (tmp_path / "study/study.db").write_bytes(b"not any more")

    thread = threading.Thread(target=lose)
    thread.start()
    code, _, err = run(GRID, seeds={"0": {"seconds": 1.0}})
    thread.join()
    assert code == 76
    assert "study.db: file is not a database" in err.splitlines()[-1]
    # The run has saved before its end, as for any signal.
    saved = tmp_path / "study/kernel_size=3/seed-0/saved"
    step = int(saved.read_text())
    time.sleep(1.5)
    assert int(saved.read_text()) == step < 5
