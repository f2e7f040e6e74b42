"""The whole model by every row of OPS against the plain linen model, differentiated by JAX, in float64.

Logits of training and of evaluation, running statistics, the gradients of every parameter and of the images. How each
depthwise convolution does with every kernel size is in test_depthwise.py and test_channel_major.py.
"""

import dataclasses
import functools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.ops.choice import OPS, REFERENCE, Case, lacks
from convmixer_jax.ops.native.library import lacking
from convmixer_jax.planning.program_text import read_collectives
from convmixer_jax.training.mesh import make_mesh, over_data, replicated
from tests.ops import plain
from tests.training.steps import leaves, random_variables, sent

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES = 3
KEY = functools.partial(jax.random.key, 3)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model and batch: kernel, patch, image, examples, depth, activation, drop_path, remat, examples in a group."""

    k: int
    p: int
    size: tuple[int, int]
    batch: int
    depth: int = 1
    activation: str = "gelu"
    drop_path: float = 0.0
    remat: bool = False
    bn_group_size: int = 0

    def build(self, ops: str, dtype: str, mesh: Any = None) -> ConvMixer:
        return ConvMixer(
            dim=4,
            depth=self.depth,
            patch_size=self.p,
            kernel_size=self.k,
            num_classes=CLASSES,
            activation=self.activation,
            drop_path=self.drop_path,
            ops=ops,
            remat=self.remat,
            bn_group_size=self.bn_group_size,
            mesh=mesh,
            dtype=dtype,
            param_dtype="float64" if dtype == "float64" else "float32",
        )


MODELS = {
    "k1, odd batch": Model(1, 1, (3, 5), 65),
    "k2 p2, odd image, ReLU": Model(2, 2, (7, 6), 2, activation="relu"),
    "k4 p3, two blocks, dropped branches": Model(4, 3, (13, 11), 5, depth=2, drop_path=0.5),
    "k5, larger than the map, one image": Model(5, 3, (13, 10), 1),
    "k9 p2": Model(9, 2, (17, 11), 5),
    "k4, two groups": Model(4, 2, (6, 7), 6, depth=2, bn_group_size=3),
    "k3, recomputed": Model(3, 2, (6, 7), 4, drop_path=0.3, remat=True),
}
# Of each array's largest value: what sums of a hundred terms lose that nearly cancel below each of three to five
# BatchNorms, by a factor of ten to a hundred each time: three digits of seven, and five of sixteen.
TOLERANCES = {"float32": 2e-4, "float64": 1e-10}
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


@pytest.fixture(scope="module", autouse=True)
def _native_with_few_examples():
    """Else they would be left to the formulas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPS, "native", plain.NATIVE.layout)
        yield


def batch(model: Model, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and the weights of the logits in the scalar that is differentiated."""
    rng = np.random.default_rng(0)
    shapes = (model.batch, *model.size, 2), (model.batch, CLASSES)
    images, weights = (
        rng.normal(size=shape).astype("float64" if dtype == "float64" else "float32") for shape in shapes
    )
    return images, weights


def variables_of(model: Model, dtype: str) -> dict[str, Any]:
    images, _ = batch(model, dtype)
    init = functools.partial(model.build(REFERENCE, dtype).init, train=False)
    with jax.enable_x64(dtype == "float64"):
        return random_variables(jax.eval_shape(init, KEY(), images), seed=1)


def everything(module: ConvMixer, variables: dict[str, Any], images: Any, weights: Any) -> dict[str, Any]:
    """Returns all that a model computes of a batch; traced."""
    statistics = variables["batch_stats"]

    def scalar(params: Any, images: Any) -> Any:
        logits, updated = module.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": KEY()},
        )
        return (logits.astype(weights.dtype) * weights).sum(), (logits, updated["batch_stats"])

    gradients, (logits, updated) = jax.grad(scalar, argnums=(0, 1), has_aux=True)(variables["params"], images)
    evaluated = module.apply(variables, images, train=False)
    return {
        "logits": logits,
        "statistics": updated,
        "evaluated": evaluated,
        "gradients": gradients[0],
        "image_gradient": gradients[1],
    }


@functools.cache
def computed(name: str, ops: str, dtype: str) -> dict[str, Any]:
    model = MODELS[name]
    with jax.enable_x64(dtype == "float64"):
        program = jax.jit(functools.partial(everything, model.build(ops, dtype)))
        return jax.device_get(program(variables_of(model, dtype), *batch(model, dtype)))


def assert_close(found: Any, expected: Any, tolerance: float, floor: float = 0.0) -> None:
    """Asserts that each leaf is within tolerance of the largest value of the expected one, at least of `floor`."""
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        bound = tolerance * max(np.abs(leaf).max(), floor)
        np.testing.assert_allclose(found[name].astype("float64"), leaf, rtol=0, atol=bound, err_msg=name)


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


@pytest.mark.skipif("native" not in ON_CPU, reason="no C++ compiler")
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


def test_eight_devices_send_sums_alone_and_compute_the_same():
    """Statistics are of the global batch, and so is every gradient; branches are dropped as on one device."""
    model, mesh = Model(4, 1, (3, 4), 16, drop_path=0.5), make_mesh(8, 2)
    images, weights = batch(model, "float32")
    variables = variables_of(model, "float32")
    whole, split = replicated(mesh), over_data(mesh)
    alone = jax.jit(functools.partial(everything, model.build("channel_major", "float32")))(variables, images, weights)
    program = jax.jit(
        functools.partial(everything, model.build("channel_major", "float32", mesh)),
        in_shardings=(whole, split, split),
    )
    compiled = program.lower(variables, images, weights).compile()
    assert {name for name, _ in sent(str(compiled.as_text()))} == {"all-reduce"}
    given = jax.device_put((variables, images, weights), (whole, split, split))
    assert_close(jax.device_get(compiled(*given)), jax.device_get(alone), TOLERANCES["float32"])


# Four examples on each of 8 devices: two groups, one, and one over two devices.
GROUPS = [(REFERENCE, 4), (REFERENCE, 8), *(("channel_major", group) for group in (2, 4, 8)), ("shifted", 2)]


@pytest.mark.parametrize("ops, group", GROUPS)
def test_groups_of_examples_sum_over_their_own_devices_alone(ops, group):
    model, mesh = Model(4, 1, (3, 4), 32, drop_path=0.5, bn_group_size=group), make_mesh(8, 2)
    images, weights = batch(model, "float32")
    variables = variables_of(model, "float32")
    whole, split = replicated(mesh), over_data(mesh)
    program = jax.jit(
        functools.partial(trained, model.build(ops, "float32", mesh)),
        in_shardings=(whole, split, split),
        out_shardings=(split, whole),
    )
    compiled = program.lower(variables, images, weights).compile()
    sums = read_collectives(str(compiled.as_text()))
    assert {each.kind for each in sums} == {"all-reduce"}
    if group <= 4:
        # Nothing but the gradients and, for the running statistics, the means over groups.
        assert {each.group for each in sums} == {8}
        assert sum(each.payload for each in sums) == sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
    else:
        assert max(Counter(each.group for each in sums).items(), key=lambda item: item[1])[0] == 2
    given = jax.device_put((variables, images, weights), (whole, split, split))
    assert_close(jax.device_get(compiled(*given)), trained_alone(model), TOLERANCES["float32"])


@functools.cache
def trained_alone(model: Model) -> Any:
    """Returns what the reference on one device gives of `trained`; on the host."""
    program = jax.jit(functools.partial(trained, model.build(REFERENCE, "float32")))
    return jax.device_get(program(variables_of(model, "float32"), *batch(model, "float32")))


def trained(module: ConvMixer, variables: dict[str, Any], images: Any, weights: Any) -> Any:
    """Returns logits, then the new statistics and the gradients of the parameters; traced."""

    def scalar(params: Any) -> Any:
        given = variables | {"params": params}
        rngs = {"dropout": KEY()}
        logits, updated = module.apply(given, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return (logits * weights).sum(), (logits, updated["batch_stats"])

    gradients, (logits, updated) = jax.grad(scalar, has_aux=True)(variables["params"])
    return logits, (updated, gradients)
