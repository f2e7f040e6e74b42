"""Folders of checkpoints with links, without a place, and with names that nobody expects."""

import os
import shutil

import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.manifest import MANIFEST_FILE
from convmixer_jax.runs.steps import DamagedError
from tests.runs.damage import META, abstract, files_of, make_tree, save_steps


def test_a_folder_that_was_removed_is_made_again(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    for step in (1, 2):
        checkpoints.save(step, make_tree(), META)
        checkpoints.confirm()
        assert (checkpoints.saved, checkpoints.failures) == (step, {})
        shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").symlink_to(tmp_path / "nowhere")
    checkpoints.save(3, make_tree(), META)
    checkpoints.close()
    assert checkpoints.failures[3].startswith(f"UserError: {tmp_path / 'checkpoints'} cannot be made (File exists)")


@pytest.mark.parametrize("target", ["nowhere", "file"])
def test_a_link_in_the_place_of_a_step_is_not_overwritten(tmp_path, target):
    (tmp_path / "file").write_text("")
    (tmp_path / "1").symlink_to(tmp_path / target)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_tree(), META)
    checkpoints.close()
    assert checkpoints.failures == {1: f"{tmp_path / '1'} is there already: move it away"}


def test_a_step_that_lies_elsewhere_stays_there(tmp_path):
    """Where somebody moved a step to another disk, and put a link in its place, the link alone is removed."""
    save_steps(tmp_path / "run", 1, 2)
    (tmp_path / "run/1").rename(tmp_path / "elsewhere")
    (tmp_path / "run/1").symlink_to(tmp_path / "elsewhere")
    before = files_of(tmp_path / "elsewhere")
    checkpoints = Checkpoints(tmp_path / "run", keep=1)
    assert checkpoints.steps() == [1, 2]
    checkpoints.save(3, make_tree(), META)
    checkpoints.close()
    # The newest, and the best: of equals the last.
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["2", "3"]
    assert files_of(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("place", ["file", "link"])
def test_a_step_that_cannot_be_set_aside_is_told_with_its_reason(tmp_path, place):
    save_steps(tmp_path, 1)
    (tmp_path / "1" / MANIFEST_FILE).write_bytes(b"")
    away = tmp_path / "quarantine"
    away.write_text("") if place == "file" else away.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        Checkpoints(tmp_path)
    assert f"checkpoint {tmp_path / '1'} is damaged (its manifest is damaged) and cannot be moved" in str(caught.value)
    assert "(File exists): see that it can, or move it away yourself" in str(caught.value)
    assert (tmp_path / "1").is_dir()


def test_a_reason_that_names_a_file_whose_name_is_no_text_can_be_kept(tmp_path):
    save_steps(tmp_path, 1)
    (tmp_path / "1" / os.fsdecode(b"\xff")).write_bytes(b"")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(DamagedError) as caught:
        checkpoints.restore(1, abstract(make_tree()))
    checkpoints.set_aside(caught.value, 1)
    checkpoints.close()
    assert (tmp_path / "quarantine/1-damaged.txt").read_text() == "\\udcff does not belong there\n"
