"""PyTorch's side does the same work as ours: the same update of the same weights, the same logits."""

import contextlib
import sys

import jax
import numpy as np
import pytest
import torch

from convmixer_jax.benchmarks import torch_side
from convmixer_jax.benchmarks.ours import FixedBatch, Updates, assembled, placed, random_batch
from convmixer_jax.benchmarks.torch_model import ACTIVATIONS, ConvMixer
from convmixer_jax.benchmarks.torch_side import MODES, build_torch, check_comparable, make_forward, make_update
from convmixer_jax.benchmarks.workers import UnavailableError
from convmixer_jax.errors import UserError
from convmixer_jax.ops.activations import ACTIVATIONS as OUR_ACTIVATIONS
from tests.benchmarks.sides import small_config
from tests.reference.torch_convmixer import load_variables, read_parameters

FIXED = FixedBatch(12, 5)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    # The tensors are tiny, and threads that wait for one another take seconds where the processors are busy.
    monkeypatch.setattr(torch_side, "usable_cores", lambda: 1)
    torch.set_num_threads(1)


def test_both_make_the_same_updates(quick_compilation):
    config = small_config()
    config.optimizer.clip_norm, config.optimizer.decay_mask = 0.05, "kernels"  # a norm that every gradient exceeds
    experiment = assembled(config, FIXED)
    updates = Updates(experiment, placed(experiment, 6, ("image", "target")), None)
    model = ConvMixer(
        channels=3, dim=8, depth=1, patch_size=4, kernel_size=3, num_classes=5, activation=ACTIVATIONS["gelu"]
    )
    load_variables(model, {"params": updates.state.params, "batch_stats": updates.state.batch_stats})
    before = jax.device_get(updates.state.params)
    batch = random_batch(experiment.dataset, 6)
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
    update = make_update(model, config, images, torch.from_numpy(batch["target"]), contextlib.nullcontext)
    for _ in range(3):
        updates(1)
        update()
    theirs = read_parameters(model)
    for path, ours in jax.tree.leaves_with_path(updates.state.params):
        other, start = (tree[path[0].key][path[1].key] for tree in (theirs, before))
        moved = np.abs(ours - start).max()
        assert moved > 1e-5, path
        # float32 over three updates, 1e-7 each of weights below 1; clip_grad_norm_ divides by the norm + 1e-6.
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-4 * moved + 1e-6, err_msg=str(path))


@pytest.mark.parametrize("mode", [name for name in MODES if name.startswith("eager")])
@pytest.mark.parametrize("training", [True, False])
def test_every_eager_mode_runs(mode, training):
    side = build_torch(small_config(), FIXED, mode, training, "cpu")
    side.run(2)
    assert side.images == 6
    assert side.device_peak_bytes() is None
    assert side.facts["dtype"] == mode.split("-")[-1]
    assert side.facts["compile_seconds"] is None


def test_modes_are_what_their_names_say(monkeypatch):
    seen = {}

    def look(model, config, images, targets, autocast):
        with autocast():
            seen["dtype"] = str(model(images).dtype).removeprefix("torch.")
        seen["nhwc"] = images.is_contiguous(memory_format=torch.channels_last)
        seen["training"] = model.training
        return lambda: None

    compiled = []
    monkeypatch.setattr(torch_side, "make_update", look)
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    monkeypatch.setattr(torch_side.shutil, "which", lambda name: name)
    for name, mode in MODES.items():
        compiled.clear()
        side = build_torch(small_config(), FIXED, name, True, "cpu")
        assert seen == {"dtype": mode.dtype, "nhwc": mode.channels_last, "training": True}
        assert bool(compiled) == mode.compiled == (side.facts["compile_seconds"] is not None)
    assert len(MODES) == 8


def test_every_activation_has_its_module():
    assert set(ACTIVATIONS) == set(OUR_ACTIVATIONS)


def test_evaluation_leaves_the_statistics():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).eval()
    images = torch.full((2, 3, 4, 4), 5.0)
    make_forward(model, images, contextlib.nullcontext)()
    assert model[0].num_batches_tracked == 0


def test_a_broken_pytorch_is_told_in_one_line(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libc10.so: cannot open\\nand a page more')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(UnavailableError, match="^PyTorch cannot be imported: libc10.so: cannot open$"):
        build_torch(small_config(), FIXED, "eager-nchw-float32", True, "cpu")


def test_compiling_without_a_compiler_is_told(monkeypatch):
    monkeypatch.setattr(torch_side.shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match="needs a C\\+\\+ compiler"):
        build_torch(small_config(), FIXED, "compiled-nchw-float32", True, "cpu")


def test_a_failing_compilation_is_told_in_one_line(monkeypatch):
    def fail(images):
        raise RuntimeError("no Python.h\nand a page more")

    monkeypatch.setattr(torch_side, "compiled_model", lambda model, device: fail)
    with pytest.raises(UnavailableError, match="torch.compile failed: no Python.h$"):
        build_torch(small_config(), FIXED, "compiled-nchw-float32", False, "cpu")
    with pytest.raises(UserError, match="--modes is 'eager'"):
        build_torch(small_config(), FIXED, "eager", False, "cpu")
    with pytest.raises(UserError, match="the platform is 'tpu'"):
        build_torch(small_config(), FIXED, "eager-nchw-float32", False, "tpu")


def test_what_cannot_be_compared_is_refused(monkeypatch):
    check_comparable(small_config())
    for name, value in (("model.drop_path", 0.1), ("accumulate_steps", 2), ("ema_decay", 0.9)):
        config = small_config()
        config.update_from_flattened_dict({name: value})
        with pytest.raises(UserError, match=f"config.{name} is {value}: .* set --config.{name}="):
            check_comparable(config)
    monkeypatch.setattr(torch_side.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install -r requirements-test.txt"):
        check_comparable(small_config())
