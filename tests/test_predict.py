"""The command tells what images show, and `convmixer_jax.load` gives the same to a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import convmixer_jax
from convmixer_jax import predict
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.inference import loading, prediction
from convmixer_jax.inference.prediction import Candidate, Prediction
from tests.commands import ROOT
from tests.inference.stand_in import loaded_levels, write_level


@pytest.fixture
def levels(tmp_path, monkeypatch):
    """A folder with images of the levels 0 to 5, and a model that tells them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict, "start_jax", lambda compilation_cache: None)  # it would move this process's cache
    monkeypatch.setattr(loading, "load_weights", lambda path: loaded_levels(7))
    for level in range(6):
        write_level(Path(f"photos/{level}.png"), level)
    return tmp_path


def test_a_table(levels, capsys):
    assert predict.main(["--workdir=run", "photos/2.png", "photos/5.png", "--top=2", "--batch_size=1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    # Of level 2: 1 / (1 + 2/e + 2/e^2 + 1/e^3 + 1/e^4), and 1/e of it.
    assert out.splitlines() == [
        "file          probability  class",
        "photos/2.png       48.20%  level 2",
        "                   17.73%  level 1",
        "photos/5.png       51.39%  level 5",
        "                   18.91%  level 4",
    ]


def test_a_folder_as_json(levels, capsys):
    assert predict.main(["--workdir=run", "photos", "--json", "--batch_size=4"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert [row["file"] for row in told["predictions"]] == [f"photos/{level}.png" for level in range(6)]
    assert [row["top"][0]["index"] for row in told["predictions"]] == list(range(6))
    assert told["errors"] == []
    third = told["predictions"][2]["top"]
    assert [candidate["class"] for candidate in third] == ["level 2", "level 1", "level 3", "level 0", "level 4"]
    assert third[0]["probability"] == pytest.approx(0.4820, abs=1e-4)
    assert len(table) == 1 + 6 * 5


def test_a_bad_file_is_named_and_the_others_go_on(levels, capsys):
    Path("photos/3.png").write_text("<html>")
    Path("photos/\udce4.png").write_bytes(b"")  # a name that is no UTF-8
    code = predict.main(["--workdir=run", "none.png", "*.gif", "photos", "--top=1", "--json"])
    out, err = capsys.readouterr()
    assert code == 2
    bad = ["*.gif", "none.png", "photos/3.png"]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["error", name] for name in (*bad, "photos/\ufffd.png")
    ]
    told = json.loads(out.splitlines()[-1])
    assert [row["top"][0]["index"] for row in told["predictions"]] == [0, 1, 2, 4, 5]
    assert [row["file"] for row in told["errors"]] == [*bad, "photos/\udce4.png"]


def test_json_has_no_nan(levels, capsys, monkeypatch):
    monkeypatch.setattr(
        prediction, "predict_images", lambda *given: [Prediction("a", (Candidate("cat\n", 0, np.nan),))]
    )
    assert predict.main(["--workdir=run", "photos/0.png", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)
    assert told["predictions"] == [{"file": "a", "top": [{"class": "cat\n", "index": 0, "probability": None}]}]


def test_more_classes_than_there_are(levels, capsys):
    assert predict.main(["--workdir=run", "photos/0.png", "--top=100"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 7


def test_where_nothing_is_found_nothing_is_loaded(levels, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_weights", None)
    Path("empty").mkdir()
    assert predict.main(["--workdir=run", "empty"]) == 2
    assert capsys.readouterr() == ("", "error: empty: there is no image in it\n")


@pytest.mark.parametrize("arguments, told", [
    (["a.png"], "--workdir"),
    (["--workdir=run"], "IMAGE"),
    (["--workdir=run", "a.png", "--top=0"], "'0' is no positive whole number"),
    (["--workdir=run", "a.png", "--bach_size=3"], "--bach_size=3"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(levels, capsys, arguments, told):
    assert predict.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err


def test_no_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "start_jax", lambda compilation_cache: None)
    assert predict.main([f"--workdir={tmp_path}", write_level(tmp_path / "a.png", 1)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {tmp_path} ")


def in_a_process(source: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(cwd), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


PREDICT = """
import sys
from convmixer_jax.predict import main
code = main()
print(sorted({"tensorflow", "torch", "sklearn", "matplotlib"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def test_a_run_is_used_by_the_command_and_by_a_program(untrained, tmp_path):
    digits = DATASETS["digits"].load(Path("/nonexistent"), "test").image[:12]
    paths = [tmp_path / f"digits/{n:02d}.png" for n in range(12)]
    paths[0].parent.mkdir()
    for path, image in zip(paths, digits, strict=True):
        Image.fromarray(image[..., 0]).save(path)

    arguments = ["--workdir", str(untrained), "digits", "--json", "--batch_size=5"]
    done = in_a_process(PREDICT, *arguments, cwd=tmp_path)
    told = [line for line in done.stderr.splitlines() if not line.startswith("compiling the operations for this")]
    assert (done.returncode, told) == (0, ["[]"])  # of TensorFlow and the like nothing is needed
    assert any((tmp_path / ".cache/convmixer_jax/compiled").iterdir())
    told = json.loads(done.stdout.splitlines()[-1])["predictions"]

    model, variables, preprocess = convmixer_jax.load(untrained)
    images = preprocess(paths)
    np.testing.assert_allclose(images, (digits / 255 - 0.3056) / 0.3759, atol=1e-5)
    logits = model.apply(variables, images, train=False)
    assert (logits.shape, logits.dtype) == ((12, 10), np.float32)
    probabilities = np.asarray(jax.nn.softmax(logits))
    for row, expected in zip(told, probabilities, strict=True):
        assert row["top"][0]["index"] == expected.argmax()
        found = [candidate["probability"] for candidate in row["top"]]
        np.testing.assert_allclose(found, np.sort(expected)[::-1][:5], atol=1e-5)

    # Inside of jax.jit and outside, by position and by name: the same program, and what the reference computes.
    inside = jax.jit(lambda images: model.apply(variables, images, train=False))(images)
    np.testing.assert_allclose(inside, logits, atol=1e-5)
    np.testing.assert_array_equal(model.apply(variables, images, False), logits)
    plain, _, _ = convmixer_jax.load(str(untrained), ops="reference")
    np.testing.assert_allclose(plain.apply(variables, images, train=False), logits, atol=1e-4)
    gradient = jax.grad(lambda images: plain.apply(variables, images, train=False).max())(images)
    assert np.abs(gradient).max() > 0
