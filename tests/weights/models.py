"""PyTorch ConvMixers with random weights and statistics, and their logits beside ours."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.presets import PRESETS
from convmixer_jax.weights.names import from_tensors, nested
from convmixer_jax.weights.reading import TorchFile
from convmixer_jax.weights.recognition import check_tensors, recognise
from tests.reference.torch_convmixer import TorchConvMixer

# The tensors are small, and threads that wait for one another take seconds where the processors are busy.
torch.set_num_threads(1)

SHAPE_FIELDS = ("dim", "depth", "patch_size", "kernel_size", "activation")
# A random network amplifies a difference from norm to norm (arXiv 1902.08129), by a fifth with ReLU; a trained one does
# not. After 65 norms nothing would be left of float32's digits. A larger running variance takes that back: for each
# channel it is a batch's times a number between these.
VARIANCE = {"gelu": (0.8, 1.25), "relu": (1.0, 2.0)}
SMALL: dict[str, Any] = {"dim": 8, "depth": 2, "patch_size": 2, "kernel_size": 4, "activation": "gelu"}


def shape_of(preset: str) -> dict[str, Any]:
    return {name: PRESETS[preset][name] for name in SHAPE_FIELDS}


def random_images(shape: dict[str, Any], patches: int) -> np.ndarray:
    """Normalised images [8, H, W, 3] of `patches` x `patches` patches and, at the end, a row that is cut off."""
    side = shape["patch_size"] * patches
    return np.random.default_rng(0).normal(size=(8, side + (shape["patch_size"] > 1), side, 3))


def random_model(shape: dict[str, Any], num_classes: int, images: np.ndarray, **mistake: Any) -> TorchConvMixer:
    """A model in float32 with random weights, whose norms have the statistics of the images: no two are alike."""
    torch.manual_seed(0)
    model = TorchConvMixer(**shape, num_classes=num_classes, **mistake)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0.0, 0.2)
        model.train()(to_channels_first(images, "float32"))
        for norm in norms:
            # A channel that is always the same, as ReLU makes some, has no variance: the least is a hundredth.
            norm.running_var.clamp_(min=0.01)
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(*VARIANCE[shape["activation"]]))
            norm.num_batches_tracked.fill_(3)
    return model.eval()


def to_channels_first(images: np.ndarray, dtype: str) -> torch.Tensor:
    return torch.tensor(images.astype(dtype).transpose(0, 3, 1, 2))


def torch_file(tensors: dict[str, torch.Tensor], path: str = "weights.pth") -> TorchFile:
    """What reading a file of these tensors returns."""
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    return TorchFile(Path(path), arrays, prefix="", metadata={}, has_ema=False)


def to_variables(model: TorchConvMixer) -> dict[str, Any]:
    """Our variables of the model's state_dict, recognised and checked."""
    file = torch_file(model.state_dict())
    found = recognise(file)
    check_tensors(file, found)
    return nested(from_tensors(file.tensors, found.style, found.depth))


def our_logits(
    shape: dict[str, Any], variables: dict[str, Any], images: np.ndarray, dtype: str, ops: str = "reference"
) -> np.ndarray:
    """Our logits, computed layer by layer: nothing large is compiled, and equal blocks share their programs."""
    classes = variables["params"]["head"]["bias"].size
    with jax.enable_x64(dtype == "float64"):
        model = ConvMixer(**shape, num_classes=classes, ops=ops, dtype=dtype, param_dtype=dtype)
        cast = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), variables)
        return np.asarray(model.apply(cast, images.astype(dtype), train=False))


def their_logits(model: TorchConvMixer, images: np.ndarray, dtype: str) -> np.ndarray:
    """PyTorch's logits; the model stays in that dtype."""
    with torch.no_grad():
        return model.to(getattr(torch, dtype))(to_channels_first(images, dtype)).numpy()
