"""Report E's variant as a whole: its layers by name, stochastic depth, squeeze-excite. Values: test_variants.py."""

import functools
import math
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from convmixer_jax.models.layers import Layers
from convmixer_jax.models.staged import Staged, squeeze_excite
from tests.models.building import build, variable_shapes

SIGMAS = 5  # a normal deviate is beyond 5 standard errors once in 1.7 million draws
EXAMPLES, DROP_PATH = 1024, 0.5


def expected_names() -> dict[str, tuple[int, ...]]:
    """Returns every parameter of 8, 16 and 32 channels with its shape, from the description of report E."""
    shapes: dict[str, tuple[int, ...]] = {"stem_conv/kernel": (5, 5, 3, 8), "head/kernel": (32, 10), "head/bias": (10,)}
    norms = {"stem_norm": 8}
    for stage, channels in ((1, 16), (2, 32)):
        shapes[f"down_{stage}_conv/kernel"] = (5, 5, channels // 2 // 8, channels)
        norms[f"down_{stage}_norm"] = channels
    for i in range(10):
        block, channels = f"block_{i}", 8 if i < 2 else 16 if i < 5 else 32
        depthwise = {"depthwise": (9, 9)} if i < 2 else {"row": (1, 7), "column": (7, 1), "depthwise": (3, 3)}
        depthwise = {"row": (1, 5), "column": (5, 1)} if i >= 5 else depthwise
        shapes |= {f"{block}_{name}/kernel": (*size, 1, channels) for name, size in depthwise.items()}
        shapes |= {f"{block}_layer_scale/gamma": (channels,), f"{block}_pointwise/kernel": (1, 1, channels, channels)}
        norms |= {f"{block}_norm": channels, f"{block}_pointwise_norm": channels}
        if i >= 2:
            inside = channels // 8
            shapes |= {f"{block}_squeeze/kernel": (channels, inside), f"{block}_squeeze/bias": (inside,)}
            shapes |= {f"{block}_excite/kernel": (inside, channels), f"{block}_excite/bias": (channels,)}
    return shapes | {f"{norm}/{leaf}": (channels,) for norm, channels in norms.items() for leaf in ("scale", "bias")}


def test_layers_are_those_of_the_report():
    shapes = variable_shapes(build("staged", dim=8, layer_scale=1.0), (64, 64, 3))
    params = flax.traverse_util.flatten_dict(shapes["params"], sep="/")
    assert {name: leaf.shape for name, leaf in params.items()} == expected_names()


def captured(model: Staged, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what each layer gave in training, of random variables."""
    rng = np.random.default_rng(1)
    shapes = variable_shapes(model, images.shape[1:])
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype), shapes)

    def apply(key: jax.Array) -> Any:
        collections = ["batch_stats", "intermediates"]
        options: dict[str, Any] = {"train": True, "mutable": collections, "capture_intermediates": True}
        _, updated = model.apply(variables, images, rngs={"dropout": key}, **options)
        kept = updated["intermediates"]
        return {name: layer["__call__"][0] for name, layer in kept.items() if name.endswith("_drop")}

    return jax.device_get(jax.jit(apply)(jax.random.key(0)))


def test_blocks_drop_their_branches_linearly_in_depth(quick_compilation):
    model = build("staged", dim=8, drop_path=DROP_PATH, layer_scale=1.0)
    images = np.random.default_rng(0).normal(size=(EXAMPLES, 2, 2, 1)).astype(np.float32)
    drops = captured(model, images)
    assert len(drops) == 10
    for i in range(10):
        rate = DROP_PATH * (i + 1) / 10
        dropped = (drops[f"block_{i}_drop"] == 0).all(axis=(1, 2, 3))
        assert abs(dropped.sum() - rate * EXAMPLES) <= SIGMAS * math.sqrt(EXAMPLES * rate * (1 - rate))
        assert (drops[f"block_{i}_drop"][~dropped] != 0).any()


def test_remat_computes_each_block_again():
    variables = variable_shapes(build("staged"), (8, 8, 3))
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    for remat in (False, True):
        apply = functools.partial(build("staged", remat=remat).apply, train=True, mutable=["batch_stats"])
        assert str(jax.make_jaxpr(apply)(variables, images)).count("= remat2[") == 10 * remat


class Alone(nn.Module):
    """A squeeze-excite and nothing else."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return squeeze_excite(Layers("relu", "pytorch"), x, "se")


def test_squeeze_excite_scales_channels_by_a_share_that_their_means_decide():
    # Of 8 channels one is inside. Their means are 0, 1, ..., 7, which it adds up to 28, less 27 of its bias.
    x = np.arange(8, dtype=np.float32) + np.array([-1, 1], np.float32).reshape(1, 2, 1, 1)
    params = {
        "se_squeeze": {"kernel": np.ones((8, 1), np.float32), "bias": np.full(1, -27, np.float32)},
        "se_excite": {"kernel": np.linspace(-1, 1, 8, dtype=np.float32)[None], "bias": np.ones(8, np.float32)},
    }
    shares = 1 / (1 + np.exp(-(np.linspace(-1, 1, 8) + 1)))
    found = Alone().apply({"params": params}, x)
    # A few roundings by 2^-24 of values below 8.
    np.testing.assert_allclose(found, x * shares, rtol=0, atol=8 * 8 * 2.0**-24)
    negative = params | {"se_squeeze": params["se_squeeze"] | {"bias": np.full(1, -29, np.float32)}}
    np.testing.assert_allclose(Alone().apply({"params": negative}, x), x / (1 + np.exp(-1)), rtol=1e-6)
