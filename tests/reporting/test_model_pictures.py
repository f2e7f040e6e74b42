"""Kernels and confusions of a run that is done, of real weights on the real digits."""

import json
import os
import shutil

import numpy as np
import pytest

from convmixer_jax.inference.confusion import save_table
from convmixer_jax.reporting import model_pictures
from convmixer_jax.reporting.model_pictures import ModelPictures, read_counts
from convmixer_jax.reporting.workdirs import read_run
from tests.reporting.made_up import write_result, write_run


@pytest.fixture
def workdir(tmp_path, initial_run):
    shutil.copytree(initial_run, tmp_path / "run")
    write_result(tmp_path / "run", 0.1)
    return tmp_path / "run"


def drawn(workdir, pictures=None):
    return {picture.name: picture for picture in (pictures or ModelPictures(workdir)).of(read_run(workdir, "mine"))}


def test_both_are_drawn_once(workdir, monkeypatch):
    pictures = ModelPictures(workdir)
    first = drawn(workdir, pictures)
    assert [picture.title for picture in first.values()] == ["Depthwise kernels of mine", "Confusion matrix of mine"]
    assert all(picture.light.startswith(b"\x89PNG") and picture.dark is None for picture in first.values())
    monkeypatch.setattr(model_pictures, "Subject", None)  # whoever makes another one fails
    assert drawn(workdir, pictures) == first


def test_a_pass_that_takes_too_long_is_left_out(workdir, monkeypatch):
    monkeypatch.setattr(model_pictures, "MOST_WORK", 1e6)
    told = drawn(workdir)["confusion"]
    assert told.light is None
    assert told.caption.startswith("Left out: a pass over 360 test images takes")
    assert f"visualize --workdir {workdir} --what confusion" in told.caption
    assert drawn(workdir)["kernels"].light


def test_counts_that_visualize_wrote_are_taken(workdir, monkeypatch):
    monkeypatch.setattr(model_pictures, "MOST_WORK", 0)
    (workdir / "pictures").mkdir()
    matrix = np.full((10, 10), 4) - 4 * np.eye(10, dtype=int)
    matrix[0, 0] = 40  # 40 of 400: the score of the result
    save_table(matrix, [f"class, {n}" for n in range(10)], workdir / "pictures/confusion.csv")
    assert drawn(workdir)["confusion"].light
    found, names = read_counts(read_run(workdir, "mine"))
    assert found.tolist() == matrix.tolist()
    assert names[3] == "class, 3"


def of_another_score(path):
    save_table(np.eye(10, dtype=int), list("0123456789"), path)


def of_a_longer_table(path):
    path.write_text("true class,0,1\n0,3,4\n")


def empty(path):
    path.write_text("")


def older(path):
    matrix = np.full((10, 10), 4)
    save_table(matrix, list("0123456789"), path)
    os.utime(path, (1, 1))


@pytest.mark.parametrize("made", [of_another_score, of_a_longer_table, empty, older])
def test_counts_of_another_state_are_not_taken(workdir, made):
    (workdir / "pictures").mkdir()
    made(workdir / "pictures/confusion.csv")
    assert read_counts(read_run(workdir, "mine")) is None


def test_what_is_missing_is_told(tmp_path):
    told = drawn(write_run(tmp_path / "run"))
    assert [picture.light for picture in told.values()] == [None, None]
    assert all("has no checkpoint yet" in picture.caption for picture in told.values())


def test_a_run_that_cannot_be_read_leaves_the_report_whole(tmp_path):
    run = write_run(tmp_path / "run\udcff")
    record = json.loads((run / "config.json").read_text())
    record["config"]["dataset"] = ["digits"]
    (run / "config.json").write_text(json.dumps(record))
    told = drawn(run).values()
    assert all(picture.caption.startswith("Left out: ") for picture in told)
    assert all((picture.title + picture.caption).encode() for picture in told)  # the name of the folder is no UTF-8
