"""The authors' model in PyTorch: what ours is measured beside, and what the tests compare it with.

    model = ConvMixer(channels=3, dim=256, depth=8, patch_size=2, kernel_size=5, num_classes=10,
                      activation=nn.GELU)

Tensors are named as in timm's state_dict. Importing this file imports PyTorch.
"""

from collections.abc import Callable

import torch
from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class Residual(nn.Module):
    """Adds what goes in to what comes out of `fn`."""

    def __init__(self, fn: nn.Module):
        super().__init__()
        self.fn = fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to the same."""
        return x + self.fn(x)


def depthwise_convolution(dim: int, kernel_size: int) -> nn.Module:
    """Returns a convolution of each of `dim` channels by itself that keeps the size."""
    return nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same")


class ConvMixer(nn.Module):
    """Images [B, C, H, W] to logits [B, num_classes]."""

    def __init__(
        self,
        *,
        channels: int,
        dim: int,
        depth: int,
        patch_size: int,
        kernel_size: int,
        num_classes: int,
        activation: Callable[[], nn.Module],
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        depthwise: Callable[[int, int], nn.Module] = depthwise_convolution,
    ):
        super().__init__()

        def act_and_norm() -> list[nn.Module]:
            return [activation(), norm(dim)]

        def block() -> nn.Module:
            mix = Residual(nn.Sequential(depthwise(dim, kernel_size), *act_and_norm()))
            return nn.Sequential(mix, nn.Conv2d(dim, dim, 1), *act_and_norm())

        self.depth = depth
        self.stem = nn.Sequential(nn.Conv2d(channels, dim, patch_size, stride=patch_size), *act_and_norm())
        self.blocks = nn.Sequential(*[block() for _ in range(depth)])
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to logits."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def make_adamw(
    model: nn.Module,
    *,
    rate: float,
    decay_mask: str,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    fused: bool,
) -> torch.optim.AdamW:
    """Returns PyTorch's AdamW with our settings: decay_mask "all", or "kernels" for what has more than one axis."""
    decays = [p for p in model.parameters() if decay_mask == "all" or p.ndim > 1]
    rest = [p for p in model.parameters() if not (decay_mask == "all" or p.ndim > 1)]
    groups = [{"params": decays, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(b1, b2), eps=eps, fused=fused)
