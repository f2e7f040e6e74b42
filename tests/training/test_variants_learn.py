"""Variants, blocks, norms and heads as runs have them: a few updates on the digits lower the loss."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from convmixer_jax.data.datasets import load_split
from convmixer_jax.data.resident import ResidentInput
from convmixer_jax.models import staged
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.dispatch import next_batches
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.state import TrainState
from tests.config_values import base_with
from tests.training.digits import DIGITS, NOWHERE

BATCH, STEPS, FEW = 32, 20, 4
COMMON: dict[str, Any] = {
    "dataset": "digits",
    "batch_size": BATCH,
    "devices": 1,
    "augment.order": (),
    "schedule.name": "constant",
    "schedule.learning_rate": 1e-2,
}
SMALL = {"model.dim": 16, "model.depth": 1, "model.patch_size": 1, "model.kernel_size": 3}
RUNS = {
    "staged": {"model.variant": "staged", "model.dim": 8, "model.layer_scale": 1.0, "model.drop_path": 0.1},
    "cnn": {"model.variant": "cnn", "optimizer.name": "adamw_fixed_decay", "optimizer.weight_decay": 1e-4},
    "all else": SMALL
    | {"model.block": "bottleneck", "model.norm": "layer", "model.head": "bn_dropout", "model.layer_scale": 0.1},
}


def first_leaf(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns kernels of unit gain, ones where something is scaled, else zeros."""
    if path[-1].key == "kernel":
        return np.random.default_rng(0).normal(scale=leaf.shape[-1] ** 0.5 / leaf.size**0.5, size=leaf.shape)
    return np.full(leaf.shape, path[-1].key in ("scale", "var", "gamma"))


def first_state(shapes: TrainState) -> TrainState:
    """Returns a fresh state from NumPy: to compile the draws of JAX would take longer than the updates."""
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    kept = jax.tree.map_with_path(
        lambda path, leaf: first_leaf(path, leaf).astype(leaf.dtype),
        {"params": shapes.params, "batch_stats": shapes.batch_stats},
    )
    return jax.device_put(state.replace(**kept), jax.tree.map(lambda leaf: leaf.sharding, shapes))


@pytest.mark.parametrize(
    "name", ["cnn", *(pytest.param(each, marks=pytest.mark.slow) for each in RUNS if each != "cnn")]
)
def test_the_loss_falls(name, quick_compilation, monkeypatch):
    # One block a stage is compiled in a third of the time.
    monkeypatch.setattr(staged, "STAGES", [dataclasses.replace(stage, blocks=1) for stage in staged.STAGES])
    experiment = assemble(base_with(**COMMON, **RUNS[name]))
    whole, split = replicated(experiment.mesh), over_data(experiment.mesh)
    source = ResidentInput(load_split(DIGITS, "train", NOWHERE), whole, split, 0, BATCH)
    state, losses = first_state(experiment.abstract_state), [0.0]
    for n in range(STEPS):
        batches = next_batches(experiment.inputs, source, n, 1, experiment.plan)
        state, _ = experiment.dispatch(state, np.uint32(0), source.data, batches, np.int32(1))
        losses.append(float(jax.device_get(state.epoch.loss)))
    assert (int(state.step), int(state.epoch.skipped)) == (STEPS, 0)
    first, last = losses[FEW], losses[-1] - losses[-1 - FEW]
    # Guessing has a cross-entropy of ln 10 = 2.3; the noise of a mean over 128 digits is far below a tenth of it.
    assert last < 0.85 * first
