"""Weights from elsewhere: a run that begins with them, and a converted directory that is evaluated."""

import contextlib
import dataclasses
import json
import shutil
import weakref

import jax
import numpy as np
import pytest

from convmixer_jax.command_line import parse
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.inference.loading import Asked, read_place
from convmixer_jax.inference.saving import save
from convmixer_jax.main import main
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.training import resume, runner
from convmixer_jax.training.assembly import Experiment, assemble
from convmixer_jax.training.given import begin_with, other_classes, read_initial
from convmixer_jax.training.resume import first_state, initial_weights
from convmixer_jax.training.state import TrainState
from tests.commands import DIGITS, ONE_EPOCH, SMALL
from tests.training.steps import leaves

pytestmark = pytest.mark.usefixtures("elsewhere", "quick_compilation")


def assembled(*arguments: str) -> Experiment:
    return assemble(parse(["main", *DIGITS, *SMALL, *arguments]).config)


def begin(experiment: Experiment) -> tuple[TrainState, TrainState, list[str]]:
    """Returns the fresh state, the one with config.init_from, and what is told."""
    fresh = experiment.init_state(np.uint32(0))
    given = read_initial(experiment)
    assert given is not None
    return fresh, begin_with(experiment, fresh, given), given.told


def same(one, other) -> bool:
    pairs = zip(*map(jax.tree.leaves, (one, other)), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_run_begins_with_given_weights(untrained, tmp_path):
    save(read_place(untrained, Asked()), tmp_path / "there", force=False)
    save(read_place(untrained, Asked()), tmp_path / "x.safetensors", force=False)
    expected = read_place(untrained, Asked()).variables
    for place in ("run", "there", "x.safetensors"):
        experiment = assembled(f"--config.init_from={place}", "--config.ema_decay=0.9")
        fresh, state, told = begin(experiment)
        assert told == []
        assert same(state.variables("raw"), expected)
        assert same(state.ema, expected)
        assert same(state.opt_state, fresh.opt_state)
        assert int(state.step) == 0


def test_given_weights_are_split_over_the_devices(untrained):
    experiment = assembled("--config.init_from=run", "--config.devices=4", "--config.fsdp_devices=2")
    _, state, _ = begin(experiment)
    assert {name: leaf.sharding for name, leaf in leaves(state).items()} == {
        name: leaf.sharding for name, leaf in leaves(experiment.abstract_state).items()
    }
    assert same(state.params, read_place(untrained, Asked()).variables["params"])


def with_other_classes(untrained) -> None:
    """Leaves "there", a converted directory with 7 classes."""
    weights = read_place(untrained, Asked())
    head = weights.variables["params"]["head"]
    for name in ("kernel", "bias"):
        head[name] = head[name][..., :7]
    description = weights.description.__class__(**{**weights.description.__dict__, "num_classes": 7, "class_names": ()})
    save(weights.__class__(description, weights.variables), untrained.parent / "there", force=False)


def test_other_classes_get_a_fresh_head(untrained):
    with_other_classes(untrained)
    fresh, state, told = begin(assembled("--config.init_from=there"))
    assert told == ["config.init_from there: fresh weights for head (7 classes there, 10 here)"]
    expected = read_place(untrained, Asked()).variables["params"]
    assert same(state.params["head"], fresh.params["head"])
    rest = [name for name in expected if name != "head"]
    assert len(rest) == 6
    assert all(same(state.params[name], expected[name]) for name in rest)


def test_as_many_other_classes_get_a_fresh_head(untrained):
    weights, experiment = read_place(untrained, Asked()), assembled()
    animals = dataclasses.replace(weights.description, class_names=tuple(f"animal {n}" for n in range(10)))
    nameless = dataclasses.replace(weights.description, class_names=())
    line = "fresh weights for head (class 0 is 'animal 0' there, '0' here)"
    for place, description in (("there", animals), ("x.safetensors", animals), ("nameless", nameless)):
        save(dataclasses.replace(weights, description=description), untrained.parent / place, force=False)
        experiment.config.init_from = place
        given, kept = read_initial(experiment), description is nameless
        assert given is not None
        assert given.told == ([] if kept else [f"config.init_from {place}: {line}"])
        assert ("params/head/bias" in given.arrays, "params/stem_conv/bias" in given.arrays) == (kept, True)


def test_identifiers_are_names_of_the_same_classes(untrained):
    description, row = read_place(untrained, Asked()).description, DATASETS["tiny_imagenet"]
    identified = dataclasses.replace(description, num_classes=200, class_names=row.other_names)
    assert other_classes(identified, row) == ""
    backwards = dataclasses.replace(identified, class_names=row.other_names[::-1])
    assert other_classes(backwards, row).startswith("class 0 is 'n")


def test_another_head_is_fresh_where_it_is_other(untrained):
    fresh, state, told = begin(assembled("--config.init_from=run", "--config.model.head=bn_dropout"))
    assert told == [
        "config.init_from run: warning: trained with another model: config.model.head is 'bn_dropout', there 'linear'",
        "config.init_from run: fresh weights for head_norm",
    ]
    assert same(state.params["head_norm"], fresh.params["head_norm"])
    assert not same(state.params["head"], fresh.params["head"])


def test_another_activation_is_told(untrained):
    _, _, told = begin(assembled("--config.init_from=run", "--config.model.activation=relu"))
    assert told == [
        "config.init_from run: warning: trained with another model: config.model.activation is 'relu', there 'gelu'"
    ]


def test_what_does_not_fit_is_refused_before_data_are_read(untrained, refused, tmp_path):
    save(read_place(untrained, Asked()), tmp_path / "x.safetensors", force=False)
    for place, name in (("run", ""), ("x.safetensors", r" (there blocks.0.0.fn.0.weight)")):
        line = refused(*DIGITS, *SMALL, f"--config.init_from={place}", "--config.model.kernel_size=5", "--workdir=new")
        assert (
            f"config.init_from {place} has (3, 3, 1, 4) for params/block_0_depthwise/kernel{name}, the run's model "
            "(config.model.kernel_size is 5, there 3) wants (5, 5, 1, 4)"
        ) in line
    line = refused(*DIGITS, *SMALL, "--config.init_from=nowhere", "--workdir=new")
    assert "nowhere does not exist: weights are in a run's workdir" in line
    assert not (tmp_path / "new/config.json").exists()


def test_a_fine_tuned_run_is_resumed_without_what_it_began_with(untrained, tmp_path, capsys, monkeypatch):
    held: list[weakref.ref] = []
    updates = runner.make_updates

    def noted(*arguments):
        held.append(weakref.ref(read_initial(*arguments)))
        return held[-1]()

    def check_updates(*arguments, **options):
        assert [given() for given in held] == [None]  # the host's copy is gone while the run goes on
        return updates(*arguments, **options)

    monkeypatch.setattr(resume, "read_initial", noted)
    monkeypatch.setattr(runner, "make_updates", check_updates)
    arguments = [*DIGITS, *SMALL, *ONE_EPOCH, "--config.init_from=run", "--workdir=tuned"]
    assert main(["main", *arguments]) == 0
    assert "from run\n" in capsys.readouterr().err
    shutil.rmtree(untrained)
    experiment, told = assembled(*ONE_EPOCH, "--config.init_from=run"), []
    with contextlib.closing(Checkpoints(tmp_path / "tuned/checkpoints")) as checkpoints:
        given = initial_weights(experiment, checkpoints, told.append)
        state, _ = first_state(experiment, checkpoints, given, told.append)
    assert (given, told, int(state.step)) == (None, [], 22)


def evaluate(capsys, *arguments: str) -> tuple[dict, str]:
    assert main(["main", *DIGITS, *SMALL, "--mode=eval", *arguments]) == 0
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err


def test_a_converted_directory_is_evaluated(untrained, tmp_path, capsys):
    save(read_place(untrained, Asked()), tmp_path / "there", force=False)
    capsys.readouterr()
    expected, _ = evaluate(capsys, *ONE_EPOCH, "--config.eval_batch_size=1000000", "--workdir=run")
    found, told = evaluate(capsys, "--workdir=there")
    assert "warning" not in told
    assert {name: found[name] for name in ("n", "top1", "params", "split")} == {
        name: expected[name] for name in ("n", "top1", "params", "split")
    }
    # Batches of other sizes: 360 losses are summed in another order.
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    unknown = ["train_top1", "seconds", "seconds_per_epoch", "images_per_sec"]
    assert [found[name] for name in ("step", *unknown)] == [0, None, None, None, None]
    _, told = evaluate(capsys, "--workdir=there", "--config.mean=(0.5,)")
    assert "warning: mean is (0.5,) here, (0.3056,) in there\n" in told


CONTRADICTIONS = {
    "model": (["--config.model.kernel_size=5"], "kernel_size is 5, there 3): give --config.model.kernel_size=3"),
    "several": (
        ["--config.model.dim=8", "--config.model.activation=relu"],
        "--config.model.activation=gelu --config.model.dim=4",
    ),
    "step": (["--step=3"], "--step is 3: there is a converted directory, which has no steps; leave it out"),
}


@pytest.mark.parametrize("arguments, words", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_config_that_contradicts_the_directory(untrained, refused, tmp_path, capsys, arguments, words):
    save(read_place(untrained, Asked()), tmp_path / "there", force=False)
    capsys.readouterr()
    assert words in refused(*DIGITS, *SMALL, *arguments, "--mode=eval", "--workdir=there")


def test_weights_for_other_classes_are_not_evaluated(untrained, refused, capsys):
    with_other_classes(untrained)
    capsys.readouterr()
    line = refused(*DIGITS, *SMALL, "--mode=eval", "--workdir=there")
    assert "--workdir there has weights for 7 classes, config.dataset is 'digits', which has 10" in line


def test_no_run_is_kept_in_a_converted_directory(untrained, refused, tmp_path, capsys):
    save(read_place(untrained, Asked()), tmp_path / "there", force=False)
    capsys.readouterr()
    line = refused(*DIGITS, *SMALL, "--workdir=there")
    assert "give --config.init_from=there and another --workdir" in line
    assert not (tmp_path / "there/config.json").exists()
