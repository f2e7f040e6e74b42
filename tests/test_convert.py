"""Conversions from the command line: what is told, what is written, and every mistake in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from convmixer_jax.convert import main
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.inference.loading import Weights
from convmixer_jax.inference.saving import save
from tests.inference.random_weights import random_weights
from tests.weights.models import SMALL, random_images, random_model

pytestmark = pytest.mark.usefixtures("elsewhere", "quick_compilation")


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return random_model(SMALL, 10, random_images(SMALL, 5)).state_dict()


@pytest.fixture
def file(tmp_path, elsewhere, tensors) -> str:
    torch.save({"state_dict": tensors, "state_dict_ema": {k: v + 1 for k, v in tensors.items()}}, tmp_path / "x.pth")
    return "x.pth"


def convert(capsys, *arguments: str) -> str:
    """Returns what a conversion tells."""
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def refused(capsys, *arguments: str) -> str:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_a_file_to_a_directory_and_back_keeps_every_bit(capsys, file, tensors):
    told = convert(capsys, "--from", file, "--to", "there/x", "--dataset", "cifar10")
    # 3 p^2 h + 3 h + d (k^2 h + h^2 + 6 h) + h n + n with h 8, d 2, p 2, k 4, n 10; 2 h for each of 5 norms.
    assert "convmixer-8/2, patches of 2, kernels of 4, gelu; images of 32x32, 10 classes\n" in told
    assert "690 parameters, 80 statistics\n" in told
    assert "the moving average of the weights is there, too: --ema takes it\n" in told
    assert told.endswith("written to there/x\n")
    assert convert(capsys, "--from", "there/x", "--to", "back/y.safetensors").endswith(
        "written to back/y.safetensors\n"
    )
    with safe_open("back/y.safetensors", framework="pt") as back:
        assert back.metadata()["format"] == "pt"
        assert set(back.keys()) == set(tensors)
        for name, tensor in tensors.items():
            found = back.get_tensor(name)
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found, tensor), name


def test_the_moving_average(capsys, file, tensors):
    convert(capsys, "--from", file, "--to", "y.safetensors", "--dataset", "cifar10", "--ema")
    with safe_open("y.safetensors", framework="pt") as back:
        assert torch.equal(back.get_tensor("head.bias"), tensors["head.bias"] + 1)


def test_what_the_shapes_do_not_say(capsys, file):
    arguments = ["--from", file, "--to", "x", "--dataset", "imagenet", "--activation", "relu", "--image_size", "160"]
    assert "relu; images of 160x160, 10 classes without names\n" in convert(capsys, *arguments)
    description = json.loads(Path("x/model.json").read_text())["description"]
    assert description["image_shape"] == [160, 160, 3]
    assert description["mean"] == list(DATASETS["imagenet"].mean)
    told = convert(capsys, "--from", "x", "--to", "y.safetensors")
    assert "to be set in PyTorch: act_layer: relu" in told


def test_a_run_is_released(capsys, untrained):
    told = convert(capsys, "--from", "run", "--to", "y.safetensors")
    assert "convmixer-4/1, patches of 1, kernels of 3" in told
    with safe_open("y.safetensors", framework="pt") as back:
        assert back.get_tensor("stem.2.num_batches_tracked").item() == 0
        assert back.get_tensor("stem.0.weight").shape == (4, 1, 1, 1)
    line = refused(capsys, "--from", "run", "--to", "z", "--dataset", "digits")
    assert "--dataset is 'digits': run is a workdir, which says that itself; leave it out" in line


def test_another_programs_description_is_left_as_it_is(capsys, file):
    Path("there").mkdir()
    Path("there/model.json").write_text("{}")
    line = refused(capsys, "--from", file, "--to", "there", "--dataset", "cifar10", "--force")
    assert "there/model.json is not of a conversion" in line
    assert [path.name for path in Path("there").iterdir()] == ["model.json"]


def test_weights_for_one_size_of_images_are_not_written_for_another(capsys, elsewhere):
    save(Weights(*random_weights("cifar10", variant="cnn")), Path("cnn"), force=False)
    line = refused(capsys, "--from", "cnn", "--to", "y", "--image_size", "64")
    assert "--image_size is 64: random weights has (2048, 256) for params/hidden/kernel" in line
    assert not Path("y").exists()
    assert "\ncnn; images of 32x32" in "\n" + convert(capsys, "--from", "cnn", "--to", "y")


def test_nothing_is_overwritten_unless_forced(capsys, file):
    for target in ("there", "y.safetensors"):
        arguments = ["--from", file, "--to", target, "--dataset", "cifar10"]
        convert(capsys, *arguments)
        assert f"--to {target} is there already: give --force" in refused(capsys, *arguments)
        convert(capsys, *arguments, "--force")


MISTAKES = {
    "nothing": ([], "required: --from, --to"),
    "no data set": (["--to", "y"], "x.pth has 10 classes and does not say of what"),
    "unknown data set": (["--to", "y", "--dataset", "cifar"], "did you mean cifar10?"),
    "unknown activation": (["--to", "y", "--activation", "tanh"], "--activation is 'tanh': choose one of gelu, relu"),
    "no number": (["--to", "y", "--image_size", "0"], "'0' is no positive whole number"),
    "too small": (["--to", "y", "--dataset", "cifar10", "--image_size", "1"], "takes images of 2 to 4096 pixels a si"),
    "too large": (["--to", "y", "--dataset", "cifar10", "--image_size", "4097"], "--image_size is 4097: the model tak"),
    "another format": (["--to", "y.PTH", "--dataset", "cifar10"], "--to y.PTH: of PyTorch's formats .safetensors is"),
    "a file for a folder": (["--to", "x.pth/y", "--dataset", "cifar10"], "x.pth/y cannot be written"),
    "a file": (["--to", "x.txt", "--dataset", "cifar10"], "--to x.txt is a file: name a folder"),
    "a folder": (["--to", "f.SafeTensors", "--dataset", "cifar10"], "--to f.SafeTensors is a folder: name a file"),
    "full": (["--to", "full", "--dataset", "cifar10"], "--to full is there already: give --force"),
    "unknown flag": (["--to", "y", "--frobnicate"], "--help shows what is accepted"),
}


@pytest.mark.parametrize("arguments, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(capsys, tmp_path, file, arguments, words):
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "f.SafeTensors").mkdir()
    (tmp_path / "full/of").mkdir(parents=True)
    assert words in refused(capsys, *(["--from", file] if arguments else []), *arguments)
    assert not (tmp_path / "y").exists()
