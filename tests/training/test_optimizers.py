"""What surrounds an optimiser: which leaves decay, clipping, and settings that arrive. Its steps are compared with
PyTorch's in test_torch_parity.
"""

import math
from typing import Any

import jax
import numpy as np
import optax
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.optimizers import DECAY_MASKS, OPTIMIZERS, make_optimizer

# Settings of each row, such that a first update keeps the gradient itself as first moment.
SETTINGS = {"adamw": {"b1": 0.0, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.25}}
DECAYING_LEAVES = {"all": {"kernel", "bias", "scale"}, "kernels": {"kernel"}}


def test_every_row_is_tested():
    assert set(SETTINGS) == set(OPTIMIZERS)
    assert set(DECAYING_LEAVES) == set(DECAY_MASKS)


@pytest.fixture(scope="module")
def params() -> Any:
    """Parameters named and shaped as a model's, drawn by NumPy: none is zero."""
    model = ConvMixer(dim=4, depth=1, patch_size=2, kernel_size=3, num_classes=3)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 4, 4, 3), np.float32), train=False))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype), shapes["params"])


def make(name: str = "adamw", *, decay_mask: str = "all", clip_norm: float = 0.0, **settings: float) -> Any:
    return make_optimizer(name, decay_mask=decay_mask, clip_norm=clip_norm, **(SETTINGS["adamw"] | settings))


def gradients_like(params: Any, norm: float) -> Any:
    """Returns random gradients of a global norm."""
    rng = np.random.default_rng(1)
    grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    factor = norm / global_norm(grads)
    return jax.tree.map(lambda leaf: (factor * leaf).astype(np.float32), grads)


def global_norm(tree: Any) -> float:
    return math.sqrt(sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(tree)))


def after_clipping(tx: optax.GradientTransformation, grads: Any, params: Any) -> Any:
    """Returns the gradients that reach the optimiser: with b1 = 0 they are its first moment."""
    _, state = jax.jit(tx.update)(grads, tx.init(params), params)
    return optax.tree.get(state, "mu")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay_mask", DECAY_MASKS)
def test_which_leaves_decay(params, name, decay_mask):
    # Without a gradient the update is the decay alone: -0.25 times the parameter, at the rate 1 of the docstring.
    tx = make_optimizer(name, decay_mask=decay_mask, clip_norm=1.0, **SETTINGS[name])
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
    for (path, update), leaf in zip(jax.tree.leaves_with_path(updates), jax.tree.leaves(params), strict=True):
        decays = path[-1].key in DECAYING_LEAVES[decay_mask]
        np.testing.assert_array_equal(update, -0.25 * leaf * decays, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("eps, expected", [(1e-8, -1.0), (1e-3, -0.5)])
def test_epsilon_is_a_setting(params, eps, expected):
    # The first update of Adam is -g / (|g| + epsilon), here for g = 1e-3; (1 - 0.999) in float32 is off by 5e-5, of
    # which the root takes half.
    grads = jax.tree.map(lambda leaf: np.full_like(leaf, 1e-3), params)
    tx = make(eps=eps, weight_decay=0.0)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_allclose(leaf, expected, rtol=5e-5)


@pytest.mark.parametrize("norm", [0.7, 3.0, 1000.0])
def test_clipping_scales_a_larger_norm_to_exactly_the_limit(params, norm):
    grads = gradients_like(params, norm)
    clipped = after_clipping(make(clip_norm=0.5), grads, params)
    assert global_norm(clipped) == pytest.approx(0.5, rel=1e-6)  # a dozen roundings by 2^-24
    # One factor for all leaves: the direction stays.
    expected = jax.tree.map(lambda leaf: leaf * (0.5 / norm), grads)
    jax.tree.map(lambda got, leaf: np.testing.assert_allclose(got, leaf, rtol=1e-6), clipped, expected)


@pytest.mark.parametrize("clip_norm, norm", [(0.5, 0.4), (0.5, 1e-6), (0.0, 0.4), (0.0, 1000.0)])
def test_clipping_leaves_a_smaller_norm_alone_and_zero_switches_it_off(params, clip_norm, norm):
    grads = gradients_like(params, norm)
    reached = after_clipping(make(clip_norm=clip_norm), grads, params)
    jax.tree.map(np.testing.assert_array_equal, reached, grads)


@pytest.mark.parametrize(
    "choice, field, table",
    [
        ({"name": "adam"}, r"config\.optimizer\.name is 'adam'", OPTIMIZERS),
        ({"decay_mask": "none"}, r"config\.optimizer\.decay_mask is 'none'", DECAY_MASKS),
    ],
)
def test_an_unknown_name_is_the_users_mistake(choice, field, table):
    with pytest.raises(UserError, match=field) as raised:
        make(**choice)
    assert all(name in str(raised.value) for name in table)
