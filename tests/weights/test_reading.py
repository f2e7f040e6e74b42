"""Whatever a training script put around the tensors, they are found; what is no weights is refused in one line."""

import argparse
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convmixer_jax.errors import UserError
from convmixer_jax.weights.reading import read_torch_file

RAW = {"stem.0.weight": torch.tensor([[1.5, -2.0]]), "stem.2.num_batches_tracked": torch.tensor(7)}
AVERAGE = {name: tensor + 1 for name, tensor in RAW.items()}


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


# What torch.save was given, and the prefix of the names in it.
FORMS: dict[str, tuple[Any, str]] = {
    "state_dict": (RAW, ""),
    "parameters": ({name: torch.nn.Parameter(tensor, tensor.is_floating_point()) for name, tensor in RAW.items()}, ""),
    "DataParallel": (prefixed("module.", RAW), "module."),
    "compiled": (prefixed("_orig_mod.", RAW), "_orig_mod."),
    "compiled, then parallel": (prefixed("module._orig_mod.", RAW), "module._orig_mod."),
    "entry state_dict": ({"epoch": 3, "state_dict": RAW, "optimizer": {"state": {}}}, ""),
    "entry model": ({"model": prefixed("module.", RAW)}, "module."),
    "timm's": ({"state_dict": RAW, "state_dict_ema": AVERAGE, "args": argparse.Namespace(lr=0.1), "metric": 81.4}, ""),
}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("content, prefix", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("suffix", [".PTH", ".pth.tar", ".pt", ".bin"])
def test_the_tensors_are_found(tmp_path, content, prefix, suffix):
    file = read_torch_file(saved(tmp_path / f"x{suffix}", content), ema=False)
    assert file.prefix == prefix
    assert file.has_ema == ("state_dict_ema" in content)
    assert list(file.tensors) == list(RAW)
    assert file.tensors["stem.0.weight"].dtype == np.float32
    assert file.tensors["stem.0.weight"].tolist() == [[1.5, -2.0]]
    assert int(file.tensors["stem.2.num_batches_tracked"]) == 7


@pytest.mark.parametrize("entry", ["state_dict_ema", "model_ema"])
def test_the_moving_average_is_taken_where_it_is_asked_for(tmp_path, entry):
    path = saved(tmp_path / "x.pth", {"state_dict": RAW, entry: prefixed("module.", AVERAGE)})
    file = read_torch_file(path, ema=True)
    assert file.tensors["stem.0.weight"].tolist() == [[2.5, -1.0]]
    assert not file.has_ema


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_no_moving_average_is_told(tmp_path, name):
    path = tmp_path / name
    save_file(RAW, path) if name.endswith("s") else torch.save(RAW, path)
    with pytest.raises(UserError, match=r"has no moving average .*leave --ema out"):
        read_torch_file(path, ema=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_precision_becomes_float32_exactly(tmp_path, dtype, suffix):
    # Every value of the format but for the NaNs, whose payload does not matter.
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    values = values[~values.isnan()]
    path = tmp_path / f"x{suffix}"
    save_file({"w": values}, path) if suffix == ".safetensors" else torch.save({"w": values}, path)
    read = read_torch_file(path, ema=False).tensors["w"]
    assert read.dtype == np.float32
    assert np.array_equal(read, values.to(torch.float64).numpy())


def test_safetensors_come_with_their_metadata(tmp_path):
    save_file(prefixed("module.", RAW), tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = read_torch_file(tmp_path / "x.safetensors", ema=False)
    assert (file.prefix, dict(file.metadata), sorted(file.tensors)) == ("module.", {"format": "pt"}, sorted(RAW))


class Malicious:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made",)


def test_a_pickle_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "x.pth", {"state_dict": RAW, "extra": Malicious()})
    with pytest.raises(
        UserError,
        match=r"x\.pth is damaged, or holds more than weights \(it asks for posix\.mkdir\); nothing in it was run",
    ):
        read_torch_file(path, ema=False)
    assert not (tmp_path / "made").exists()


REFUSED: dict[str, tuple[Any, str]] = {
    "no mapping": ([1, 2], "holds list, no state_dict"),
    "no tensors": ({"epoch": 3, "optimizer": {}}, r"has no tensors: among its entries \(epoch, optimizer\) is none of"),
    "something else among them": ({**RAW, "epoch": 3}, r"x\.pth: epoch is int, no tensor"),
    "numbers for names": ({0: torch.zeros(2)}, r"x\.pth has an entry 0, which names no tensor: save model.state_dict"),
    "sparse": ({"w": torch.eye(2).to_sparse()}, r"w is of a kind that cannot be read \(sparse_coo, float32\): weights"),
    "float8": ({"w": torch.ones(2).to(torch.float8_e4m3fn)}, r"w is of a kind .*\(strided, float8_e4m3fn\): weights"),
    "a counter that is none": (
        {"n.num_batches_tracked": torch.tensor(float("nan"))},
        r"x\.pth: n.num_batches_tracked is nan: it counts batches; the file is damaged",
    ),
    "a module": (torch.nn.Flatten(), r"\(it asks for torch.nn.modules.flatten.Flatten\); nothing in it was run"),
    "quantised": ({"state_dict": {"w": torch.zeros(2, dtype=torch.int8)}}, r"x\.pth: w is of dtype int8: weights are"),
}


@pytest.mark.parametrize("content, words", REFUSED.values(), ids=REFUSED)
def test_what_is_no_weights_is_refused(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read_torch_file(saved(tmp_path / "x.pth", content), ema=False)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_file_that_is_cut_short_is_refused(tmp_path, suffix, length):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    save_file(RAW, whole) if suffix == ".safetensors" else torch.save(RAW, whole)
    cut.write_bytes(whole.read_bytes()[: min(length, whole.stat().st_size - 1)])
    with pytest.raises(UserError, match=rf"cut\{suffix} (is damaged|cannot be read)"):
        read_torch_file(cut, ema=False)


UNREADABLE = {
    "empty": (b"", r"x\.pth is damaged, or holds more than weights \(it is empty\); nothing"),
    "a page": (b"<html>", r"\(it is cut short, or not of torch.save\); nothing"),
    "protocol 4": (pickle.dumps({"w": 1}, protocol=4), r"\(it is a pickle of protocol 4 or 5, and protocol 2 alone"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content, words", UNREADABLE.values(), ids=UNREADABLE)
def test_a_reason_is_a_few_words_and_no_warning(tmp_path, content, words):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_torch_file(tmp_path / "x.pth", ema=False)


def test_a_counter_that_was_made_a_float_is_a_whole_number(tmp_path):
    path = saved(tmp_path / "x.pth", {"n.num_batches_tracked": torch.tensor(7, dtype=torch.bfloat16)})
    counter = read_torch_file(path, ema=False).tensors["n.num_batches_tracked"]
    assert (counter.dtype, int(counter)) == (np.int64, 7)


def test_safetensors_of_a_dtype_that_numpy_lacks(tmp_path):
    save_file({"w": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"x\.safetensors: w is of dtype F8_E4M3, which is not read: weights are dense"):
        read_torch_file(tmp_path / "x.safetensors", ema=False)


def test_pytorch_may_be_missing(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.pth", RAW)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="PyTorch is not installed: pip install torch"):
        read_torch_file(path, ema=False)
