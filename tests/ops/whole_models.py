"""Small models, their batches and all that they compute, by any row of OPS.

everything(MODELS["k9 p2"].build("native", "float32"), variables, images, weights)
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.ops.choice import REFERENCE
from tests.training.steps import leaves, random_variables

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
