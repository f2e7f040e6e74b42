"""The command draws what it can, says what it cannot, and its counts are those of the evaluation."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from convmixer_jax import visualize
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.examples import Examples
from convmixer_jax.errors import UserError
from convmixer_jax.inference import pictures
from convmixer_jax.inference.description import build
from convmixer_jax.inference.examination import Examination
from convmixer_jax.inference.loading import Weights
from convmixer_jax.inference.pictures import PICTURES
from convmixer_jax.inference.saving import save
from convmixer_jax.inference.subject import Subject, examples_of_classes
from convmixer_jax.training.metrics import EvalSums
from convmixer_jax.training.step import make_eval_step
from tests.inference.random_weights import random_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    monkeypatch.setattr(visualize, "start_jax", lambda compilation_cache: None)  # it would move this process's cache


@pytest.fixture
def weights(tmp_path, elsewhere):
    """Returns a function of fields of config.model to a converted directory of random weights."""

    def make(dataset: str = "digits", **model) -> Path:
        save(Weights(*random_weights(dataset, **model)), tmp_path / "weights", force=False)
        return tmp_path / "weights"

    return make


def evaluation_of_digits(description, variables) -> EvalSums:
    """What training's evaluation counts on the test split, by the reference operations."""
    split = load_split(DATASETS["digits"], "test", Path())
    step = make_eval_step(
        build(description, "reference"),
        take=lambda data, batch: batch,
        normalise=lambda images: (images / 255 - description.mean[0]) / description.std[0],
        flip=False,
        gather=lambda params: params,
    )
    batch = {"image": split.image, "label": split.label, "mask": np.ones(len(split), bool)}
    return jax.jit(step)(variables["params"], variables["batch_stats"], {}, batch)


def run(capsys, *arguments: str) -> tuple[int, list[str], str]:
    """Returns (exit code, lines of standard output, standard error)."""
    code = visualize.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_all_pictures_and_the_counts_of_the_evaluation(weights, capsys):
    directory = weights()
    code, out, err = run(capsys, "--workdir=weights", "--json")
    assert (code, err) == (0, "")
    names = (
        "embedding.png kernels.png kernels/00_block_0_depthwise.png cam.png confusion.png confusion.csv mistakes.png"
    )
    assert out[:-1] == [f"weights/pictures/{name}" for name in names.split()]
    assert json.loads(out[-1]) == {"pictures": out[:-1], "left_out": {}, "errors": []}
    for file in out[:-1]:
        if file.endswith(".png"):
            Image.open(file).load()
    with (directory / "pictures/confusion.csv").open() as table:
        rows = list(csv.reader(table))
    matrix = np.array([row[1:] for row in rows[1:]], int)
    assert rows[0][1:] == [row[0] for row in rows[1:]] == list("0123456789")
    evaluated = evaluation_of_digits(*random_weights())
    assert matrix.sum() == 360
    np.testing.assert_array_equal(matrix.sum(axis=1), evaluated.examples)
    np.testing.assert_array_equal(matrix.diagonal(), evaluated.correct)


def test_what_is_not_possible_is_left_out_and_told(weights, capsys):
    directory = weights("cifar10", variant="cnn", dim=256, depth=8, patch_size=2, kernel_size=5)
    Path("damaged").write_text("no archive")
    code, out, err = run(capsys, f"--workdir={directory}", "--data_dir=damaged", "--json", "--out=here")
    assert code == 0
    assert out[:-1] == ["here/embedding.png"]
    assert list(json.loads(out[-1])["left_out"]) == ["kernels", "cam", "confusion", "mistakes"]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["left out", name] for name in ("kernels", "cam", "confusion", "mistakes")
    ]
    assert "no depthwise convolution" in err.splitlines()[0]


def test_maps_over_given_images(weights, capsys):
    directory = weights()
    Path("photos").mkdir()
    for n in range(17):
        Image.new("RGB", (20, 30), (n, 0, 0)).save(f"photos/{n:02d}.png")
    Path("photos/03.png").write_text("<html>")
    code, out, err = run(capsys, "photos", "none.png", f"--workdir={directory}", "--what", "cam", "--json")
    assert code == 2  # though the rest is drawn
    assert out[:-1] == [f"{directory}/pictures/cam_000.png"]
    assert [error["file"] for error in json.loads(out[-1])["errors"]] == ["photos/03.png", "none.png"]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["error", "photos/03.png"], ["error", "none.png"]]


def test_any_name_is_drawn_and_what_an_earlier_start_left_is_removed(weights, capsys, monkeypatch, recwarn):
    monkeypatch.setattr(pictures, "IMAGES_PER_FIGURE", 3)
    directory, out = weights(), Path("here")
    names = ["cost_$5_and_$6.png", "\udcff.png", "猫.png", *(f"{n}.png" for n in range(6))]
    for name in names:
        Image.new("RGB", (8, 8)).save(name)
    assert run(capsys, *names, f"--workdir={directory}", "--out=here", "--what", "cam")[0] == 0
    drawn = ["cam_000.png", "cam_001.png", "cam_002.png"]
    assert sorted(file.name for file in out.iterdir()) == drawn
    Image.new("RGB", (8, 8)).save(out / "cam_001.png")  # somebody's own
    code, lines, err = run(capsys, *names[:3], f"--workdir={directory}", "--out=here", "--what", "cam")
    assert (code, lines) == (0, ["here/cam.png"])
    assert err.splitlines() == [f"removed: here/cam_{n}.png, of an earlier start" for n in ("000", "002")]
    assert sorted(file.name for file in out.iterdir()) == ["cam.png", "cam_001.png"]
    assert [str(warning.message) for warning in recwarn] == []


def test_logits_that_are_no_numbers_are_told(elsewhere, capsys, recwarn):
    description, variables = random_weights()
    negative = jax.tree.map(np.negative, variables["batch_stats"])  # each of them finite
    save(Weights(description, variables | {"batch_stats": negative}), Path("weights"), force=False)
    code, lines, err = run(capsys, "--workdir=weights", "--json")
    assert code == 0
    assert list(json.loads(lines[-1])["left_out"]) == ["cam", "confusion", "mistakes"]
    assert err.count("logits are NaN or infinite") == 3
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "--workdir"),
        (["--workdir=none"], "none"),
        (["--workdir=weights", "--what", "nothing"], "nothing"),
        (["--workdir=weights", "--what", "kernels", "mistakes", "--out=file/below"], "--out file/below"),
        (["--workdir=weights", "x.png", "--what", "kernels"], "x.png is an image, which only --what cam looks at"),
        (["--workdir=weights", "*.gif"], "*.gif"),
        (["--workdir=hub:timm/x"], "--workdir is hub:timm/x, which is no folder here: say with --out where to write"),
        (["--workdir=weights", "--what", "mistakes", "confusion"], "no test split"),
    ],
)
def test_mistakes_are_told_in_one_line(weights, capsys, arguments, told):
    directory = weights()
    record = json.loads((directory / "model.json").read_text())
    assert record["description"]["class_names"] == list("0123456789")
    Path("file").touch()
    if told == "no test split":
        record["description"] |= {"class_names": [f"digit {n}" for n in range(10)]}
        (directory / "model.json").write_text(json.dumps(record))
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == []
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err


def test_help_names_every_picture(capsys):
    with pytest.raises(SystemExit, match="0"):
        visualize.main(["--help"])
    told = capsys.readouterr().out
    assert all(f"{name}: {picture.meaning}" in told for name, picture in PICTURES.items())


def test_no_mistakes_are_none_to_draw(elsewhere):
    subject = Subject(*random_weights(), data_dir=Path(), image_files=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmixer_jax.inference.subject.examine", lambda *given: Examination(np.eye(10, dtype=int), []))
        with pytest.raises(UserError, match="makes no mistakes on the test split"):
            PICTURES["mistakes"].draw(subject, Path())


def test_examples_are_of_many_classes():
    split = Examples(np.zeros((60, 1, 1, 1), np.uint8), np.repeat(np.arange(20, dtype=np.int32), 3))
    chosen = split.label[examples_of_classes(split, 16)]
    assert len(set(chosen)) == 16
    assert (chosen[0], chosen[-1]) == (0, 19)
    assert examples_of_classes(split, 60).tolist() == list(range(0, 60, 3))
