"""Workdirs of other runs, damaged, in use or not writable: exit code 2, one line that names the file and a way out."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from convmixer_jax.main import main
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.lock import WorkdirLock
from convmixer_jax.training import runner
from tests.commands import DIGITS, ONE_EPOCH, SMALL, record_of

pytestmark = pytest.mark.usefixtures("elsewhere", "quick_compilation")


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_a_workdir_that_cannot_be_made(refused, tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    line = refused(*DIGITS, *SMALL, "--workdir", folder)
    assert f"--workdir {folder} cannot be written" in line
    assert "name a folder that can" in line
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_a_workdir_that_cannot_be_evaluated(refused, tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    line = refused(*DIGITS, *SMALL, "--workdir", folder, "--mode=eval")
    assert f"--workdir {folder} holds no run" in line


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_workdir_of_another_run(refused, tmp_path, mode):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(record_of([*DIGITS, *SMALL])))
    line = refused(*DIGITS, *SMALL, "--config.model.depth=2", "--config.seed=7", "--workdir=run", f"--mode={mode}")
    assert "--workdir run holds another run (config.model.depth: 1 -> 2; config.seed: 0 -> 7)" in line
    assert "use another --workdir" in line


GARBAGE = {
    "no JSON": b"batch_size: 64",
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "a list": b"[1, 2]",
    "null": b"null",
    "no config": b"{}",
    "config of another kind": b'{"config": 64}',
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_a_workdir_whose_config_is_garbage(refused, tmp_path, content, mode):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_bytes(content)
    line = refused(*DIGITS, *SMALL, "--workdir=run", f"--mode={mode}")
    assert "config.json" in line
    assert "use another --workdir" in line
    assert (tmp_path / "run/config.json").read_bytes() == content


def test_evaluation_before_any_checkpoint(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(record_of([*DIGITS, *SMALL])))
    for _ in range(2):
        line = refused(*DIGITS, *SMALL, "--workdir=run", "--mode=eval")
        assert "--workdir run has no checkpoint: train first (--mode train)" in line
        (tmp_path / "run/checkpoints").mkdir(exist_ok=True)


def test_a_step_that_was_not_saved(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps(record_of([*DIGITS, *SMALL])))
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", keep=2)
    for step in (5, 10):
        checkpoints.save(step, {"x": np.zeros(1)}, {})
    checkpoints.close()
    line = refused(*DIGITS, *SMALL, "--workdir=run", "--mode=eval", "--step=7")
    assert "--step is 7: run has checkpoints of steps 5, 10" in line


def cut(step: Path) -> None:
    path = max(step.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    path.write_bytes(path.read_bytes()[:100])


def test_a_damaged_checkpoint(refused, trained, capsys):
    capsys.readouterr()
    cut(trained / "checkpoints/22")
    (trained / "result.json").unlink()
    run = [*DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]
    line = refused(*run, "--mode=eval", "--step=22")
    for words in ("run/checkpoints/22 is damaged", " bytes, not ", "move it away to go on from step 11"):
        assert words in line
    assert main(["main", *run, "--mode=eval"]) == 0
    out, err = capsys.readouterr()
    assert "warning: checkpoint 22 is not used (" in err
    assert json.loads(out.splitlines()[-1])["step"] == 11
    assert (trained / "checkpoints/22").is_dir(), "an evaluation moves nothing"
    assert main(["main", *run]) == 0
    told = capsys.readouterr().err
    assert "warning: checkpoint 22 is not used (" in told
    assert f"it is kept in {trained / 'checkpoints/quarantine/22-damaged'}" in told
    assert "going on from step 11" in told
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["11", "22", "quarantine"]


def test_checkpoints_that_are_all_damaged(refused, trained, capsys):
    """A run is not begun again without a word, neither at once nor at the start after."""
    for step in (11, 22):
        cut(trained / f"checkpoints/{step}")
    (trained / "result.json").unlink()
    run = [*DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]
    capsys.readouterr()
    assert main(["main", *run]) == 2
    *warnings, line = capsys.readouterr().err.splitlines()
    assert [f"checkpoint {step} is not used" in told for step, told in zip((22, 11), warnings, strict=True)] == [
        True
    ] * 2
    assert line.startswith(f"error: no checkpoint in {trained / 'checkpoints'} is good: ")
    assert refused(*run) == f"{line}\n"
    assert f"remove {trained / 'checkpoints/quarantine'}, which holds 11-damaged, 22-damaged" in line
    shutil.rmtree(trained / "checkpoints/quarantine")
    assert main(["main", *run]) == 0
    assert "from fresh weights" in capsys.readouterr().err


def fill_memory(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


def test_a_refused_start_leaves_the_record_as_it_was(refused, trained, capsys, monkeypatch):
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "evaluate_state", fill_memory)
        large = [*DIGITS, *SMALL, *ONE_EPOCH, "--config.eval_batch_size=180"]
        assert main(["main", *large, "--workdir=run", "--mode=eval"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: config.eval_batch_size is, in effect, 180: there is not enough memory")
    assert line.endswith("try config.eval_batch_size=90 or config.input=stream")
    for name in ("config.json", "result.json"):
        (trained / name).unlink()
    line = refused(*DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run", "--config.seed=9")
    assert "was made with another config than the one asked for" in line
    assert not (trained / "config.json").exists()


def test_a_workdir_in_use(refused, tmp_path):
    (tmp_path / "run").mkdir()
    with WorkdirLock(tmp_path / "run"):
        line = refused(*DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run")
    assert f"--workdir run is in use by process {os.getpid()} on " in line
    assert main(["main", *DIGITS, *SMALL, *ONE_EPOCH, "--workdir=run"]) == 0
