"""The whole model by every row of OPS against the plain linen model, differentiated by JAX, in float64.

Logits of training and of evaluation, running statistics, the gradients of every parameter and of the images. How each
depthwise convolution does with every kernel size is in test_depthwise.py and test_channel_major.py.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from convmixer_jax.ops.choice import OPS, REFERENCE, Case, lacks
from convmixer_jax.ops.native.library import lacking
from tests.ops.plain import NEEDS_COMPILER
from tests.ops.whole_models import KEY, MODELS, TOLERANCES, Model, assert_close, batch, computed, variables_of
from tests.training.steps import leaves

pytestmark = pytest.mark.usefixtures("quick_compilation", "native_with_few_examples")

# In float32, and with the rows that differ in the depthwise convolution alone, one model says what there is to say.
FEW = "k2 p2, odd image, ReLU"
ON_CPU = [name for name in OPS if name != REFERENCE and not lacks(name, Case("cpu", "float32", 3, (8, 8)))]
# Branches are drawn in the dtype of the map: float32 and float64 drop others.
DETERMINED = [name for name, model in MODELS.items() if not model.drop_path]
COMPARED = [
    *((name, "channel_major", "float64") for name in MODELS),
    *((FEW, ops, "float32") for ops in ON_CPU),
    ("k4, two groups", "shifted", "float32"),
    *((name, "native", "float32") for name in DETERMINED if name != FEW and "native" in ON_CPU),
]


@pytest.mark.parametrize("name, ops, dtype", COMPARED)
def test_every_row_is_the_reference(name, ops, dtype):
    model, found = MODELS[name], computed(name, ops, dtype)
    wide = "float64" if dtype == "float64" else "float32"
    # The pooled features of one image are those that its own statistics centre: nothing flows back but rounding, and
    # gradients are held to the size of the others.
    floor = 1.0 if model.batch == 1 else 0.0
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(wide)}
    assert_close(found, computed(name, REFERENCE, "float64"), TOLERANCES[dtype], floor)
    before = variables_of(model, dtype)["batch_stats"]
    moved = [np.abs(leaf - leaves(before)[path]).max() for path, leaf in leaves(found["statistics"]).items()]
    assert min(moved) > 1e-3


@NEEDS_COMPILER
@pytest.mark.parametrize("name", [name for name in MODELS if name not in DETERMINED])
def test_native_drops_the_branches_that_the_formulas_drop(name):
    found, wanted = (computed(name, ops, "float32") for ops in ("native", "channel_major"))
    assert_close(found, wanted, 2 * TOLERANCES["float32"])


def test_every_row_that_runs_here_is_compared():
    assert {ops for _, ops, _ in COMPARED} == set(ON_CPU)
    assert set(OPS) - set(ON_CPU) - {REFERENCE} == {"pallas"} | ({"native"} if lacking() else set())


@pytest.mark.parametrize("ops", [name for name in OPS if name.startswith("pallas")])
def test_pallas_rows_interpreted(ops):
    assert_close(computed(FEW, ops, "float32"), computed(FEW, REFERENCE, "float64"), TOLERANCES["float32"])


@pytest.mark.parametrize("ops", ["channel_major", "lax"])
def test_bfloat16(ops):
    """Held to the exact result in the mean square, since single values differ by chance.

    Roundings are of 2^-9 at most, of the images, the stem's map, and in each block of x, u, y and v and of two
    kernels; in the backward pass of the gradients of the same maps: 2 + 6 depth, twice. In the worst case all have
    one sign, and norms carry relative errors on with about their size.
    """
    name = "k9 p2"
    found, exact = computed(name, ops, "bfloat16"), computed(name, REFERENCE, "float64")
    roundings = 2 * (2 + 6 * MODELS[name].depth)
    for path, leaf in leaves(exact).items():
        error = leaves(found)[path].astype("float64") - leaf
        assert np.linalg.norm(error) <= roundings * 2.0**-9 * np.linalg.norm(leaf), path
    assert {leaf.dtype for leaf in jax.tree.leaves(found["gradients"])} == {np.dtype("float32")}
    assert found["logits"].dtype == jnp.bfloat16


def test_branches_are_dropped_in_what_is_compared():
    name = "k4 p3, two blocks, dropped branches"
    model = MODELS[name]

    def draws(variables: dict[str, Any], images: Any) -> Any:
        _, updated = model.build("channel_major", "float64").apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
            rngs={"dropout": KEY()},
        )
        return updated["intermediates"]

    with jax.enable_x64(True):
        kept = leaves(jax.device_get(jax.jit(draws)(variables_of(model, "float64"), batch(model, "float64")[0])))
    assert [leaf.shape for leaf in kept.values()] == [(model.batch, 1, 1, 1)] * model.depth
    # Rates 1/4 and 1/2: kept branches are scaled up.
    assert [set(np.unique(leaf)) for leaf in kept.values()] == [{0, 4 / 3}, {0, 2}]


@pytest.mark.parametrize("ops", [REFERENCE, "channel_major"])
def test_each_block_is_recomputed_when_asked(ops):
    """Numbers do not show it: what is kept for the backward pass and what is computed again are the same."""
    for remat in (True, False):
        model = Model(3, 2, (6, 7), 4, depth=2, remat=remat)
        variables, (images, _) = variables_of(model, "float32"), batch(model, "float32")

        def scalar(params: Any, statistics: Any, model: Model = model, images: Any = images) -> Any:
            given = {"params": params, "batch_stats": statistics}
            logits, _ = model.build(ops, "float32").apply(given, images, train=True, mutable=["batch_stats"])
            return logits.sum()

        program = str(jax.make_jaxpr(jax.grad(scalar))(variables["params"], variables["batch_stats"]))
        # In the backward pass alone: traced forward, a block has left nothing but its results.
        assert program.count("= remat2[") == model.depth * remat


@pytest.mark.parametrize("ops", [name for name in OPS if name != REFERENCE])
def test_initial_variables_do_not_depend_on_the_operations(ops):
    model = MODELS["k1, odd batch"]
    images, _ = batch(model, "float32")
    programs = [
        str(jax.make_jaxpr(functools.partial(model.build(name, "float32").init, train=False))(KEY(), images))
        for name in (REFERENCE, ops)
    ]
    assert programs[0] == programs[1]
