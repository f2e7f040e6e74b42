"""Train steps as `assemble` puts them together, from plain values, and states for them."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from convmixer_jax.training.dispatch import DispatchPlan, jit_dispatch
from convmixer_jax.training.mesh import replicated
from convmixer_jax.training.prepare import make_prepare
from convmixer_jax.training.state import TrainState, create_state
from convmixer_jax.training.step import TrainStep, make_train_step
from convmixer_jax.training.update import UpdateSettings, make_update

PLAIN = UpdateSettings(accumulate_steps=1, ema_decay=0.0, l2=0.0)


def no_gather(params: Any) -> Any:
    """In the place of what gathers parameters that are split over devices."""
    return params


def plain_step(
    model: Any,
    tx: Any,
    schedule: Any,
    *,
    take: Any,
    augment: Callable[..., Any],
    label_smoothing: float = 0.0,
    mix: Any = None,
    settings: UpdateSettings = PLAIN,
) -> TrainStep:
    """Returns the step of a model with `num_classes`; augment also normalises."""
    prepare = make_prepare(augment, mix, num_classes=model.num_classes, label_smoothing=label_smoothing)
    update = make_update(model, tx, schedule, settings, gather=no_gather)
    return make_train_step(update, schedule, take=take, prepare=prepare)


def jit_once(step: TrainStep, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns a run's program of single updates, without a loop: (state, seed, data, batch, 1) to (state, watch)."""
    return jit_dispatch(step, DispatchPlan(False, False, 1), mesh, replicated(mesh), 10, {})


def random_leaf(path: Any, leaf: jax.ShapeDtypeStruct, rng: np.random.Generator) -> np.ndarray:
    """Returns random values: BatchNorm's ones and zeros would hide what is left out or swapped."""
    around_one = path[-1].key in ("scale", "var")
    values = rng.uniform(0.5, 1.5, leaf.shape) if around_one else 0.3 * rng.normal(size=leaf.shape)
    return values.astype(leaf.dtype)


def random_variables(shapes: Any, seed: int) -> Any:
    return jax.tree.map_with_path(functools.partial(random_leaf, rng=np.random.default_rng(seed)), shapes)


def random_state(model: Any, tx: Any, image_shape: tuple[int, ...], with_ema: bool = False) -> TrainState:
    """Returns a first state, on the host, with weights and statistics from NumPy.

    They are the same in every dtype, and only the shapes of a fresh state are needed: nothing is compiled.
    """
    shapes = jax.eval_shape(lambda: create_state(0, model, tx, image_shape, with_ema))
    kept = random_variables({"params": shapes.params, "batch_stats": shapes.batch_stats}, seed=1)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return state.replace(**kept, ema=kept if with_ema else {})


# One operation of a compiled program that sends something to other devices: what it gives, and its name.
COLLECTIVE = re.compile(
    r"= (.*?) (all-\w+|ragged-all-to-all|collective-\w+|reduce-scatter)(?:-start)?(?:\.\d+)?\("
)  # fmt: skip


def sent(program: str) -> list[tuple[str, int]]:
    """Returns (name, numbers in the largest array it gives) of every operation that sends something."""
    found = []
    for given, name in COLLECTIVE.findall(program):
        shapes = re.findall(r"\w+\[([\d,]*)\]", given)
        found.append((name, max(math.prod(map(int, filter(None, shape.split(",")))) for shape in shapes)))
    return found


def leaves(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def bits(tree: Any) -> dict[str, tuple[np.dtype, bytes]]:
    return {name: (leaf.dtype, leaf.tobytes()) for name, leaf in leaves(jax.device_get(tree)).items()}
