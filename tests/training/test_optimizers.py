"""What surrounds an optimiser: which leaves decay, clipping, and settings that arrive. Its steps are compared with
PyTorch's in test_torch_parity.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from convmixer_jax.errors import UserError
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.training.optimizers import DECAY_MASKS, OPTIMIZERS, make_decay, make_optimizer
from convmixer_jax.training.update import UpdateSettings, make_update
from tests.training.steps import no_gather, random_state

# Settings of each row, such that a first update keeps the gradient itself as first moment.
PLAIN = {"b1": 0.0, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.25}
SETTINGS = {"adamw": PLAIN, "adamw_fixed_decay": PLAIN}
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
    settings = {"decay_mask": decay_mask, "clip_norm": 1.0, **SETTINGS[name]}
    tx, decay = make_optimizer(name, **settings), make_decay(name, **settings)
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
    after = jax.tree.map(np.add, decay(params) if decay else params, updates)
    for (path, new), leaf in zip(jax.tree.leaves_with_path(after), jax.tree.leaves(params), strict=True):
        decays = path[-1].key in DECAYING_LEAVES[decay_mask]
        np.testing.assert_array_equal(new, leaf - 0.25 * leaf * decays, err_msg=jax.tree_util.keystr(path))


class Product(nn.Module):
    """Features [B, 4] to logits [B, 3], without a bias."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(3, use_bias=False, param_dtype="float64", name="head")(x)


def recording() -> optax.GradientTransformation:
    """Hands gradients on as they are and keeps them as its state."""
    return optax.GradientTransformation(
        init=lambda params: params, update=lambda grads, state, params=None: (grads, grads)
    )


def test_a_fixed_decay_does_not_depend_on_the_rate():
    # tensorflow-addons' AdamW in float64: w -= decay * w, then Adam's step with the rate, which is 0 at first.
    rates, decay, (b1, b2, eps) = (0.0, 0.3, 0.01), 0.05, (0.9, 0.98, 1e-3)
    optimizer = {"name": "adamw_fixed_decay", "decay_mask": "kernels", "clip_norm": 0.0, "weight_decay": decay}
    optimizer |= {"b1": b1, "b2": b2, "eps": eps}
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        tx = optax.chain(recording(), make_optimizer(**optimizer))
        settings = UpdateSettings(accumulate_steps=1, ema_decay=0.0, l2=0.0, decay=make_decay(**optimizer))
        update = jax.jit(make_update(Product(), tx, lambda step: jnp.asarray(rates)[step], settings, no_gather))
        state = random_state(Product(), tx, (4,))
        w = state.params["head"]["kernel"].copy()
        m, v = np.zeros_like(w), np.zeros_like(w)
        for n, rate in enumerate(rates, start=1):
            images, targets = jnp.asarray(rng.normal(size=(5, 4))), jnp.asarray(rng.dirichlet(np.ones(3), size=5))
            state, _ = update(state, images, targets, jax.random.key(0))
            g = np.asarray(state.opt_state[0]["head"]["kernel"])
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            w -= decay * w
            w -= rate * (m / (1 - b1**n)) / (np.sqrt(v / (1 - b2**n)) + eps)
            # Some ten roundings a step, of which each is 1e-16.
            np.testing.assert_allclose(state.params["head"]["kernel"], w, rtol=0, atol=1e-14)


def test_only_a_fixed_decay_is_apart_from_the_optimiser():
    assert make_decay("adamw", decay_mask="all", weight_decay=0.5) is None
    with pytest.raises(UserError, match=r"config\.optimizer\.decay_mask is 'none'"):
        make_decay("adamw", decay_mask="none", weight_decay=0.5)


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
