"""The whole model on eight devices: what crosses between them, and that it computes what one device does."""

import functools
from collections import Counter
from typing import Any

import jax
import pytest

from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.ops.choice import REFERENCE
from convmixer_jax.planning.program_text import read_collectives
from convmixer_jax.training.mesh import make_mesh, over_data, replicated
from tests.ops.plain import NEEDS_COMPILER
from tests.ops.whole_models import KEY, TOLERANCES, Model, assert_close, batch, everything, variables_of
from tests.training.steps import sent

pytestmark = pytest.mark.usefixtures("quick_compilation", "native_with_few_examples")


@pytest.mark.parametrize("ops", ["channel_major", pytest.param("native", marks=NEEDS_COMPILER)])
def test_eight_devices_send_sums_alone_and_compute_the_same(ops):
    """Statistics are of the global batch, and so is every gradient; branches are dropped as on one device."""
    model, mesh = Model(4, 1, (3, 4), 16, drop_path=0.5), make_mesh(8, 2)
    images, weights = batch(model, "float32")
    variables = variables_of(model, "float32")
    whole, split = replicated(mesh), over_data(mesh)
    alone = jax.jit(functools.partial(everything, model.build("channel_major", "float32")))(variables, images, weights)
    program = jax.jit(
        functools.partial(everything, model.build(ops, "float32", mesh)),
        in_shardings=(whole, split, split),
    )
    compiled = program.lower(variables, images, weights).compile()
    assert {name for name, _ in sent(str(compiled.as_text()))} == {"all-reduce"}
    assert "_spatial_forward" not in str(compiled.as_text())  # sums over devices are XLA's
    given = jax.device_put((variables, images, weights), (whole, split, split))
    assert_close(jax.device_get(compiled(*given)), jax.device_get(alone), TOLERANCES["float32"])


# Four examples on each of 8 devices: two groups, one, and one over two devices.
GROUPS = [
    *((REFERENCE, 4), (REFERENCE, 8), ("shifted", 2)),
    *(("channel_major", group) for group in (2, 4, 8)),
    *(pytest.param("native", group, marks=NEEDS_COMPILER) for group in (2, 4, 8)),
]


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
    assert ("_spatial_forward" in str(compiled.as_text())) == (ops == "native" and group == 4)
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
