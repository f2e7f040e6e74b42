"""What the choices of heads, blocks, norms and variants do: which operations run, dropout, initial values, digits."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from convmixer_jax.config import get_base
from convmixer_jax.models import staged
from convmixer_jax.models.heads import HEADS
from convmixer_jax.models.layers import Layers
from convmixer_jax.models.staged import Stage, wide_branch
from convmixer_jax.models.variants import VARIANTS, beyond_fast_ops
from convmixer_jax.training.checks import OF_EVERY_VARIANT
from tests.config_values import OTHER
from tests.models.building import build, random_variables, variable_shapes
from tests.training.steps import leaves

SIGMAS = 5  # a normal deviate is beyond 5 standard errors once in 1.7 million draws
IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
MODEL_FIELDS = sorted(get_base().model.to_dict().keys() - set(OF_EVERY_VARIANT))


@pytest.fixture
def _few_blocks(monkeypatch):
    """A staged model that is quickly traced."""
    monkeypatch.setattr(staged, "STAGES", (Stage(1, wide_branch),))


def traced(model: Any) -> str:
    """Returns the program of initial weights and of a forward pass in training, as text."""
    init = functools.partial(model.init, train=False)
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    variables = jax.eval_shape(init, jax.random.key(0), IMAGES)
    return f"{jax.make_jaxpr(init)(jax.random.key(0), IMAGES)}\n{jax.make_jaxpr(apply)(variables, IMAGES)}"


@pytest.mark.usefixtures("_few_blocks")
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_computes_with_the_fields_that_it_reads_and_no_others(variant):
    # The factor means something to the bottleneck alone.
    given = {"block": "bottleneck", "depth": 2}
    others = {name: OTHER[f"model.{name}"] for name in MODEL_FIELDS} | {"block": "plain", "dim": 16}
    plain = traced(build(variant, **given))
    for field in MODEL_FIELDS:
        changed = traced(build(variant, **(given | {field: others[field]})))
        assert (changed != plain) == VARIANTS[variant].reads(field), field


BEYOND = {"block": "bottleneck", "norm": "layer", "layer_scale": 0.5}


@pytest.mark.parametrize("field", BEYOND)
def test_what_the_fast_operations_do_not_know_is_computed_by_the_reference(field):
    asked, reference = (build(ops=ops, **{field: BEYOND[field]}) for ops in ("channel_major", "reference"))
    assert traced(asked) == traced(reference)
    assert field in (beyond_fast_ops(get_base().model.to_dict() | {field: BEYOND[field]}) or "")


def test_the_fast_operations_know_the_published_model_with_any_head():
    for head in ("linear", "representation", "bn_dropout"):
        assert beyond_fast_ops(get_base().model.to_dict() | {"head": head}) is None
    assert traced(build(ops="channel_major")) != traced(build(ops="reference"))
    for variant in VARIANTS.keys() - {"convmixer"}:
        assert variant in (beyond_fast_ops(get_base().model.to_dict() | {"variant": variant}) or "")


class Alone(nn.Module):
    """A head and nothing else."""

    name_of_head: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return HEADS[self.name_of_head](Layers("gelu", "pytorch"), x, train, num_classes=3)


def test_bn_dropout_drops_a_fifth_of_the_normalised_features():
    features = np.random.default_rng(0).normal(size=(512, 64)).astype(np.float32)
    head = Alone("bn_dropout")
    variables = random_variables(head, (64,))

    def layers(train: bool) -> dict[str, np.ndarray]:
        collections = ["batch_stats", "intermediates"]
        options: dict[str, Any] = {"mutable": collections, "capture_intermediates": True}
        _, updated = head.apply(variables, features, train, rngs={"dropout": jax.random.key(0)}, **options)
        kept = updated["intermediates"]
        return {name: np.asarray(kept[name]["__call__"][0]) for name in ("head_norm", "head_norm_drop")}

    found, evaluated = layers(train=True), layers(train=False)
    before, after = found["head_norm"], found["head_norm_drop"]
    dropped = after == 0
    assert abs(dropped.sum() - 0.2 * dropped.size) <= SIGMAS * math.sqrt(dropped.size * 0.2 * 0.8)
    # Two roundings: of the reciprocal and of the product.
    np.testing.assert_allclose(after[~dropped], before[~dropped] / 0.8, rtol=4 * 2.0**-24)
    np.testing.assert_array_equal(evaluated["head_norm_drop"], evaluated["head_norm"])


@pytest.mark.usefixtures("_few_blocks", "quick_compilation")
@pytest.mark.parametrize("variant", VARIANTS)
def test_initial_weights_depend_on_the_seed_alone_and_layer_scale_on_its_start(variant):
    init = jax.jit(functools.partial(build(variant, layer_scale=0.25).init, train=False))
    images = np.zeros((1, 8, 8, 3), np.float32)
    one, again, other = (leaves(init(jax.random.key(seed), images)["params"]) for seed in (0, 0, 1))
    assert any((one[name] != other[name]).any() for name in one)
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, again[name])
        if "gamma" in name:
            np.testing.assert_array_equal(leaf, np.full(8, 0.25, np.float32))
    assert sum("gamma" in name for name in one) == VARIANTS[variant].reads("layer_scale")


def test_computation_is_in_the_dtype_asked_for_and_parameters_in_float32():
    for variant in VARIANTS:
        model = build(variant, dtype="bfloat16")
        shapes = variable_shapes(model, (8, 8, 3))
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
        apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
        logits, updated = jax.eval_shape(apply, shapes, IMAGES)
        assert (logits.dtype, logits.shape) == (jnp.bfloat16, (2, 10))
        assert {leaf.dtype for leaf in jax.tree.leaves(updated)} <= {np.dtype("float32")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_maps_that_remat_keeps_are_those_of_the_blocks(variant):
    model = build(variant, depth=3)

    def outputs() -> Any:
        options: dict[str, Any] = {"mutable": ["intermediates"], "capture_intermediates": True}
        variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 32, 3)), train=False)
        return model.apply(variables, jnp.zeros((1, 16, 32, 3)), False, **options)[1]["intermediates"]

    layers = jax.eval_shape(outputs)
    sizes = [layer["__call__"][0].size for name, layer in layers.items() if name.endswith("_pointwise_norm")]
    settings = get_base().model.to_dict() | {"dim": 8, "depth": 3, "patch_size": 2}
    assert sorted(VARIANTS[variant].maps(settings, 16, 32)) == sorted(sizes)
