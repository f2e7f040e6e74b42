"""Convert weights: `python -m convmixer_jax.convert --from hub:timm/convmixer_768_32.in1k --to converted/768_32`.

From a file of PyTorch weights, the Hugging Face hub or a run, to a directory that evaluation, prediction and
config.init_from take, or to a .safetensors with timm's names for PyTorch's users.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convmixer_jax.command_line import home_expanded
from convmixer_jax.commands import Parser, count, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.progress import tell

if TYPE_CHECKING:
    from convmixer_jax.inference.loading import Weights


def make_parser() -> Parser:
    """Returns the reader of the command line."""
    parser = Parser(prog="python -m convmixer_jax.convert", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="PLACE",
        help="a .safetensors, .pth, .pth.tar, .pt or .bin of PyTorch weights (timm's names or the authors'); "
        "hub:ORGANISATION/REPOSITORY; a run's workdir; a converted directory",
    )
    parser.add_argument(
        "--to", dest="target", required=True, metavar="DIR|FILE.safetensors", help="a folder for use here, or a file"
    )
    parser.add_argument(
        "--dataset", default="", help="of a file: whose classes, mean, std and image size it has (imagenet for 1000)"
    )
    parser.add_argument("--activation", default="", help="of a file: gelu or relu (relu for 768/32 of ImageNet alone)")
    parser.add_argument("--ema", action="store_true", help="take the moving average of the weights")
    parser.add_argument(
        "--image_size", type=count, help="pixels of a side that the model is used with (the data set's)"
    )
    parser.add_argument("--force", action="store_true", help="replace the weights that --to holds")
    return parser


def read(flags: argparse.Namespace) -> "Weights":
    """Returns the weights that the command line names. Raises UserError."""
    from convmixer_jax.inference.loading import Asked, find_place, read_place, resized
    from convmixer_jax.ops.activations import ACTIVATIONS
    from convmixer_jax.weights.hub import is_hub

    if is_hub(flags.source):
        tell(f"fetching {flags.source}")
    kind, place = find_place(flags.source)
    for name, accepted in (("dataset", None), ("activation", ACTIVATIONS)):
        value = getattr(flags, name)
        if value and kind != "weights file":
            raise UserError(f"--{name} is {value!r}: {place} is a {kind}, which says that itself; leave it out")
        if value and accepted and value not in accepted:
            raise UserError(f"--{name} is {value!r}: choose one of {', '.join(accepted)}")
    weights = read_place(flags.source, Asked(flags.dataset, flags.activation, flags.ema))
    if flags.image_size is None:
        return weights
    return resized(weights, flags.image_size)


def told(weights: "Weights", target: Path) -> str:
    """Returns what is told of a conversion."""
    from convmixer_jax.inference.description import summary
    from convmixer_jax.inference.saving import is_torch_target
    from convmixer_jax.inference.torch_weights import torch_differences
    from convmixer_jax.weights.names import flat

    description, sizes = weights.description, {"params": 0, "batch_stats": 0}
    for name, array in flat(weights.variables).items():
        sizes[name.partition("/")[0]] += array.size
    lines = [summary(description), f"{sizes['params']:,} parameters, {sizes['batch_stats']:,} statistics"]
    if weights.has_ema:
        lines.append("the moving average of the weights is there, too: --ema takes it")
    if is_torch_target(target):
        lines += [f"to be set in PyTorch: {line}" for line in torch_differences(description)]
    return "\n".join([*lines, f"written to {target}"])


def run(argv: Sequence[str] | None) -> ExitCode:
    """Converts what the command line names; raises UserError."""
    flags = make_parser().parse_args(argv)
    target = home_expanded(flags.target, "--to")
    start_jax(compilation_cache=False)
    from convmixer_jax.inference.saving import check_target, save

    check_target(target, flags.force)
    weights = read(flags)
    save(weights, target, flags.force)
    print(told(weights, target))
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    end_process(main())
