"""One process at a time makes a file, and nothing is left of what was begun for nothing."""

import threading
import time
from pathlib import Path

import pytest

from convmixer_jax.data.sources.publishing import one_at_a_time, publish


def test_nothing_is_left_of_what_failed(tmp_path):
    def fail() -> None:
        with one_at_a_time(tmp_path / "a/b/x", "waiting"):
            assert (tmp_path / "a/b/x.lock").exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_or_are_used_stay(tmp_path):
    (tmp_path / "there").mkdir()
    with one_at_a_time(tmp_path / "there/x", "waiting"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with one_at_a_time(tmp_path / "a/b/x", "waiting"):
        (tmp_path / "a/b/x").write_text("made")
    assert (tmp_path / "a/b/x").read_text() == "made"
    assert not (tmp_path / "a/b/x.lock").exists()


def test_a_lock_file_that_a_killed_process_left_is_no_lock(tmp_path):
    (tmp_path / "x.lock").write_text("")
    with one_at_a_time(tmp_path / "x", "waiting"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_one_is_in_at_a_time_although_each_removes_the_lock(tmp_path, capfd):
    inside, most, made = [], [], []

    def work() -> None:
        for _ in range(20):
            with one_at_a_time(tmp_path / "made/x", "waiting for another"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()
                made.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(made)) == (1, 160)
    assert not (tmp_path / "made/x.lock").exists()
    assert "waiting for another" in capfd.readouterr().err


def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """mkdir finds it; by the time that it looks what it has found, whoever had made it for nothing has removed it."""
    is_dir, looks = Path.is_dir, []

    def removed(path: Path, **more) -> bool:
        looks.append(path)
        if len(looks) == 1:
            path.rmdir()
        return is_dir(path, **more)

    (tmp_path / "made").mkdir()
    monkeypatch.setattr(Path, "is_dir", removed)
    with one_at_a_time(tmp_path / "made/x", "waiting"):
        assert (tmp_path / "made/x.lock").exists()
    assert looks[0] == tmp_path / "made"


def test_where_no_folder_can_be_made_it_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    with pytest.raises(FileNotFoundError), one_at_a_time(Path("a/x"), "waiting"):
        pass


def test_a_folder_is_published_whole_and_never_over_another(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(OSError):  # noqa: PT011 (the kernel says which)
        publish(tmp_path / "new", tmp_path / "old")
    publish(tmp_path / "new", tmp_path / "fresh")
    assert (tmp_path / "fresh/file").read_text() == "new"
    assert not (tmp_path / "new").exists()
