"""The command that publishes results: what it makes of runs, what it refuses; the README's table is its own."""

import gzip
import json
import re
from pathlib import Path

import pytest

from convmixer_jax.errors import ExitCode
from convmixer_jax.publishing.record import computing_seconds, read_records
from convmixer_jax.publishing.table import BEGIN, END, placed, table_lines
from convmixer_jax.reporting.workdirs import read_run
from convmixer_jax.results import main
from convmixer_jax.runs.pictures import load_picture
from tests.commands import ROOT
from tests.reporting.made_up import write_ledger, write_record, write_result, write_rows, write_run

PUBLISHED = ["--published", "92.60", "--source", "the authors' README"]


def made_runs(folder: Path, scores=(0.90, 0.93, 0.96)) -> list[str]:
    """Runs of seeds 5, 6, ... with these scores; the last one first, as a shell might name them."""
    for number, top1 in enumerate(scores):
        write_run(folder / f"run-{number}", seed=5 + number, top1=top1)
        write_ledger(folder / f"run-{number}", {"step": 18.0, "input": 2.0, "compile": 10.0, "start-up": 10.0 + number})
    return [str(folder / f"run-{number}") for number in reversed(range(len(scores)))]


def add(tmp_path: Path, *more: str, name: str = "small", runs: list[str] | None = None) -> ExitCode:
    return main(["add", name, *(runs or made_runs(tmp_path)), "--folder", str(tmp_path / "results"), *more])


def told(capsys, code: ExitCode) -> str:
    """The one line of a user's mistake."""
    assert code == ExitCode.USER_MISTAKE
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_result_of_three_seeds(tmp_path, capsys):
    assert add(tmp_path, *PUBLISHED, "--note", "a remark") == ExitCode.DONE
    folder = tmp_path / "results"
    record = json.loads((folder / "small.json").read_text())
    assert record["seeds"] == [5, 6, 7]
    assert record["top1_per_seed"] == [0.90, 0.93, 0.96]
    assert (record["top1_mean"], record["top1_spread"]) == pytest.approx((0.93, 0.03))
    assert record["published"] == {"top1": pytest.approx(0.926), "source": "the authors' README"}
    assert record["seconds_per_seed"] == [40.0, 41.0, 42.0]
    assert record["update_seconds_per_seed"] == [20.0, 20.0, 20.0]
    assert (record["epochs"], record["updates"], record["test_images"]) == (4.0, 44, 360)
    assert record["hardware"] == ["2 x TPU v5e"]
    assert record["revisions"] == ["0123456789abcdef0123456789abcdef01234567"]
    assert record["versions"][0]["jax"] == "0.10.2"
    assert record["config"]["dataset"] == "digits"
    for number, file in enumerate(record["metrics"]):
        rows = gzip.decompress((folder / file).read_bytes())
        assert rows == (tmp_path / f"run-{number}" / "metrics.jsonl").read_bytes()
    assert load_picture(folder / "small.png") is not None
    assert capsys.readouterr().out == f"result: {folder / 'small.json'}\npicture: {folder / 'small.png'}\n"


def test_the_same_runs_give_the_same_files(tmp_path):
    contents = []
    for options in ([], ["--replace"]):
        assert add(tmp_path, *options) == ExitCode.DONE
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()})
    assert contents[0] == contents[1]


def test_one_seed_has_no_spread_and_one_evaluation_no_curve(tmp_path, capsys):
    (run,) = made_runs(tmp_path, [0.5])
    rows = [{"step": 44, "epoch": 4.0, "eval/split": "test", "eval/n": 360, "eval/top1": 0.5, "eval/loss": 1.0}]
    write_rows(Path(run), rows)
    assert add(tmp_path, runs=[run]) == ExitCode.DONE
    assert json.loads((tmp_path / "results/small.json").read_text())["top1_spread"] is None
    assert not (tmp_path / "results/small.png").exists()
    capsys.readouterr()
    assert main(["table", "--folder", str(tmp_path / "results")]) == ExitCode.DONE
    row = capsys.readouterr().out.splitlines()[2]
    assert row.startswith("| `small` | digits, 8/1 p1 k")
    assert "| 4 | - | **50.00** | - | 1 | 0:00:40 | 2 x TPU v5e |" in row


def test_the_table_has_published_scores_and_gaps_and_takes_its_place(tmp_path, capsys):
    add(tmp_path, *PUBLISHED, name="b")
    add(tmp_path, "--note", "with a | in it", name="a")
    document = tmp_path / "README.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    capsys.readouterr()
    for _ in range(2):  # again, nothing changes
        assert main(["table", "--folder", str(tmp_path / "results"), "--write", str(document)]) == ExitCode.DONE
    lines = document.read_text().splitlines()
    assert [lines[0], lines[1], lines[-2], lines[-1]] == ["before", BEGIN, END, "after"]
    assert "old" not in lines
    rows = [line for line in lines if line.startswith("| `")]
    assert [re.findall(r"\| (92.60|-) \| \*\*93.00\*\* ± 3.00 \| (\+0.40|-) \| 3 \|", row) for row in rows] == [
        [("-", "-")],
        [("92.60", "+0.40")],
    ]
    assert "`a`: with a \\| in it." in lines
    assert "`b`: published in the authors' README." in lines


def test_the_table_tells_another_dtype_than_float32(tmp_path):
    for name, dtype in {"a": "float32", "b": "bfloat16"}.items():
        add(tmp_path, name=name, runs=[str(write_run(tmp_path / name, seed=0, dtype=dtype))])
    models = [line.split(" | ")[1] for line in table_lines(read_records(tmp_path / "results"))[2:]]
    assert models[1] == f"{models[0]}, bfloat16"


def test_a_record_from_before_a_field_existed(tmp_path):
    add(tmp_path)
    path = tmp_path / "results/small.json"
    record = json.loads(path.read_text())
    before = table_lines([record])
    del record["config"]["dtype"]
    assert table_lines([record]) == before


def test_code_of_no_commit_is_told(tmp_path, capsys):
    run = made_runs(tmp_path, [0.5])[0]
    record = json.loads((Path(run) / "config.json").read_text())
    (Path(run) / "config.json").write_text(json.dumps(record | {"git_revision": "0123-dirty"}))
    assert add(tmp_path, runs=[run]) == ExitCode.DONE
    assert capsys.readouterr().out.startswith("warning: trained with code of no commit (revision 0123-dirty)")


def test_time_between_starts_is_not_counted(tmp_path):
    (place,) = made_runs(tmp_path, [0.5])
    run = read_run(Path(place), "run")
    (account,) = run.accounts.values()
    account.seconds["downtime"] = 15.0
    assert computing_seconds(run) == account.wall - 15.0


def unfinished(runs: list[Path]) -> None:
    (runs[1] / "result.json").unlink()


def other_recipe(runs: list[Path]) -> None:
    write_record(runs[1], None, seed=6, **{"model.dim": 16})


def other_data(runs: list[Path]) -> None:
    record = json.loads((runs[1] / "config.json").read_text())
    (runs[1] / "config.json").write_text(json.dumps(record | {"data_digest": "another"}))


def same_seed(runs: list[Path]) -> None:
    write_record(runs[1], seed=5)


def another_split(runs: list[Path]) -> None:
    write_result(runs[1], 0.9, split="val")


def damaged(runs: list[Path]) -> None:
    (runs[1] / "metrics.jsonl").write_text("no row\n")


def without_evaluations(runs: list[Path]) -> None:
    (runs[1] / "metrics.jsonl").write_text("")


def no_run(runs: list[Path]) -> None:
    for path in runs[1].iterdir():
        path.unlink()


REFUSED = {
    unfinished: r"run-1 is unfinished \(.*\): finish it first",
    other_recipe: r"run-1: config.model.dim is 16, of .*run-0 8; the runs of a result differ in their seed alone",
    other_data: r"run-1 was trained on other data than .*run-0",
    same_seed: r"seed 5 is there 2 times",
    another_split: r"run-1 has no score of the test split",
    damaged: r"run-1: .*metrics.jsonl: line 1 cannot be read.*; a result is made of whole runs alone",
    without_evaluations: r"run-1: metrics.jsonl has no evaluation of the test split",
    no_run: r"run-1 is no run's folder",
}


@pytest.mark.parametrize("spoil, line", REFUSED.items(), ids=[spoil.__name__ for spoil in REFUSED])
def test_runs_that_make_no_result(tmp_path, capsys, spoil, line):
    runs = sorted(made_runs(tmp_path, [0.9, 0.8]))
    spoil([Path(run) for run in runs])
    assert re.search(line, told(capsys, add(tmp_path, runs=runs)))
    assert not (tmp_path / "results").exists()


ARGUMENTS = {
    "a name with a slash": (["add", "a/b", "RUN"], "'a/b' is no name: take letters, digits, _ and -"),
    "no percentage": (["add", "a", "RUN", "--published", "926"], "'926' is no accuracy in percent, from 0 to 100"),
    "a share": (["add", "a", "RUN", "--published", "0.926"], "'0.926' is in percent: 92.6?"),
    "no source": (["add", "a", "RUN", "--published", "92.6"], "--published and --source belong together"),
    "no results": (["table"], "results holds no results: `results add` makes them"),
    "no command": ([], "COMMAND"),
}


@pytest.mark.parametrize("arguments, line", ARGUMENTS.values(), ids=ARGUMENTS)
def test_mistakes_of_the_command_line(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "RUN", seed=0, top1=0.5)
    assert line in told(capsys, main(arguments))


def test_what_is_published_is_not_replaced_unasked(tmp_path, capsys):
    add(tmp_path)
    before = (tmp_path / "results/small.json").read_bytes()
    capsys.readouterr()
    assert "small.json is there already: take another NAME, or --replace" in told(capsys, add(tmp_path, "--note", "x"))
    assert (tmp_path / "results/small.json").read_bytes() == before


def test_what_replaces_a_result_leaves_nothing_of_it(tmp_path):
    runs = made_runs(tmp_path)
    add(tmp_path, runs=runs)
    assert add(tmp_path, "--replace", runs=runs[:1]) == ExitCode.DONE
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert names == {"small.json", "small.png", "small.seed-7.metrics.jsonl.gz"}


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "results").write_text("")
    assert "choose another one" in told(capsys, add(tmp_path))


def test_a_document_keeps_its_link_its_line_ends_and_its_mode(tmp_path):
    add(tmp_path)
    document, link = tmp_path / "real.md", tmp_path / "link.md"
    document.write_bytes(f"a\r\n{BEGIN}\r\n{END}\r\nb".encode())
    document.chmod(0o600)
    link.symlink_to(document)
    assert main(["table", "--folder", str(tmp_path / "results"), "--write", str(link)]) == ExitCode.DONE
    assert link.is_symlink()
    assert document.stat().st_mode & 0o777 == 0o600
    content = document.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") > 5


SPOILT = {
    "scores": ({"top1_per_seed": [0.9]}, "is no result: its top1_per_seed and seeds"),
    "a score": ({"top1_per_seed": [0.9, 93.0, 0.9]}, "is no result: its top1_per_seed and seeds"),
    "name": ({"name": "other"}, "is no result: it has no config, or another name than its file"),
    "metrics": ({"metrics": ["gone.gz"] * 3}, "names gone.gz, which is not there"),
    "no metrics": ({"metrics": None}, "is no result: its metrics are not one file for each seed"),
    "a number of metrics": ({"metrics": 5}, "is no result: its metrics are not one file for each seed"),
    "metrics of fewer seeds": ({"metrics": ["small.png"]}, "is no result: its metrics are not one file for each seed"),
    "mean": ({"top1_mean": 0.99}, "its top1_mean or top1_spread is not that of its top1_per_seed"),
    "published": ({"published": {"top1": 93.0, "source": ""}}, "not a top1 from 0 to 1 and its source"),
    "published without a source": ({"published": {"top1": 0.9}}, "not a top1 from 0 to 1 and its source"),
    "published as text": ({"published": "92.6"}, "its published is '92.6', not a top1 from 0 to 1 and its source"),
    "note": ({"note": 5}, "is no result: its note is no text"),
    "seconds": ({"seconds_per_seed": [float("inf")]}, "small.json is no result: a field is not as"),
    "epochs": ({"epochs": None}, "small.json is no result: a field is not as"),
    "config": ({"config": {}}, "is no result: it has no config, or another name than its file"),
}


@pytest.mark.parametrize("changes, line", SPOILT.values(), ids=SPOILT)
def test_records_that_were_changed(tmp_path, capsys, changes, line):
    add(tmp_path)
    path = tmp_path / "results/small.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    capsys.readouterr()
    assert line in told(capsys, main(["table", "--folder", str(tmp_path / "results")]))


def test_a_document_without_the_place(tmp_path, capsys):
    add(tmp_path)
    document = tmp_path / "README.md"
    document.write_text(f"{END}\n{BEGIN}\n")
    capsys.readouterr()
    code = main(["table", "--folder", str(tmp_path / "results"), "--write", str(document)])
    assert "README.md has no place for the table" in capsys.readouterr().err
    assert code == ExitCode.USER_MISTAKE
    assert document.read_text() == f"{END}\n{BEGIN}\n"


def test_the_readmes_table_is_what_the_command_makes_of_the_results():
    text = (ROOT / "README.md").read_text()
    assert placed(text, table_lines(read_records(ROOT / "results")), "README.md") == text
