"""Which ConvMixer a PyTorch file holds, from the shapes of its tensors alone.

    found = recognise(file)         # Architecture(dim=768, depth=32, patch_size=7, kernel_size=7, ...)
    check_tensors(file, found)

A tensor is told by the name that it has in the file.
"""

import dataclasses
import re
from typing import Any

from convmixer_jax.errors import UserError
from convmixer_jax.weights.names import STYLES, Style, counter_names, tensor_names
from convmixer_jax.weights.reading import TorchFile

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The sizes of a ConvMixer; style: how its tensors are named."""

    style: Style
    dim: int
    depth: int
    patch_size: int
    kernel_size: int
    num_classes: int
    channels: int

    def __str__(self) -> str:
        return (
            f"ConvMixer-{self.dim}/{self.depth} with patches of {self.patch_size}, kernels of {self.kernel_size}, "
            f"{self.num_classes} classes and {self.channels} channels"
        )

    @property
    def activation(self) -> str:
        """The activation that goes with these sizes: shapes do not tell, but one released model alone has ReLU."""
        sizes = (self.dim, self.depth, self.patch_size, self.kernel_size, self.num_classes)
        return "relu" if sizes == (768, 32, 7, 7, 1000) else "gelu"

    def model_fields(self) -> dict[str, Any]:
        """Returns the fields of config.model that the shapes decide."""
        sizes = {"dim": self.dim, "depth": self.depth, "patch_size": self.patch_size, "kernel_size": self.kernel_size}
        return {"variant": "convmixer", **sizes}

    def tensor_shapes(self) -> dict[str, Shape]:
        """Returns the shape of every tensor by its name, but for the counters, which old files lack."""
        h, p, k = self.dim, self.patch_size, self.kernel_size
        kernels = {"stem_conv": (h, self.channels, p, p), "head": (self.num_classes, h)}
        for i in range(self.depth):
            kernels |= {f"block_{i}_depthwise": (h, 1, k, k), f"block_{i}_pointwise": (h, h, 1, 1)}
        shapes: dict[str, Shape] = {}
        for ours, theirs in tensor_names(self.style, self.depth).items():
            _, module, leaf = ours.split("/")
            vector = (self.num_classes,) if module == "head" else (h,)
            shapes[theirs] = kernels[module] if leaf == "kernel" else vector
        return shapes


def find_style(file: TorchFile) -> Style:
    """Returns how the tensors are named. Raises UserError where they are no ConvMixer's."""
    for style in STYLES.values():
        if f"{style.stem[0]}.weight" in file.tensors:
            return style
    wanted = " nor ".join(f"{style.stem[0]}.weight ({style.whose})" for style in STYLES.values())
    begin = ", ".join(file.prefix + name for name in list(file.tensors)[:3]) or "none"
    raise UserError(
        f"{file.path} holds no ConvMixer: neither {wanted} is among its {len(file.tensors)} tensors ({begin}, ...)"
    )


def find_depth(file: TorchFile, style: Style) -> int:
    """Returns the number of blocks. Raises UserError where there is none, or one is missing between others."""
    found = (re.match(style.block_pattern, name) for name in file.tensors)
    numbers = {int(match[1]) - style.first_block for match in found if match}
    for i in range(max(len(numbers), 1)):
        if i not in numbers:
            there = f"it has blocks up to {max(numbers)}" if numbers else "it has no blocks at all"
            raise UserError(f"{file.path} has no tensors {file.prefix}{style.block(i)}.*: {there}")
    return len(numbers)


def size_of(file: TorchFile, name: str, form: str) -> Shape:
    """Returns the shape of a tensor. Raises UserError unless it has as many axes as `form`, "[dim, dim]", names."""
    there = file.tensors[name].shape if name in file.tensors else None
    if there is None or len(there) != form.count(",") + 1:
        got = "nothing" if there is None else there
        raise UserError(f"{file.path} has {got} for {file.prefix}{name}, a ConvMixer wants {form}")
    return tuple(there)


def recognise(file: TorchFile) -> Architecture:
    """Returns the architecture. Raises UserError, naming a tensor, where the file holds no ConvMixer."""
    style = find_style(file)
    depth = find_depth(file, style)
    dim, channels, patch_size, _ = size_of(file, f"{style.stem[0]}.weight", "[dim, channels, patch, patch]")
    *_, kernel_size = size_of(file, f"{style.block(0)}.0.fn.0.weight", "[dim, 1, kernel, kernel]")
    num_classes, _ = size_of(file, f"{style.head(depth)}.weight", "[classes, dim]")
    return Architecture(style, dim, depth, patch_size, kernel_size, num_classes, channels)


def check_tensors(file: TorchFile, found: Architecture) -> None:
    """Raises UserError, naming both shapes, for the first tensor that is missing, additional or of another shape."""
    wanted = found.tensor_shapes()
    # A counter of every norm or, in files of before PyTorch 0.4.1, of none.
    counters = dict.fromkeys(counter_names(found.style, found.depth).values(), ())
    there = {name: tuple(tensor.shape) for name, tensor in file.tensors.items()}
    for name in sorted(there.keys() | wanted.keys()):
        expected = wanted.get(name, counters.get(name, "nothing"))
        if there.get(name, "nothing") != expected:
            got = there.get(name, "nothing")
            raise UserError(f"{file.path} has {got} for {file.prefix}{name}, a {found} wants {expected}")


def read_counters(file: TorchFile, found: Architecture) -> dict[str, int]:
    """Returns {our name of a norm: training batches that it has seen}, as far as the file says."""
    counters = counter_names(found.style, found.depth)
    return {ours: int(file.tensors[theirs]) for ours, theirs in counters.items() if theirs in file.tensors}
