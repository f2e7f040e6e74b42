"""`python -m convmixer_jax.checkpoints`: what it lists, verifies and leaves alone."""

import json
import shutil
from pathlib import Path

import pytest

from convmixer_jax.checkpoints import main
from convmixer_jax.runs import steps
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


def test_a_step_of_before_manifests(workdir, listed):
    (workdir / "checkpoints/3/MANIFEST.json").unlink()
    path = workdir / "checkpoints/3/_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"custom_metadata": {}}))
    for flags, words in (((), ""), (("--verify",), "readable, but ")):
        code, told, _ = listed(workdir, *flags)
        row = told["checkpoints"][1]
        assert (code, row["good"], row["state"]) == (0, None, f"{words}not verified: written before manifests")
    path.write_text("{")
    (workdir / "checkpoints/3/state/manifest.ocdbt").unlink()
    code, told, _ = listed(workdir, "--verify")
    assert (code, told["checkpoints"][1]["good"]) == (2, False)


@pytest.mark.parametrize("folder", ["", "nothing"])
def test_a_folder_without_checkpoints(tmp_path, capsys, folder):
    assert main([str(tmp_path / folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {tmp_path / folder} has no checkpoint: name a run's folder, or train first\n"
