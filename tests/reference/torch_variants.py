"""The variants, heads, blocks and norms in PyTorch's functions, from our variables, to compare values and gradients.

    net = Net(variables, train=True, momentum=0.1, epsilon=1e-5)
    logits = staged(net, images, head="linear")
    gradients = net.gradients(logits.square().sum())

Written after the papers and report E's description; only the names of the variables are ours.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F


class Net:
    """Layers by the name of their variables. Maps are [B, C, H, W]; activations are the exact GELU unless told."""

    def __init__(self, variables: dict[str, Any], train: bool, momentum: float, epsilon: float):
        self.train, self.momentum, self.epsilon = train, momentum, epsilon
        self.params = {
            module: {leaf: torch.tensor(np.asarray(array), requires_grad=True) for leaf, array in leaves.items()}
            for module, leaves in variables["params"].items()
        }
        self.statistics = {
            module: {leaf: torch.tensor(np.asarray(array)) for leaf, array in leaves.items()}
            for module, leaves in variables.get("batch_stats", {}).items()
        }

    def conv(
        self, x: torch.Tensor, name: str, stride: int = 1, groups: int = 1, same: bool = True, bias: bool = True
    ) -> torch.Tensor:
        """Convolves; "same" is Keras's: what is odd of the padding comes at the end."""
        assert ("bias" in self.params[name]) == bias, name
        kernel = self.params[name]["kernel"].permute(3, 2, 0, 1)
        if same:
            sizes = zip(x.shape[2:], kernel.shape[2:], strict=True)
            totals = [max((-(-side // stride) - 1) * stride + size - side, 0) for side, size in sizes]
            (top, left), (bottom, right) = zip(*[(total // 2, total - total // 2) for total in totals], strict=True)
            x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, kernel, self.params[name].get("bias"), stride=stride, groups=groups)

    def depthwise(self, x: torch.Tensor, name: str, bias: bool = True) -> torch.Tensor:
        return self.conv(x, name, groups=x.shape[1], bias=bias)

    def dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.params[name]["kernel"].T, self.params[name]["bias"])

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """BatchNorm where the variables have statistics, else LayerNorm over the channels."""
        scale, bias = self.params[name]["scale"], self.params[name]["bias"]
        if name in self.statistics:
            mean, var = self.statistics[name]["mean"], self.statistics[name]["var"]
            return F.batch_norm(x, mean, var, scale, bias, self.train, self.momentum, self.epsilon)
        last = x.movedim(1, -1)
        return F.layer_norm(last, last.shape[-1:], scale, bias, self.epsilon).movedim(-1, 1)

    def gradients(self, loss: torch.Tensor) -> dict[str, Any]:
        """Returns the gradient of a scalar by every parameter, as NumPy arrays in our layout."""
        loss.backward()
        return {
            module: {leaf: tensor.grad.numpy() for leaf, tensor in leaves.items()}
            for module, leaves in self.params.items()
        }

    def batch_stats(self) -> dict[str, Any]:
        """Returns the running statistics, which a forward pass in training updated."""
        return {
            module: {leaf: tensor.numpy() for leaf, tensor in leaves.items()}
            for module, leaves in self.statistics.items()
        }


def to_maps(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images.transpose(0, 3, 1, 2))


def classify(net: Net, x: torch.Tensor, head: str) -> torch.Tensor:
    """Features [B, C] to logits; the dropout of bn_dropout is left out."""
    if head == "representation":
        x = net.dense(net.norm(x, "head_norm"), "head_hidden")
        x = net.norm(net.dense(F.gelu(x), "head_representation"), "head_representation_norm")
    elif head == "bn_dropout":
        x = net.norm(x, "head_norm")
    return net.dense(x, "head")


def residual(net: Net, x: torch.Tensor, y: torch.Tensor, block: str, bias: bool) -> torch.Tensor:
    if f"{block}_layer_scale" in net.params:
        y = net.params[f"{block}_layer_scale"]["gamma"][:, None, None] * y
    x = F.gelu(net.conv(x + y, f"{block}_pointwise", bias=bias))
    return net.norm(x, f"{block}_pointwise_norm")


def convmixer(net: Net, images: np.ndarray, depth: int, patch_size: int, head: str) -> torch.Tensor:
    """With the bottleneck, layer scale and either norm where the variables are theirs."""
    x = net.norm(F.gelu(net.conv(to_maps(images), "stem_conv", stride=patch_size, same=False)), "stem_norm")
    for block in (f"block_{i}" for i in range(depth)):
        narrow = f"{block}_reduce" in net.params
        y = net.norm(F.gelu(net.conv(x, f"{block}_reduce")), f"{block}_reduce_norm") if narrow else x
        y = net.norm(F.gelu(net.depthwise(y, f"{block}_depthwise")), f"{block}_depthwise_norm")
        y = net.norm(F.gelu(net.conv(y, f"{block}_expand")), f"{block}_expand_norm") if narrow else y
        x = residual(net, x, y, block, bias=True)
    return classify(net, x.mean((2, 3)), head)


def squeeze_excite(net: Net, x: torch.Tensor, block: str) -> torch.Tensor:
    shares = net.dense(F.gelu(net.dense(x.mean((2, 3)), f"{block}_squeeze")), f"{block}_excite")
    return x * torch.sigmoid(shares)[:, :, None, None]


def staged(net: Net, images: np.ndarray, stages: tuple[int, ...], head: str) -> torch.Tensor:
    """Report E's. stages: the stage, 0 to 2, of each block."""
    x = net.norm(F.gelu(net.conv(to_maps(images), "stem_conv", stride=2, bias=False)), "stem_norm")
    for i, (before, stage) in enumerate(zip((0, *stages), stages, strict=False)):
        block = f"block_{i}"
        if stage > before:
            x = F.gelu(net.conv(x, f"down_{stage}_conv", stride=2, groups=8, bias=False))
            x = net.norm(x, f"down_{stage}_norm")
        if stage == 0:
            y = net.norm(F.gelu(net.depthwise(x, f"{block}_depthwise", bias=False)), f"{block}_norm")
        else:
            y = net.depthwise(net.depthwise(x, f"{block}_row", bias=False), f"{block}_column", bias=False)
            y = F.gelu(y)
            y = net.depthwise(y, f"{block}_depthwise", bias=False) if stage == 1 else y
            y = squeeze_excite(net, net.norm(y, f"{block}_norm"), block)
        x = residual(net, x, y, block, bias=False)
    return classify(net, x.mean((2, 3)), head)


def cnn(net: Net, images: np.ndarray) -> torch.Tensor:
    """Report A's baseline. Maps are flattened as Keras and flax do it, channels last."""
    x = to_maps(images)
    for i in range(3):
        x = F.max_pool2d(F.relu(net.conv(x, f"conv_{i}")), 2)
    x = x.permute(0, 2, 3, 1).flatten(1)
    return net.dense(F.relu(net.dense(x, "hidden")), "head")
