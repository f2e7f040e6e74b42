"""The command: what it writes and says, how it follows, and how mistakes are told."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from convmixer_jax import report
from convmixer_jax.errors import ExitCode
from tests.reporting.made_up import rows_of, write_record, write_rows, write_run, write_study

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def start_nothing(monkeypatch):
    """JAX has been started, and a test's compilations are kept elsewhere."""
    monkeypatch.setattr(report, "start_jax", lambda compilation_cache: None)


def test_a_report_is_two_files_and_their_figures_and_the_runs_stay_as_they_are(tmp_path, capsys):
    write_study(tmp_path / "study")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*")}
    out = tmp_path / "below/report"
    assert report.main([str(tmp_path / "study"), "--out", str(out)]) == ExitCode.DONE
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(out / "report.md"), str(out / "report.html")]
    assert told.err == ""
    assert {path.name for path in out.iterdir()} == {"report.md", "report.html", "figures"}
    assert "82.00" in (out / "report.md").read_text()
    assert "<td" in (out / "report.html").read_text()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*")} == before


def test_damage_is_told_on_stderr_and_in_the_report(tmp_path, capsys):
    run = write_run(tmp_path / "runs/a")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"torn\n')
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path)]) == ExitCode.DONE
    [told] = capsys.readouterr().err.splitlines()
    assert told == f"warning: {run / 'metrics.jsonl'}: line 9 cannot be read; the other 8 rows are used"
    assert told.removeprefix("warning: ") in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("arguments, told", [
    (["empty", "--out", "out"], "empty holds no run and no study: name folders of runs, or train first"),
    (["none", "--out", "out"], "none is no folder"),
    (["runs", "empty", "--out", "out"], "empty holds no run"),
    (["runs"], "--out"),
    (["--out", "out"], "RUNS_OR_STUDY"),
    (["runs", "--out", "file/below"], "--out file/below cannot be written"),
    (["runs", "--out", "taken"], "--out taken: taken/figures cannot be written (File exists): free its place"),
    (["gs://bucket/runs", "--out", "out"], "RUNS_OR_STUDY gs://bucket/runs: a path is needed"),
    (["runs", "--out", "out", "--open", "maybe"], "maybe"),
    (["empty", "--out", "out", "--follow"], "empty holds no run"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs/a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/figures").touch()
    assert report.main(arguments) == ExitCode.USER_MISTAKE
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("choice, display, terminal, opens", [
    ("yes", "", False, True), ("no", ":0", True, False),
    ("auto", ":0", True, True), ("auto", "", True, False), ("auto", ":0", False, False),
])  # fmt: skip
def test_a_browser_is_opened_where_somebody_sees_it(tmp_path, monkeypatch, choice, display, terminal, opens):
    shown, written, write = [], [], report.write

    def write_and_count(*arguments):
        written.append(arguments)
        write(*arguments)

    monkeypatch.setattr(report, "write", write_and_count)
    monkeypatch.setattr(report.webbrowser, "open", shown.append)
    monkeypatch.setattr(report.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(report.sys.stdout, "isatty", lambda: terminal, raising=False)
    write_record(tmp_path / "run")
    assert report.main([str(tmp_path / "run"), "--out", str(tmp_path), "--open", choice]) == ExitCode.DONE
    assert shown == ([(tmp_path / "report.html").as_uri()] if opens else [])
    assert len(written) == 1


class Follower:
    """Counts what is written while a report is followed; each look is told to `looked`, which may stop it."""

    def __init__(self, monkeypatch, looked):
        self.stop = SimpleNamespace(requested=False)
        self.written: list[int | None] = []
        self.warned: set[str] = set()
        monkeypatch.setattr(report, "LOOK_SECONDS", 0.0)
        monkeypatch.setattr(report, "write", self.write)
        import convmixer_jax.reporting.collection as collection

        real, self.looks = collection.signatures, 0

        def signatures(places):
            self.looks += 1
            looked(self)
            return real(places)

        monkeypatch.setattr(collection, "signatures", signatures)

    def write(self, reporter, places, out, reload_seconds, known):
        self.written.append(reload_seconds)

    def run(self, *places):
        report.follow(None, list(places), Path("out"), self.warned, self.stop)


def test_it_is_written_anew_when_there_is_something_new(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run")

    def looked(follower):
        if follower.looks == 3:
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(rows_of(0.9, 1)[0]) + "\n")
        if follower.looks == 5:
            write_run(tmp_path / "another")
        follower.stop.requested = follower.looks == 7

    follower = Follower(monkeypatch, looked)
    follower.run(tmp_path)
    # At first, after each change, and at last as a page that does not reload itself.
    assert follower.written == [5, 5, 5, None]
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told] == ["following", "written anew", "written anew"]


def test_following_outlives_a_folder_that_is_gone_for_a_moment(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "runs/a")

    def looked(follower):
        if follower.looks == 2:
            run.rename(tmp_path / "away")
        if follower.looks == 4:
            (tmp_path / "away").rename(run)
        follower.stop.requested = follower.looks == 6

    follower = Follower(monkeypatch, looked)
    follower.run(tmp_path / "runs")
    assert follower.written == [5, None]
    assert [line for line in capsys.readouterr().err.splitlines() if "warning" in line] == [
        f"warning: {tmp_path / 'runs'} holds no run and no study: name folders of runs, or train first"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_following_with_success(tmp_path, number):
    write_record(tmp_path / "run")
    write_rows(tmp_path / "run", rows_of(0.9, 4)[:2])
    command = [sys.executable, "-m", "convmixer_jax.report", "run", "--out", "out", "--follow", "--open", "no"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr))
    reader.start()
    page = tmp_path / "out/report.html"
    wait_for(lambda: page.exists() and "epoch 1 of 4" in page.read_text())
    assert '<meta http-equiv="refresh"' in page.read_text()
    write_rows(tmp_path / "run", rows_of(0.9, 4)[:4])
    wait_for(lambda: "epoch 2 of 4" in page.read_text())
    process.send_signal(number)
    assert process.wait(60) == 0
    reader.join()
    assert '<meta http-equiv="refresh"' not in page.read_text()
    assert lines[-1] == f"{number.name} received: the report is up to date\n"


def wait_for(arrived) -> None:
    deadline = time.monotonic() + 120
    while not arrived():
        assert time.monotonic() < deadline
        time.sleep(0.2)
