"""Stochastic depth and dropout: which share is dropped, of what, and that the rest is scaled up.

What each layer of the model gives is captured in one forward pass over many small images, and counted.
"""

import functools
import math
from typing import Any

import jax
import numpy as np
import pytest

from convmixer_jax.models.convmixer import ConvMixer

BATCH, DEPTH, DIM = 4096, 4, 4
DROP_PATH, HEAD_DROPOUT = 0.4, 0.3
RATES = [0.1, 0.2, 0.3, 0.4]  # linear in depth: 0.4 * (i + 1) / 4
SIGMAS = 5  # a normal deviate is beyond 5 standard errors once in 1.7 million draws
build = functools.partial(ConvMixer, dim=DIM, depth=DEPTH, patch_size=1, kernel_size=3, num_classes=3)
MODEL = build(drop_path=DROP_PATH, head_dropout=HEAD_DROPOUT)


@functools.cache
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BATCH, 2, 2, 1)).astype(np.float32)


@functools.cache
def variables() -> dict[str, Any]:
    """A model whose every residual branch and pooled feature is different from zero, with probability one."""
    shapes = jax.eval_shape(functools.partial(MODEL.init, train=False), jax.random.key(0), images())
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype), shapes)


@functools.cache
def passes() -> Any:
    """The compiled forward pass in training: a key to (logits, what each layer gave)."""

    def apply(key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        logits, updated = MODEL.apply(
            variables(),
            images(),
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
            rngs={"dropout": key},
        )
        captured = {name: each["__call__"][0] for name, each in updated["intermediates"].items() if name != "__call__"}
        return logits, captured

    return jax.jit(apply)


@functools.cache
def forward(seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return jax.device_get(passes()(jax.random.key(seed)))


def dropped_examples(captured: dict[str, np.ndarray], block: int) -> np.ndarray:
    """Returns bool [B]: whose residual branch is zero, all of it."""
    return (captured[f"block_{block}_drop"] == 0).all(axis=(1, 2, 3))


@pytest.mark.parametrize("block", range(DEPTH))
def test_a_block_drops_its_share_of_branches_whole_and_scales_the_others(block):
    _, captured = forward()
    branch, after = captured[f"block_{block}_depthwise_norm"], captured[f"block_{block}_drop"]
    dropped, rate = dropped_examples(captured, block), RATES[block]
    assert abs(dropped.sum() - rate * BATCH) <= SIGMAS * math.sqrt(BATCH * rate * (1 - rate))
    # Two roundings: of the reciprocal and of the product.
    np.testing.assert_allclose(after[~dropped], branch[~dropped] / (1 - rate), rtol=4 * 2.0**-24)
    assert (branch != 0).all()


def test_what_is_dropped_is_left_out_of_the_sum():
    # A dropped example's first pointwise convolution sees the stem alone; in NumPy, to sums of four float32.
    _, captured = forward()
    dropped = dropped_examples(captured, 0)
    layer = variables()["params"]["block_0_pointwise"]
    for chosen, branch in ((dropped, 0), (~dropped, captured["block_0_drop"][~dropped])):
        x = captured["stem_norm"][chosen].astype(np.float64) + branch
        expected = x @ layer["kernel"][0, 0] + layer["bias"]
        np.testing.assert_allclose(captured["block_0_pointwise"][chosen], expected, rtol=0, atol=1e-5)


def test_blocks_and_keys_draw_independently():
    draws = [dropped_examples(forward(seed)[1], block) for seed in (0, 1) for block in range(DEPTH)]
    off_diagonal = np.corrcoef(draws)[~np.eye(len(draws), dtype=bool)]
    assert np.abs(off_diagonal).max() <= SIGMAS / math.sqrt(BATCH)


def test_dropout_is_of_each_pooled_feature():
    logits, captured = forward()
    after = captured["head_drop"]
    assert after.shape == (BATCH, DIM)
    pooled = captured[f"block_{DEPTH - 1}_pointwise_norm"].astype(np.float64).mean(axis=(1, 2))
    dropped = after == 0
    assert abs(dropped.sum() - HEAD_DROPOUT * dropped.size) <= SIGMAS * math.sqrt(dropped.size * 0.3 * 0.7)
    # Each feature its own draw: those of one example are not more alike than others.
    off_diagonal = np.corrcoef(dropped.T)[~np.eye(DIM, dtype=bool)]
    assert np.abs(off_diagonal).max() <= SIGMAS / math.sqrt(BATCH)
    # Means of four float32 of some units, and for the logits sums of four.
    np.testing.assert_allclose(after[~dropped], pooled[~dropped] / 0.7, rtol=0, atol=1e-5)
    head = variables()["params"]["head"]
    np.testing.assert_allclose(logits, after.astype(np.float64) @ head["kernel"] + head["bias"], rtol=0, atol=1e-5)


def test_evaluation_drops_nothing_and_needs_no_key():
    few = images()[:64]
    ours, plain = (jax.jit(functools.partial(model.apply, train=False))(variables(), few) for model in (MODEL, build()))
    np.testing.assert_array_equal(ours, plain)


def test_at_rate_zero_training_needs_no_key():
    # Else every run would pay for random numbers that it does not use.
    apply = functools.partial(build().apply, train=True, mutable=["batch_stats"])
    jaxpr = str(jax.make_jaxpr(apply)(variables(), images()[:4]))
    assert "random" not in jaxpr
    assert "threefry" not in jaxpr
