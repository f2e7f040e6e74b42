"""When a step counts, what stays until then, what a failed save leaves, and where bad steps go."""

import collections
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from convmixer_jax.runs import confirmation, steps
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.manifest import MANIFEST_FILE, encode
from convmixer_jax.runs.steps import DamagedError
from tests.runs.damage import DAMAGES, META, abstract, files_of, make_tree, save_steps

Usage = collections.namedtuple("Usage", "total used free")
NAMES = ["state/_METADATA", "state/ocdbt.process_0/d/1", "state/ocdbt.process_2/manifest.ocdbt", "meta/metadata"]


def folders(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def held(monkeypatch) -> threading.Event:
    """The next manifest is written once this is set."""
    event, write = threading.Event(), confirmation.write_manifest

    def late(folder, record):
        event.wait(60)
        write(folder, record)

    monkeypatch.setattr(confirmation, "write_manifest", late)
    return event


def test_a_step_counts_once_its_manifest_is_there(tmp_path, held):
    checkpoints = Checkpoints(tmp_path, keep=1)
    held.set()
    checkpoints.save(1, make_tree(), META)
    checkpoints.confirm()
    held.clear()
    checkpoints.save(2, make_tree(), META)
    checkpoints._writer.wait_until_finished()
    # All that Orbax writes is there, and its successor is no reason yet to remove the step before.
    assert folders(tmp_path) == ["1", "2"]
    checkpoints.confirm_if_finished()
    assert (checkpoints.saved, checkpoints.steps()) == (1, [1])
    reader = Checkpoints(tmp_path, read_only=True)
    assert (reader.saved, reader.steps()) == (1, [1])
    step, _, told = reader.read_newest(lambda number: reader.restore(number, abstract(make_tree())))
    reason = "its manifest is missing: its save was interrupted, or is under way"
    assert (step, told) == (1, [f"warning: checkpoint 2 is not used ({reason})"])
    held.set()
    checkpoints.confirm()
    assert (checkpoints.saved, folders(tmp_path)) == (2, ["2"])
    checkpoints.close()


def test_memory_that_is_taken_again_at_once_is_saved_as_it_was(tmp_path, held):
    """As in training: the next update is given the state's memory while the save is under way."""
    wanted = make_tree()
    update = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    checkpoints, tree = Checkpoints(tmp_path), make_tree()
    checkpoints.save(1, tree, META)
    for _ in range(3):
        tree = update(tree)
    jax.block_until_ready(tree)
    held.set()
    checkpoints.close()
    assert checkpoints.failures == {}
    restored, _ = checkpoints.restore(1, abstract(wanted))
    for leaf, value in zip(*map(jax.tree.leaves, (restored, wanted)), strict=True):
        np.testing.assert_array_equal(leaf, value)


def manifest_lost(folder, record):
    raise OSError(28, "No space left on device")


def manifest_altered(folder, record):
    (folder / MANIFEST_FILE).write_text("{}")


def manifest_of_others(folder, record):
    record["files"] = {}
    (folder / MANIFEST_FILE).write_bytes(encode(record))


WORSE = {
    "not written": (manifest_lost, "OSError: [Errno 28] No space left on device"),
    "not as written": (manifest_altered, "ValueError: its manifest is damaged"),
    "lacks files": (manifest_of_others, "_CHECKPOINT_METADATA does not belong there"),
}


@pytest.mark.parametrize("write, words", WORSE.values(), ids=WORSE)
def test_a_manifest_that_cannot_be_verified_makes_no_step(tmp_path, monkeypatch, write, words):
    save_steps(tmp_path, 1)
    before = files_of(tmp_path)
    checkpoints = Checkpoints(tmp_path, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(confirmation, "write_manifest", write)
        checkpoints.save(2, make_tree(), META)
        checkpoints.confirm()
    assert (checkpoints.saved, checkpoints.failures) == (1, {2: words})
    assert files_of(tmp_path) == before, "the last good step stays, and nothing of the other"
    checkpoints.save(2, make_tree(), META)  # tried again at once, it is saved
    checkpoints.close()
    assert (checkpoints.saved, checkpoints.failures, folders(tmp_path)) == (2, {}, ["1", "2"])


def test_steps_are_kept_by_what_is_durable(tmp_path, monkeypatch):
    """Failing saves between good ones neither count as newest nor push anything out."""
    checkpoints, write = Checkpoints(tmp_path, keep=2), confirmation.write_manifest
    for step, score, works in ((1, 0.9, True), (2, None, True), (3, 1.0, False), (4, 0.8, True), (5, None, False)):
        monkeypatch.setattr(confirmation, "write_manifest", write if works else manifest_lost)
        checkpoints.save(step, make_tree(), META, score)
        checkpoints.confirm()
    assert folders(tmp_path) == ["1", "2", "4"]
    monkeypatch.setattr(confirmation, "write_manifest", write)
    checkpoints.save(6, make_tree(), META)
    checkpoints.close()
    assert (folders(tmp_path), sorted(checkpoints.failures)) == (["1", "4", "6"], [3, 5])


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    for free in (0, 16 * 2**20 + 100):  # the arrays alone have 16 * 8 * 6 + 4 bytes, or 852 with the tenth
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: Usage(10**12, 0, free))
        checkpoints.save(1, make_tree(), META)
        assert checkpoints._confirmation is None
        assert checkpoints.failures[1].startswith(f"too little space in {tmp_path}: 0.02 GB are needed, ")
        assert folders(tmp_path) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**12, 0, 16 * 2**20 + 900))
    checkpoints.save(1, make_tree(), META)
    checkpoints.confirm()
    assert (checkpoints.saved, checkpoints.failures) == (1, {})
    # From now on it is the size on disk that counts.
    size = sum(len(content) for name, content in files_of(tmp_path / "1").items() if name != MANIFEST_FILE)
    for free, saved in ((size, 1), (int(size * 1.1), 2)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: Usage(10**12, 0, 16 * 2**20 + free))
        checkpoints.save(2, make_tree(), META)
        checkpoints.confirm()
        assert checkpoints.saved == saved
    checkpoints.close()


def test_a_step_that_exists_is_not_overwritten(tmp_path):
    save_steps(tmp_path, 1)
    before = files_of(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, make_tree(), META)
    checkpoints.close()
    assert checkpoints.failures == {1: f"{tmp_path / '1'} is there already: move it away"}
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("damage, words", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_step_is_set_aside_with_all_its_bytes(tmp_path, damage, words):
    save_steps(tmp_path, 1, 2)
    damage(tmp_path / "2")
    before = files_of(tmp_path / "2")
    checkpoints, template = Checkpoints(tmp_path), abstract(make_tree())
    if checkpoints.saved == 2:  # at a glance it was right
        with pytest.raises(DamagedError, match=words) as caught:
            checkpoints.restore(2, template)
        checkpoints.set_aside(caught.value, 2)
    assert (checkpoints.saved, checkpoints.steps()) == (1, [1])
    assert checkpoints.restore(1, template)[1] == META
    ((where, reason),) = steps.quarantined(tmp_path)
    assert where == tmp_path / "quarantine/2-damaged"
    assert checkpoints.told == [f"warning: checkpoint 2 is not used ({reason}); it is kept in {where}"]
    assert checkpoints.lost() == [where]
    assert files_of(where) == before
    checkpoints.save(2, make_tree(), META)  # its number is free
    checkpoints.close()
    assert checkpoints.saved == 2


def test_a_save_that_fails_before_it_begins_is_noted(tmp_path, monkeypatch):
    def full(tree, lead):
        raise MemoryError("no")

    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("convmixer_jax.runs.checkpoint.host_parts", full)
        checkpoints.save(1, make_tree(), META)
        assert (checkpoints.writing, checkpoints.failures) == (None, {1: "MemoryError: no"})
    checkpoints.save(1, make_tree(), META)
    checkpoints.close()
    assert (checkpoints.saved, checkpoints.failures) == (1, {})


def test_errors_of_a_failed_write_are_not_those_of_the_next(tmp_path, monkeypatch):
    """Of a disk that is full Orbax keeps an error for each small file, and tells one at each wait."""
    checkpoints = Checkpoints(tmp_path)
    wait, errors = checkpoints._writer.wait_until_finished, []

    def wait_with_errors():
        wait()
        if errors:
            raise errors.pop()

    monkeypatch.setattr(checkpoints._writer, "wait_until_finished", wait_with_errors)
    for step in (1, 2, 3):
        checkpoints.save(step, make_tree(), META)
        errors += [OSError(28, "No space left on device")] * 5 if step == 2 else []
        checkpoints.confirm()
    errors += [OSError(28, "No space left on device")] * 5
    checkpoints.close()
    assert (checkpoints.saved, checkpoints.failures) == (3, {2: "OSError: [Errno 28] No space left on device"})


def test_a_score_that_cannot_be_added_harms_nothing(tmp_path, monkeypatch):
    save_steps(tmp_path, 1, score=None)
    before = files_of(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", manifest_lost_at_sync)
        checkpoints.add_score(1, 0.5)
    assert checkpoints.failures == {
        1: "its score cannot be written to it ([Errno 28] No space left on device)",
    }
    assert files_of(tmp_path) == before
    checkpoints.close()
    assert Checkpoints(tmp_path, read_only=True).steps() == [1]


def manifest_lost_at_sync(descriptor):
    raise OSError(28, "No space left on device")


def test_an_interrupted_save_is_set_aside_and_not_lost(tmp_path):
    for again in ("", "-2"):
        save_steps(tmp_path, 1)
        (tmp_path / "1" / MANIFEST_FILE).unlink()
        checkpoints = Checkpoints(tmp_path)
        assert (checkpoints.saved, checkpoints.lost()) == (None, [])
        checkpoints.close()
        assert (tmp_path / f"quarantine/1-interrupted{again}").is_dir()
        assert "its manifest is missing" in (tmp_path / f"quarantine/1-interrupted{again}.txt").read_text()


def test_half_a_deletion_is_ended(tmp_path):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "1").rename(tmp_path / "1.deleting")
    assert [path.name for path in steps.leftovers(tmp_path)] == ["1.deleting"]
    assert Checkpoints(tmp_path, read_only=True).steps() == [2]
    Checkpoints(tmp_path).close()
    assert folders(tmp_path) == ["2"]


def test_a_reason_does_not_hold_the_settings_of_a_library():
    words = 'RESOURCE_EXHAUSTED: Error writing "w/0": Failed to write 8 bytes to file 12: No space left on device'
    error = ValueError(f"{words} [os_error_code='28'] [tensorstore_spec='{{\"driver\":\"zarr\"}}']")
    assert confirmation.in_words(error) == f"ValueError: {words}"
    assert confirmation.in_words(OSError(28, "No space left")) == "OSError: [Errno 28] No space left"


@pytest.mark.parametrize("processes, owners", [(1, [0, 0, 0, 0]), (3, [0, 0, 2, 0])])
def test_each_file_has_one_owner(processes, owners):
    for process in range(processes):
        wanted = [name for name, owner in zip(NAMES, owners, strict=True) if owner == process]
        assert confirmation.own_files(NAMES, process, processes) == wanted
