"""Weights come from workdirs, converted directories and files; each is described, and what does not fit is told."""

import contextlib
import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import quickest_ops
from convmixer_jax.inference.loading import Asked, Weights, find_place, load_weights, read_place, resized
from convmixer_jax.inference.saving import check_target, save
from convmixer_jax.models.variants import VARIANTS
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.weights.names import flat
from tests.commands import DIGITS as RECIPE
from tests.commands import SMALL as MODEL
from tests.inference.random_weights import random_weights
from tests.weights.models import SMALL, random_images, random_model, their_logits, to_variables
from tests.workdirs import make_workdir

pytestmark = pytest.mark.usefixtures("quick_compilation")
CIFAR10 = Asked(dataset="cifar10")


@pytest.fixture(scope="module")
def model():
    return random_model(SMALL, 10, random_images(SMALL, 5))


@pytest.fixture
def file(tmp_path, model) -> Path:
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def assert_same(found: Weights, expected: Weights) -> None:
    ours, theirs = flat(found.variables), flat(expected.variables)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert dataclasses.replace(found.description, source="") == dataclasses.replace(expected.description, source="")
    assert dict(found.counters) == dict(expected.counters)


def test_a_file_is_described_by_its_shapes_and_its_data_set(file):
    weights = read_place(file, CIFAR10)
    description, cifar10 = weights.description, DATASETS["cifar10"]
    assert {name: description.model[name] for name in SMALL} == SMALL
    assert (description.model["variant"], description.model["norm_epsilon"]) == ("convmixer", 1e-5)
    assert (description.num_classes, description.class_names) == (10, cifar10.class_names)
    assert (description.image_shape, description.mean) == ((32, 32, 3), cifar10.mean)
    assert description.source == str(file)
    assert set(weights.counters.values()) == {3}


def test_a_thousand_classes_are_imagenets(tmp_path):
    torch.save(random_model(SMALL, 1000, random_images(SMALL, 5)).state_dict(), tmp_path / "x.pth")
    loaded = load_weights(tmp_path / "x.pth", ops="reference")
    assert (loaded.description.image_shape, loaded.description.crop_pct) == ((224, 224, 3), 0.96)
    assert len(loaded.description.class_names) == 1000


def test_a_model_that_was_tuned_on_something_else_has_no_names(file):
    description = read_place(file, Asked(dataset="imagenet")).description
    assert (description.num_classes, description.class_names) == (10, ())
    assert description.image_shape == (224, 224, 3)


def test_the_directory_and_the_file_of_ours_hold_the_same(tmp_path, file):
    weights = read_place(file, CIFAR10)
    odd = dataclasses.replace(weights.description, model={**weights.description.model, "norm_epsilon": 1e-3})
    weights = dataclasses.replace(weights, description=odd)
    save(weights, tmp_path / "there", force=False)
    save(weights, tmp_path / "x.safetensors", force=False)
    # Neither is asked what it is of: both say so themselves.
    assert_same(read_place(tmp_path / "there", Asked()), weights)
    assert_same(read_place(tmp_path / "x.safetensors", Asked()), weights)
    assert read_place(tmp_path / "x.safetensors", Asked(activation="relu")).description.model["activation"] == "relu"


def test_loaded_weights_give_pytorchs_logits(tmp_path, file, model):
    save(read_place(file, CIFAR10), tmp_path / "there", force=False)
    loaded = load_weights(tmp_path / "there", ops="reference")
    images = random_images(SMALL, 5).astype(np.float32)
    ours = loaded.model.apply(loaded.variables, images, train=False)
    # float32 has 7 digits, and the sums have up to 128 terms.
    assert np.allclose(ours, their_logits(model, images, "float32"), atol=1e-5)


def test_a_workdir_gives_its_newest_checkpoint(untrained):
    weights = read_place(untrained, Asked())
    assert (weights.description.num_classes, weights.description.image_shape) == (10, (8, 8, 1))
    assert weights.description.model["dim"] == 4
    assert weights.description.source == f"{untrained}, step 22"
    assert not weights.has_ema
    with pytest.raises(UserError, match=r"has no moving average \(its config.ema_decay is 0\)"):
        read_place(untrained, Asked(ema=True))


def test_a_repository_is_read_as_the_file_that_it_holds(file, monkeypatch):
    monkeypatch.setattr("convmixer_jax.inference.loading.download", lambda place: file)
    assert find_place("hub:timm/x") == ("weights file", file)
    assert read_place("hub:timm/x", CIFAR10).description.source == "hub:timm/x"


def test_what_is_no_place_is_told_with_all_that_are(tmp_path):
    (tmp_path / "x.txt").write_text("")
    for name, what in (("x.txt", "holds no weights"), ("nowhere", "does not exist"), ("", "holds no weights")):
        with pytest.raises(UserError) as told:
            load_weights(tmp_path / name)
        for words in (
            what,
            "workdir (with config.json)",
            "directory (with model.json)",
            ".safetensors, .pth",
            "hub:ORG",
        ):
            assert words in str(told.value)
    with pytest.raises(UserError, match="~nobody-of-this-name/x: .*give the path itself"):
        find_place("~nobody-of-this-name/x")


def test_a_file_that_does_not_say_what_it_is_of(file):
    with pytest.raises(UserError, match=r"x.pth has 10 classes and does not say of what: .*--dataset NAME; cifar10, "):
        load_weights(file)
    with pytest.raises(UserError, match="x.pth has images of 3 channels, those of digits have 1"):
        read_place(file, Asked(dataset="digits"))
    with pytest.raises(UserError, match=r"--dataset is 'cifar' \(did you mean cifar10\?\)"):
        read_place(file, Asked(dataset="cifar"))


def test_a_file_of_ours_whose_head_was_replaced_has_no_names(tmp_path, file):
    save(read_place(file, CIFAR10), tmp_path / "x.safetensors", force=False)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as content:
        metadata = content.metadata()
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    tensors |= {"head.weight": torch.zeros(12, SMALL["dim"]), "head.bias": torch.zeros(12)}
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    description = read_place(tmp_path / "x.safetensors", Asked()).description
    assert (description.num_classes, description.class_names, description.image_shape) == (12, (), (32, 32, 3))


def test_a_file_that_says_what_it_is_of_needs_no_other_data_set(tmp_path, file):
    names = tuple(f"animal {n}" for n in range(10))
    weights = read_place(file, CIFAR10)
    animals = dataclasses.replace(weights, description=dataclasses.replace(weights.description, class_names=names))
    save(animals, tmp_path / "x.safetensors", force=False)
    for asked, expected in ((Asked(default_dataset="cifar10"), names), (CIFAR10, DATASETS["cifar10"].class_names)):
        assert read_place(tmp_path / "x.safetensors", asked).description.class_names == expected
    assert read_place(file, Asked(default_dataset="cifar10")).description == weights.description


@pytest.mark.parametrize("ops", [None, "auto", "reference", "channel_major"])
def test_the_operations_may_be_chosen(file, tmp_path, ops):
    save(read_place(file, CIFAR10), tmp_path / "there", force=False)
    found = load_weights(tmp_path / "there", ops=ops)
    quickest = quickest_ops(found.description)
    assert found.ops == found.model.ops == (quickest if ops in (None, "auto") else ops)


def test_unknown_operations_are_told_before_anything_is_read():
    with pytest.raises(UserError, match="ops is 'nonsense': choose one of auto, reference, "):
        load_weights("nowhere", ops="nonsense")


def test_the_moving_average_of_a_workdir(tmp_path, elsewhere):
    run = tmp_path / "run"
    make_workdir(run, [*RECIPE, *MODEL, "--config.ema_decay=0.9"], step=22)
    with contextlib.closing(Checkpoints(run / "checkpoints", read_only=True)) as checkpoints:
        tree = checkpoints.restore_groups(22, ["params", "batch_stats", "ema"])
    raw, asked = read_place(run, Asked()), read_place(run, Asked(ema=True))
    assert_same(raw, dataclasses.replace(raw, variables={name: tree[name] for name in ("params", "batch_stats")}))
    assert_same(asked, dataclasses.replace(raw, variables=tree["ema"]))
    # Its statistics are those before the first update, the others are not.
    assert not np.array_equal(*(found.variables["batch_stats"]["stem_norm"]["mean"] for found in (raw, asked)))
    record = json.loads((run / "config.json").read_text())
    record["config"]["eval_params"] = "ema"
    (run / "config.json").write_text(json.dumps(record))
    assert_same(read_place(run, Asked()), asked)
    assert (raw.has_ema, asked.has_ema) == (True, False)


CONFIGS = {
    "no object": ({"config": [1]}, "config.json names no config: it is not as this program wrote it"),
    "nothing": ({"dim": 4}, "config.json names no config: it is not as this program wrote it"),
    "no model": ({"config": {"dataset": "digits", "model": [1]}}, r"step 22 has \[1\] for config.model, no fields"),
    "a newer field": (
        {"config": {"dataset": "digits", "model": {"spin": 1}}},
        "run, step 22 has config.model.spin, which this version does not know: take a newer one",
    ),
}


@pytest.mark.parametrize("record, words", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_is_none_or_newer_is_told(untrained, record, words):
    (untrained / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=words):
        read_place(untrained, Asked())


def test_the_moving_average_of_a_converted_directory(tmp_path, file):
    save(read_place(file, CIFAR10), tmp_path / "there", force=False)
    with pytest.raises(UserError, match="one set of variables: leave --ema out"):
        read_place(tmp_path / "there", Asked(ema=True))


def test_a_directory_whose_weights_are_not_its_models(tmp_path, file):
    save(read_place(file, CIFAR10), tmp_path / "there", force=False)
    path = tmp_path / "there/model.json"
    record = json.loads(path.read_text())
    record["description"]["model"]["kernel_size"] = 3
    path.write_text(json.dumps(record))
    words = r"has \(4, 4, 1, 8\) for params/block_0_depthwise/kernel, the model that it describes wants \(3, 3, 1, 8\)"
    with pytest.raises(UserError, match=words):
        read_place(tmp_path / "there", Asked())


def test_weights_that_are_not_finite_are_refused(untrained, tmp_path, model):
    bad = copy.deepcopy(model.state_dict())
    bad["blocks.1.3.running_var"][2] = float("inf")
    torch.save({f"module.{name}": tensor for name, tensor in bad.items()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"bad.pth has NaN or infinity in module.blocks.1.3.running_var: its training"):
        read_place(tmp_path / "bad.pth", CIFAR10)
    weights = read_place(untrained, Asked())
    weights.variables["params"]["head"]["bias"] = np.full(10, np.nan)
    save(weights, tmp_path / "there", force=False)
    with pytest.raises(UserError, match="there has NaN or infinity in params/head/bias: its training diverged, or"):
        read_place(tmp_path / "there", Asked())


def test_a_diverged_runs_weights_are_refused(tmp_path, elsewhere):
    make_workdir(tmp_path / "run", [*RECIPE, *MODEL], step=22, shift=float("nan"))
    with pytest.raises(UserError, match="run has NaN or infinity in batch_stats/"):
        read_place(tmp_path / "run", Asked())


OTHERS = {"head": "bn_dropout", "block": "bottleneck", "norm": "layer", "layer_scale": 1.0, "variant": "cnn"}


@pytest.mark.parametrize("field, value", OTHERS.items(), ids=OTHERS)
def test_timms_names_have_no_place_for_other_models(tmp_path, field, value):
    weights = Weights(*random_weights("cifar10", **{field: value}))
    words = f"random weights cannot be written with timm's names: config.model.{field} is {value!r}, timm's ConvMixer"
    with pytest.raises(UserError, match=words):
        save(weights, tmp_path / "x.safetensors", force=False)
    save(weights, tmp_path / "x", force=False)
    assert_same(read_place(tmp_path / "x", Asked()), weights)


def test_a_workdir_is_no_target(untrained):
    for force in (False, True):
        with pytest.raises(UserError, match="is a run's workdir: name another folder"):
            check_target(untrained, force)


def test_no_variables_are_lost(file, model):
    assert_same(
        read_place(file, CIFAR10),
        dataclasses.replace(read_place(file, CIFAR10), variables=to_variables(model)),
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_of_another_size_are_for_models_without_a_layer_over_all_positions(variant):
    weights = Weights(*random_weights("cifar10", variant=variant, patch_size=8))
    if variant == "cnn":
        words = r"--image_size is 64: random weights has \(2048, 256\) for params/hidden/kernel, .* wants \(8192, 256\)"
        with pytest.raises(UserError, match=words):
            resized(weights, 64)
    else:
        assert resized(weights, 64).description.image_shape == (64, 64, 3)
    if variant == "staged":  # which has no patches, whatever the field holds
        assert resized(weights, 7).description.image_shape == (7, 7, 3)
    else:
        with pytest.raises(UserError, match="--image_size is 7: the model takes images of 8 to 4096 pixels a side"):
            resized(weights, 7)
