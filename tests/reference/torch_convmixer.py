"""ConvMixer in PyTorch with mistakes that can be planted in it, and the way between its tensors and our variables.

Each keyword of `MISTAKES` plants one known mistake of a port to JAX; without any it is the benchmark's model.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from convmixer_jax.benchmarks import torch_model

MISTAKES: dict[str, dict[str, Any]] = {
    "tanh GELU": {"gelu": "tanh"},
    "epsilon 1e-3": {"eps": 1e-3},
    "biased running variance": {"unbiased": False},
    "extra row and column at the start": {"extra_at_end": False},
}


class BatchNorm(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d; with unbiased=False the running variance is that of the batch divided by N, not N - 1."""

    def __init__(self, dim: int, eps: float, unbiased: bool):
        super().__init__(dim, eps=eps, momentum=0.1)
        self.unbiased = unbiased

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.unbiased:
            return super().forward(x)
        with torch.no_grad():
            self.running_mean.lerp_(x.mean((0, 2, 3)), self.momentum)
            self.running_var.lerp_(x.var((0, 2, 3), correction=0), self.momentum)
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class PadAtStart(nn.Conv2d):
    """A depthwise convolution that keeps the size; an even kernel's extra row and column of zeros come first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before, after = self.kernel_size[0] // 2, (self.kernel_size[0] - 1) // 2
        x = nn.functional.pad(x, (before, after, before, after))
        return nn.functional.conv2d(x, self.weight, self.bias, groups=self.groups)


def pad_at_start(dim: int, kernel_size: int) -> nn.Module:
    return PadAtStart(dim, dim, kernel_size, groups=dim)


class TorchConvMixer(torch_model.ConvMixer):
    """Images [B, 3, H, W] to logits [B, num_classes]."""

    def __init__(
        self,
        dim: int,
        depth: int,
        patch_size: int,
        kernel_size: int,
        num_classes: int,
        activation: str = "gelu",
        gelu: str = "none",
        eps: float = 1e-5,
        unbiased: bool = True,
        extra_at_end: bool = True,
    ):
        super().__init__(
            channels=3,
            dim=dim,
            depth=depth,
            patch_size=patch_size,
            kernel_size=kernel_size,
            num_classes=num_classes,
            activation={"gelu": functools.partial(nn.GELU, gelu), "relu": nn.ReLU}[activation],
            norm=functools.partial(BatchNorm, eps=eps, unbiased=unbiased),
            depthwise=torch_model.depthwise_convolution if extra_at_end else pad_at_start,
        )


def module_names(depth: int) -> dict[str, str]:
    """Returns the name of each of our modules that has variables, with PyTorch's name of it."""
    names = {"stem_conv": "stem.0", "stem_norm": "stem.2", "head": "head"}
    for i in range(depth):
        names[f"block_{i}_depthwise"] = f"blocks.{i}.0.fn.0"
        names[f"block_{i}_depthwise_norm"] = f"blocks.{i}.0.fn.2"
        names[f"block_{i}_pointwise"] = f"blocks.{i}.1"
        names[f"block_{i}_pointwise_norm"] = f"blocks.{i}.3"
    return names


def to_torch(array: np.ndarray) -> torch.Tensor:
    """Copies a leaf: convolution HWIO to OIHW, dense [in, out] to [out, in], vectors as they are."""
    return torch.tensor(np.asarray(array).transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[np.ndim(array)]))


def from_torch(tensor: torch.Tensor) -> np.ndarray:
    """Copies a tensor to our layout: the inverse of `to_torch`."""
    array = tensor.detach().numpy().copy()
    return array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])


def load_variables(model: TorchConvMixer, variables: dict[str, Any]) -> None:
    """Copies our {"params", "batch_stats"} into the model; the tensors take the variables' dtype."""
    theirs = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    tensors = {name: t for name, t in model.state_dict().items() if name.endswith("num_batches_tracked")}
    for ours, name in module_names(model.depth).items():
        leaves = {**variables["params"][ours], **variables["batch_stats"].get(ours, {})}
        tensors.update({f"{name}.{theirs[leaf]}": to_torch(array) for leaf, array in leaves.items()})
    model.load_state_dict(tensors, strict=True, assign=True)
    model.requires_grad_(True)


def read_parameters(model: TorchConvMixer, of: Callable[[torch.Tensor], torch.Tensor] = lambda p: p) -> dict[str, Any]:
    """Returns `of` each parameter as a tree like our params."""
    tree = {}
    for ours, name in module_names(model.depth).items():
        module = model.get_submodule(name)
        weight = "scale" if isinstance(module, nn.BatchNorm2d) else "kernel"
        tree[ours] = {weight: from_torch(of(module.weight)), "bias": from_torch(of(module.bias))}
    return tree


def read_gradients(model: TorchConvMixer) -> dict[str, Any]:
    """Returns the gradient of each parameter as a tree like our params."""
    return read_parameters(model, lambda parameter: parameter.grad)


def read_statistics(model: TorchConvMixer) -> dict[str, Any]:
    """Returns the running statistics as a tree like our batch_stats."""
    modules = {ours: model.get_submodule(name) for ours, name in module_names(model.depth).items()}
    return {
        ours: {"mean": from_torch(module.running_mean), "var": from_torch(module.running_var)}
        for ours, module in modules.items()
        if isinstance(module, nn.BatchNorm2d)
    }
