"""The command writes what it says, compares it with the model, and tells what smaller models cost."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from convmixer_jax import export
from convmixer_jax.exporting.comparison import TOLERANCE, difference
from convmixer_jax.exporting.formats import FORMATS
from convmixer_jax.inference.loading import Asked, read_place
from convmixer_jax.inference.saving import save
from tests.exporting.models import compiled, digits_weights, make_weights, small_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A converted directory of a model that tells digits, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONVMIXER_DATA_DIR", raising=False)
    monkeypatch.setattr(export, "start_jax", lambda compilation_cache: None)  # it would move this process's cache
    save(digits_weights(), tmp_path / "digits", force=False)
    return tmp_path / "digits"


def test_one_file_for_each_format(place, capsys):
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    logits = compiled(digits_weights())(images)
    for name, row in FORMATS.items():
        suffix = row.suffix
        assert export.main(["--workdir=digits", f"--format={name}", "--json"]) == 0
        *table, last = capsys.readouterr().out.splitlines()
        told = json.loads(last)
        assert told["model"]["path"] == str(place.relative_to(place.parent) / f"export/model{suffix}")
        assert told["model"]["bytes"] == (place / f"export/model{suffix}").stat().st_size
        assert told["model"]["difference"] < TOLERANCE
        assert table[-1].startswith("logits differ from the model's by at most")
        found = FORMATS[name].load(place / f"export/model{suffix}")(images)
        np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def test_smaller_models_and_what_they_cost(place, capsys):
    flags = ["--int8", "--calibration_images=64", "--prune", "0", "0.5", "--batch_size", "2", "--repetitions=3"]
    assert export.main(["--workdir=digits", "--format=onnx", "--out=out/m.onnx", *flags, "--json"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert sorted(file.name for file in (place.parent / "out").iterdir()) == [
        "m.int8.onnx", "m.onnx", "m.pruned-0.5.onnx", "m.pruned-0.onnx",
    ]  # fmt: skip
    none, half = told["pruned"]
    assert (none["fraction"], half["fraction"]) == (0, 0.5)
    assert none["top1"] == told["model"]["top1"] >= half["top1"]
    assert half["top1"] > 0.2
    assert told["int8"]["bytes"] < told["model"]["bytes"]
    (row,) = told["speed"]["rows"]
    assert row["batch_size"] == 2
    assert list(row["milliseconds"]) == ["jax", "onnx", "int8"]
    assert all(0 < time["low"] <= time["median"] <= time["high"] for time in row["milliseconds"].values())
    lost = told["model"]["top1"] - half["top1"]
    assert f"{lost:.4f}  out/m.pruned-0.5.onnx" in table[4]


def test_a_pruned_file_holds_the_zeros(place, capsys):
    assert export.main(["--workdir=digits", "--format=safetensors", "--prune", "0.75"]) == 0
    params = read_place(place / "export/model.pruned-0.75.safetensors", Asked()).variables["params"]
    kernels = [values["kernel"] for values in params.values() if "kernel" in values]
    assert sum((kernel == 0).sum() for kernel in kernels) == round(0.75 * sum(kernel.size for kernel in kernels))
    assert "0.75 of the kernels pruned" in capsys.readouterr().out


def test_a_wrong_file_is_not_told_of():
    right = compiled(digits_weights())
    with pytest.raises(RuntimeError, match="logits differ by"):
        difference(lambda images: right(images) + 2e-4 * max(1, np.abs(right(images)).max()), right, (8, 8, 1))


def test_a_wrong_file_replaces_none(place, monkeypatch, capsys):
    row = FORMATS["stablehlo"]

    def load_wrongly(path):
        run = row.load(path)
        return lambda images: run(images) + 1e3

    monkeypatch.setitem(FORMATS, "stablehlo", dataclasses.replace(row, load=load_wrongly))
    arguments = ["--workdir=digits", "--format=stablehlo", "--out=out/m.stablehlo", "--force"]
    assert export.main(arguments) == 1
    assert "the file's logits differ by" in capsys.readouterr().err
    assert list((place.parent / "out").iterdir()) == []
    good = {"m.stablehlo": "good", "m.stablehlo.json": "good, too"}
    for name, text in good.items():
        (place.parent / "out" / name).write_text(text)
    assert export.main(arguments) == 1
    assert {file.name: file.read_text() for file in (place.parent / "out").iterdir()} == good


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_or_a_model_without_numbers_leaves_no_file(place, name, monkeypatch, capsys, recwarn):
    weights = digits_weights()
    monkeypatch.setitem(
        FORMATS, name, dataclasses.replace(FORMATS[name], load=lambda path: lambda x: np.full((len(x), 10), np.nan))
    )
    arguments = [f"--format={name}", f"--out=out/m{FORMATS[name].suffix}"]
    assert export.main(["--workdir=digits", *arguments]) == 1
    assert "the file's logits differ by nan" in capsys.readouterr().err
    negative = jax.tree.map(np.negative, weights.variables["batch_stats"])  # each of them finite
    variables = {**weights.variables, "batch_stats": negative}
    save(dataclasses.replace(weights, variables=variables), place.parent / "negative", force=False)
    assert export.main(["--workdir=negative", *arguments]) == 2
    assert "error: the model's logits are NaN or infinite" in capsys.readouterr().err
    assert list((place.parent / "out").iterdir()) == []
    assert list(recwarn) == []


def test_what_pytorch_has_to_be_told_is_printed(place, capsys):
    save(make_weights({"activation": "relu", "norm_epsilon": 1e-3}, (8, 8, 3)), place.parent / "relu", force=False)
    assert export.main(["--workdir=relu", "--format=safetensors", "--json"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    notes = [line for line in table if line.startswith("to be set in PyTorch: ")]
    assert json.loads(last)["notes"] == notes
    assert len(notes) == 2
    assert "act_layer: relu" in notes[0]
    assert "eps: 0.001" in notes[1]
    assert export.main(["--workdir=relu", "--format=onnx"]) == 0  # whose file holds both
    assert "PyTorch" not in capsys.readouterr().out


MISTAKES = {
    "--int8 is of --format onnx": ["--format=stablehlo", "--int8"],
    "'1' is no fraction": ["--format=onnx", "--prune", "1"],
    "'half' is no fraction": ["--format=onnx", "--prune", "half"],
    "--format: invalid choice: 'tflite'": ["--format=tflite"],
    "ends in .onnx": ["--format=onnx", "--out=model.pb"],
    "model.onnx is there already": ["--format=onnx", "--out=model.onnx"],
    "say with --out where to write": ["--format=onnx", "--workdir=hub:timm/convmixer_768_32.in1k"],
    "model.stablehlo.json is there already": ["--format=stablehlo", "--out=model.stablehlo"],
    "m.pruned-0.5.stablehlo.json is there already": ["--format=stablehlo", "--out=m.stablehlo", "--prune", "0.5"],
    "m.int8.onnx is there already": ["--format=onnx", "--out=m.onnx", "--int8"],
    "nowhere does not exist": ["--format=onnx", "--workdir=nowhere"],
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(words, place, capsys):
    there = ("model.onnx", "m.int8.onnx", "model.stablehlo.json", "m.pruned-0.5.stablehlo.json")
    for name in there:
        (place.parent / name).write_text("something")
    assert export.main(["--workdir=digits", *MISTAKES[words]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert {file.name: file.read_text() for file in place.parent.iterdir() if file.is_file()} == dict.fromkeys(
        there, "something"
    )


def test_missing_packages_are_named(place, monkeypatch, capsys):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert export.main(["--workdir=digits", "--format=onnx"]) == 2
    assert "onnx and onnxruntime, not installed here: pip install -r requirements-test.txt" in capsys.readouterr().err


def test_no_test_split_for_other_classes(place, capsys):
    save(small_weights("even kernel"), place.parent / "other", force=False)
    assert export.main(["--workdir=other", "--format=stablehlo", "--prune", "0.5"]) == 2
    assert "there is no test split" in capsys.readouterr().err
