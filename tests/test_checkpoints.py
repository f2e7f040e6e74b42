"""`python -m convmixer_jax.checkpoints`: what it lists, verifies and leaves alone."""

import json
import os
import shutil
from pathlib import Path

import pytest

from convmixer_jax.checkpoints import main, written
from convmixer_jax.runs import steps
from convmixer_jax.runs.lock import WorkdirLock
from convmixer_jax.runs.manifest import encode
from convmixer_jax.runs.reading import CheckpointReader
from tests.runs.damage import files_of, flip, save_steps, truncate


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    for score, number in ((0.5, 1), (0.9, 2), (None, 3)):
        save_steps(workdir / "checkpoints", number, 9, score=score)
        steps.remove(workdir / "checkpoints/9")
    return workdir


@pytest.fixture
def workdir(three_steps, tmp_path) -> Path:
    return Path(shutil.copytree(three_steps, tmp_path / "run"))


@pytest.fixture
def listed(capsys):
    """Returns a function of the arguments to (exit code, object, lines)."""

    def run(*arguments: object) -> tuple[int, dict, list[str]]:
        code = main([*map(str, arguments), "--json"])
        *lines, last = capsys.readouterr().out.splitlines()
        return code, json.loads(last), lines

    return run


def test_all_is_well(workdir, listed):
    before = files_of(workdir)
    code, told, lines = listed(workdir)
    assert code == 0
    assert [row["step"] for row in told["checkpoints"]] == [2, 3]
    newest, best = told["checkpoints"][1], told["checkpoints"][0]
    assert (best["roles"], best["val_top1"], newest["roles"], newest["val_top1"]) == (["best"], 0.9, ["newest"], None)
    assert (newest["good"], newest["state"]) == (True, "verified when it was written")
    content = files_of(workdir / "checkpoints/3")
    assert newest["bytes"] == sum(len(file) for name, file in content.items() if name != "MANIFEST.json")
    assert [line.split()[0] for line in lines] == ["step", "2", "3"]
    code, told, lines = listed(workdir, "--verify")
    assert (code, [row["state"] for row in told["checkpoints"]]) == (0, ["verified"] * 2)
    assert files_of(workdir) == before


def test_a_flipped_bit_is_found_by_verify_alone(workdir, listed):
    path = workdir / "checkpoints/3/state/_METADATA"
    flip(path, 99)
    assert listed(workdir)[0] == 0
    before = files_of(workdir)
    code, told, lines = listed(workdir, "--verify")
    assert code == 2
    assert [(row["good"], row["roles"]) for row in told["checkpoints"]] == [(True, ["newest", "best"]), (False, [])]
    assert told["checkpoints"][1]["state"] == "damaged: state/_METADATA is not as it was written"
    assert lines[-1].endswith("damaged: state/_METADATA is not as it was written")
    assert files_of(workdir) == before


def test_what_is_not_a_good_step_is_told_at_a_glance(workdir, listed):
    folder = workdir / "checkpoints"
    truncate(folder / "2")
    steps.quarantine(folder, 2, "damaged", "a reason")
    (folder / "3/MANIFEST.json").unlink()
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    code, told, lines = listed(workdir)
    assert code == 2
    assert told["checkpoints"][0]["state"].startswith("interrupted: its manifest is missing")
    assert told["quarantine"] == [{"folder": str(folder / "quarantine/2-damaged"), "reason": "a reason"}]
    assert told["leftovers"] == [str(folder / "7.orbax-checkpoint-tmp")]
    assert lines[-2] == f"in quarantine: {folder / 'quarantine/2-damaged'} (a reason)"
    assert lines[-1].startswith(f"left over from an interrupted save or deletion: {folder / '7.orbax'}")
    assert (folder / "7.orbax-checkpoint-tmp").exists()


def without_manifest(workdir: Path, step: int) -> None:
    (workdir / f"checkpoints/{step}/MANIFEST.json").unlink()


def test_a_save_that_is_under_way_is_not_bad(workdir, listed):
    without_manifest(workdir, 3)
    assert listed(workdir)[0] == 2, "nobody is about to write it"
    with WorkdirLock(workdir):
        for flags in ((), ("--verify",)):
            code, told, _ = listed(workdir, *flags)
            assert code == 0
            assert [row["roles"] for row in told["checkpoints"]] == [["newest", "best"], []]
            assert (told["checkpoints"][1]["good"], told["checkpoints"][1]["state"]) == (None, "its save is under way")
        without_manifest(workdir, 2)
        code, told, _ = listed(workdir)  # the run is past step 2
        assert (code, [row["good"] for row in told["checkpoints"]]) == (2, [False, None])
    assert listed(workdir)[0] == 2


def test_a_step_that_a_run_removes_meanwhile_is_left_out(workdir, listed, monkeypatch):
    verify = CheckpointReader.verify

    def late(self, step):
        if step == 2:
            steps.remove(self.directory / "2")
        verify(self, step)

    monkeypatch.setattr(CheckpointReader, "verify", late)
    code, told, lines = listed(workdir, "--verify")
    assert (code, [row["step"] for row in told["checkpoints"]], len(lines)) == (0, [3], 2)


@pytest.mark.parametrize("last", [4, 100])
def test_checkpoints_that_are_all_removed_are_looked_for_again(tmp_path, monkeypatch, capsys, last):
    """A run that keeps one, and is quicker than the reader; in the end it stops, or does not."""
    folder = tmp_path / "checkpoints"
    save_steps(folder, 1)
    verify = CheckpointReader.verify

    def late(self, step):
        if step < last:
            (folder / str(step)).rename(folder / str(step + 1))
            path = folder / str(step + 1) / "MANIFEST.json"
            path.write_bytes(encode(json.loads(path.read_bytes())["manifest"] | {"step": step + 1}))
        verify(self, step)

    monkeypatch.setattr(CheckpointReader, "verify", late)
    code = main([str(tmp_path), "--verify"])
    out, err = capsys.readouterr()
    if last == 4:
        assert (code, out.splitlines()[1].split()[0], err) == (0, "4", "")
    else:
        assert (code, out) == (2, "")
        assert err.startswith(f"error: an active run removes the checkpoints in {folder}")


def test_names_that_are_no_text_are_shown_all_the_same(workdir, listed):
    folder = workdir / "checkpoints"
    (folder / os.fsdecode(b"5\xff.deleting")).mkdir()
    (folder / "3" / os.fsdecode(b"\xff")).write_bytes(b"")
    code, told, lines = listed(workdir, "--verify")
    assert (code, told["checkpoints"][1]["state"]) == (2, "damaged: \udcff does not belong there")
    assert lines[2].endswith("damaged: \\udcff does not belong there")
    assert "5\\udcff.deleting" in lines[3]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, capsys):
    (tmp_path / "checkpoints").symlink_to("checkpoints")
    assert main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {tmp_path / 'checkpoints'} cannot be read (Too many levels of symbolic links)")


@pytest.mark.parametrize("seconds, time", [(10**9, "2001-09-09T01:46:40+00:00"), (10**13, "?"), (-(10**13), "?")])
def test_a_clock_that_was_far_off(tmp_path, monkeypatch, seconds, time):
    step = steps.Step(3, tmp_path)
    monkeypatch.setattr(Path, "stat", lambda path: os.stat_result([0] * 7 + [seconds] * 3))
    assert written(step) == time


def test_a_step_of_before_manifests(workdir, listed):
    (workdir / "checkpoints/3/MANIFEST.json").unlink()
    path = workdir / "checkpoints/3/_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"custom_metadata": {}}))
    for flags, words in (((), ""), (("--verify",), "readable, but ")):
        code, told, _ = listed(workdir, *flags)
        row = told["checkpoints"][1]
        assert (code, row["good"], row["state"]) == (0, None, f"{words}not verified: written before manifests")
    (workdir / "checkpoints/3/state/manifest.ocdbt").unlink()
    code, told, _ = listed(workdir, "--verify")
    assert (code, told["checkpoints"][1]["good"]) == (2, False)


@pytest.mark.parametrize("folder", ["", "nothing"])
def test_a_folder_without_checkpoints(tmp_path, capsys, folder):
    assert main([str(tmp_path / folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {tmp_path / folder} has no checkpoint: name a run's folder, or train first\n"
