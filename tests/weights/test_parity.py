"""Converted weights give PyTorch's logits, both ways, for the released models and the family on CIFAR-10.

The bounds are of the largest logit, or of 1 where that is smaller. float64 carries 16 digits, and what is compared are
the same float32 weights: 1e-6 leaves room for anything but another formula. float32 carries 7, and the sums of up to 65
layers are made in another order: 1e-5.
"""

import functools
from typing import Any

import jax
import numpy as np
import pytest
import torch

from convmixer_jax.ops import features
from convmixer_jax.presets import PRESETS
from convmixer_jax.weights.names import STYLES, flat, to_tensors
from tests.reference.torch_convmixer import MISTAKES, TorchConvMixer
from tests.weights.models import (
    SMALL,
    our_logits,
    random_images,
    random_model,
    shape_of,
    their_logits,
    to_variables,
)

BOUNDS = {"float64": 1e-6, "float32": 1e-5}
# In float64 XLA makes a depthwise convolution a dense one, which takes a minute for a thousand channels. So the CPU's
# own operations run there, which tests/ops compares with the reference.
OPS = {"float64": "channel_major", "float32": "reference"}

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def blocks_share_programs(monkeypatch):
    """Compiles each operation for itself, once for all blocks: a whole model of 32 takes ten seconds."""
    for name, static in (("spatial", (4, 5)), ("product", (2,)), ("pooled_features", (3, 4))):
        monkeypatch.setattr(features, name, jax.jit(getattr(features, name), static_argnums=static))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the largest difference of two logits, of the largest logit or of 1."""
    assert ours.shape == theirs.shape
    # Logits that hardly depend on the image would say little of the layers below the classifier.
    assert theirs.std(axis=0).mean() > 1e-3
    return np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())


def filled(shape: dict[str, Any], classes: int, variables: dict[str, Any]) -> TorchConvMixer:
    """PyTorch's model with our variables under timm's names."""
    with torch.device("meta"):  # without initial values, which would be replaced
        model = TorchConvMixer(**shape, num_classes=classes)
    tensors = {name: torch.tensor(array) for name, array in to_timm_names(variables, shape).items()}
    counters = {name: torch.tensor(0) for name in model.state_dict() if name.endswith("num_batches_tracked")}
    model.load_state_dict(tensors | counters, strict=True, assign=True)
    return model.eval()


def backwards(leaf: np.ndarray, dim: int) -> np.ndarray:
    """Our variable with its channels in reverse order: other weights, whose channels keep the statistics they had."""
    leaf = leaf[..., ::-1]
    return leaf[..., ::-1, :] if leaf.ndim > 1 and leaf.shape[-2] == dim else leaf


def to_timm_names(variables: dict[str, Any], shape: dict[str, Any]) -> dict[str, np.ndarray]:
    return to_tensors(flat(variables), STYLES["timm"], shape["depth"])


# Up to gigabytes in float64.
LARGE = ("convmixer_1536_20", "convmixer_768_32", "convmixer_1024_20_ks9_p14")


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in PRESETS]
)
def test_logits_are_pytorchs(preset):
    shape = shape_of(preset)
    # A map of 3 or 4 patches is smaller than most kernels: all of them meet padding on each side.
    classes, patches = (1000, 3) if shape["dim"] > 256 else (10, 4)
    images = random_images(shape, patches)
    theirs = random_model(shape, classes, images)
    images = images[:2]
    variables = to_variables(theirs)
    others = jax.tree.map(functools.partial(backwards, dim=shape["dim"]), variables)
    for given, model in ((variables, theirs), (others, filled(shape, classes, others))):
        for dtype, bound in sorted(BOUNDS.items()):  # float32 first: the model is widened then
            ours = our_logits(shape, given, images, dtype, OPS[dtype])
            logits = their_logits(model, images, dtype)
            found = difference(ours, logits)
            print(f"{preset}, {dtype}: {found:.1e} from PyTorch's logits, of {np.abs(logits).max():.2f}")
            assert found <= bound, f"{dtype}: {found}"


CAUGHT = [mistake for mistake in MISTAKES if mistake != "biased running variance"]  # which evaluation does not compute


@pytest.mark.parametrize("mistake", CAUGHT)
def test_a_planted_mistake_exceeds_the_bounds(mistake):
    images = random_images(SMALL, patches=5)
    right = random_model(SMALL, 10, images)
    wrong = TorchConvMixer(**SMALL, num_classes=10, **MISTAKES[mistake])
    wrong.load_state_dict(right.state_dict())
    for dtype, bound in sorted(BOUNDS.items()):
        ours = our_logits(SMALL, to_variables(right), images, dtype, OPS[dtype])
        assert difference(ours, their_logits(right, images, dtype)) <= bound
        assert difference(ours, their_logits(wrong.eval(), images, dtype)) > 10 * bound


def test_timms_own_model_takes_our_names_and_gives_our_logits():
    # timm needs torchvision, which is not built for every PyTorch, and says so by either error: the only test that may
    # not run.
    try:
        from timm.models import convmixer  # type: ignore[import-not-found]
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported: {error}")
    images = random_images(SMALL, patches=5)
    variables = to_variables(random_model(SMALL, 10, images))
    sizes = {name: SMALL[name] for name in ("dim", "depth", "patch_size", "kernel_size")}
    model = convmixer.ConvMixer(**sizes, num_classes=10)
    tensors = {name: torch.tensor(array) for name, array in to_timm_names(variables, SMALL).items()}
    model.load_state_dict(tensors, strict=True)
    ours = our_logits(SMALL, variables, images, "float64")
    assert difference(ours, their_logits(model.eval(), images, "float64")) <= BOUNDS["float64"]
