"""Our variables and a PyTorch ConvMixer's tensors: which is which, and how their axes lie.

    variables = from_tensors(tensors, STYLES["timm"], depth=8)      # {"params/stem_conv/kernel": array, ...}
    tensors = to_tensors(variables, STYLES["timm"], depth=8)        # {"stem.0.weight": array, ...}

A variable's name is its path in {"params", "batch_stats"}, joined by slashes. Both ways copy every bit. A style is how
a state_dict names its modules; to read another one, add a row to STYLES.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

# What we call the values of a module, and what PyTorch does.
_CONVOLUTION = {"params/{}/kernel": "weight", "params/{}/bias": "bias"}
_NORM = {
    "params/{}/scale": "weight",
    "params/{}/bias": "bias",
    "batch_stats/{}/mean": "running_mean",
    "batch_stats/{}/var": "running_var",
}
COUNTER = "num_batches_tracked"  # of each BatchNorm: training batches so far, which evaluation does not read
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # HWIO to OIHW, [in, out] to [out, in], vectors as they are
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


@dataclasses.dataclass(frozen=True)
class Style:
    """Names of modules. stem: convolution and norm. block: of a block's number. head: of the number of blocks."""

    whose: str
    stem: tuple[str, str]
    block: Callable[[int], str]
    block_pattern: str  # a regular expression whose group is the number that `first_block` has in block 0
    first_block: int
    head: Callable[[int], str]


STYLES = {
    "timm": Style(
        whose="timm's names",
        stem=("stem.0", "stem.2"),
        block=lambda i: f"blocks.{i}",
        block_pattern=r"blocks\.(\d+)\.",
        first_block=0,
        head=lambda depth: "head",
    ),
    # nn.Sequential(convolution, GELU, norm, block 0, ..., AdaptiveAvgPool2d, Flatten, Linear)
    "sequential": Style(
        whose="the authors' names",
        stem=("0", "2"),
        block=lambda i: f"{3 + i}",
        block_pattern=r"(\d+)\.0\.fn\.",
        first_block=3,
        head=lambda depth: f"{depth + 5}",
    ),
}


def module_names(style: Style, depth: int) -> dict[str, str]:
    """Returns {our name: PyTorch's name} of every module that has variables, in the order of the network."""
    names = dict(zip(("stem_conv", "stem_norm"), style.stem, strict=True))
    for i in range(depth):
        names[f"block_{i}_depthwise"] = f"{style.block(i)}.0.fn.0"
        names[f"block_{i}_depthwise_norm"] = f"{style.block(i)}.0.fn.2"
        names[f"block_{i}_pointwise"] = f"{style.block(i)}.1"
        names[f"block_{i}_pointwise_norm"] = f"{style.block(i)}.3"
    return names | {"head": style.head(depth)}


def tensor_names(style: Style, depth: int) -> dict[str, str]:
    """Returns {our name: PyTorch's name} of every variable."""
    return {
        variable.format(ours): f"{theirs}.{tensor}"
        for ours, theirs in module_names(style, depth).items()
        for variable, tensor in (_NORM if ours.endswith("_norm") else _CONVOLUTION).items()
    }


def counter_names(style: Style, depth: int) -> dict[str, str]:
    """Returns {our name of a norm: PyTorch's name of its COUNTER}."""
    modules = module_names(style, depth)
    return {ours: f"{theirs}.{COUNTER}" for ours, theirs in modules.items() if ours.endswith("_norm")}


def shape_in_torch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that PyTorch's tensor has where our variable has `shape`."""
    return tuple(shape[axis] for axis in _TO_TORCH[len(shape)])


def from_tensors(tensors: Mapping[str, np.ndarray], style: Style, depth: int) -> Arrays:
    """Returns our variables of the tensors; these are named in `style` and checked, see `recognition`."""
    return {
        ours: np.ascontiguousarray(tensors[theirs].transpose(_FROM_TORCH[tensors[theirs].ndim]))
        for ours, theirs in tensor_names(style, depth).items()
    }


def to_tensors(variables: Mapping[str, np.ndarray], style: Style, depth: int) -> Arrays:
    """Returns PyTorch's tensors of our variables: the inverse of `from_tensors`."""
    return {
        theirs: np.ascontiguousarray(variables[ours].transpose(_TO_TORCH[variables[ours].ndim]))
        for ours, theirs in tensor_names(style, depth).items()
    }


def flat(variables: Mapping[str, Any]) -> Arrays:
    """Returns nested dicts of arrays by the names that are used here."""
    named: Arrays = {}
    for name, value in variables.items():
        if isinstance(value, Mapping):
            named |= {f"{name}/{inner}": array for inner, array in flat(value).items()}
        else:
            named[name] = np.asarray(value)
    return named


def nested(variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what `flat` was given. Both collections are there, if need be empty."""
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in variables.items():
        *parents, leaf = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = array
    return tree
