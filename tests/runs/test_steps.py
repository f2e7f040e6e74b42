"""Which folders are steps, what a glance at one tells, and what is left alone."""

import json
import os
from pathlib import Path

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.runs import steps
from convmixer_jax.runs.manifest import MANIFEST_FILE

OTHER_NAMES = ["007", "1.5", "-1", "+1", "1 ", "\u0667", "1e3", "7.deleting", "quarantine"]


def of_before(folder: Path, number: object) -> None:
    """What a glance at a step of before there were manifests sees."""
    (folder / str(number)).mkdir()
    (folder / str(number) / steps.METADATA_FILE).write_text("{}")


def test_only_a_number_as_it_is_written_here_is_a_step(tmp_path):
    for name in [0, 7, 99999999999999999999, *OTHER_NAMES]:
        of_before(tmp_path, name)
    (tmp_path / "8").write_text("a file")
    assert [step.number for step in steps.durable(steps.read_steps(tmp_path))] == [0, 7, 99999999999999999999]


@pytest.mark.parametrize("content", [None, "", "[]", "null", "[" * 100_000])
def test_a_folder_of_no_version_is_not_taken_for_an_old_step(tmp_path, content):
    of_before(tmp_path, 3)
    path = tmp_path / "3" / steps.METADATA_FILE
    path.unlink() if content is None else path.write_text(content)
    [step] = steps.read_steps(tmp_path)
    assert (step.kind, step.trouble) == (
        steps.DAMAGED,
        "its manifest is missing, and _CHECKPOINT_METADATA unreadable",
    )


def test_what_disappears_while_it_is_looked_at_is_no_step(tmp_path):
    assert steps.durable([steps.read_step(tmp_path / "3")]) == []


@pytest.mark.parametrize("score, read", [("0.5", 0.5), ("NaN", None), ("[]", None), ("[" * 100_000, None)])
def test_the_score_of_an_old_step(tmp_path, score, read):
    of_before(tmp_path, 3)
    (tmp_path / "3/metrics").mkdir()
    (tmp_path / "3/metrics/metrics").write_text(f'{{"val_top1": {score}}}')
    assert steps.read_step(tmp_path / "3").score == read


def test_a_manifest_that_is_a_folder_or_a_pipe_is_told(tmp_path):
    for make in (Path.mkdir, os.mkfifo):
        of_before(tmp_path, 3)
        make(tmp_path / "3" / MANIFEST_FILE)
        assert steps.read_step(tmp_path / "3").trouble == "its manifest is no file"
        (tmp_path / "3").rename(tmp_path / f"3 {make}")


def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for look in (steps.read_steps, steps.leftovers, steps.clean):
        with pytest.raises(UserError, match=r"loop cannot be read \(Too many levels of symbolic links\)"):
            look(tmp_path / "loop")


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling"])
def test_leftovers_of_any_kind_are_removed_and_nothing_that_they_point_to(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("kept")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("5.deleting", "6.orbax-checkpoint-tmp"):
        left = folder / name
        if kind == "folder":
            left.mkdir()
        elif kind == "file":
            left.write_text("")
        else:
            left.symlink_to(tmp_path / ("mine" if kind == "link" else "nowhere"))
    steps.clean(folder, 6)
    assert [path.name for path in steps.leftovers(folder)] == ["5.deleting"]
    steps.clean(folder)
    assert list(folder.iterdir()) == []
    assert (tmp_path / "mine/file").read_text() == "kept"


def test_a_name_that_is_taken_in_quarantine_is_not_reused(tmp_path):
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine/3-damaged").symlink_to(tmp_path / "nowhere")
    of_before(tmp_path, 3)
    assert steps.quarantine(tmp_path, 3, "damaged", "why").name == "3-damaged-2"
    assert json.loads((tmp_path / "quarantine/3-damaged-2" / steps.METADATA_FILE).read_text()) == {}
