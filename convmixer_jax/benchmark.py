"""Measure on this machine: `python -m convmixer_jax.benchmark augment --config configs/cifar10_fast.py`.

    augment   images/s of the recipe's augmentation on one device, whole and by parts, beside Pillow in a pool

Flags: --batch N (images per call, 512), --workers N (processes of Pillow, 2), --json (the last line is one object), and
--config.FIELD=VALUE as in convmixer_jax.main. Ratios are what counts: the two sides are timed in turn. Far quartiles
tell of a busy machine.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from convmixer_jax.command_line import Arguments, parse
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.main import start_jax


def rate_columns(rate: dict[str, Any] | None) -> str:
    """Returns the median of images per second and its quartiles in two columns, empty for None."""
    if rate is None:
        return f"{'-':>10}  {'-':>19}"
    between = "{:,.0f} - {:,.0f}".format(*rate["quartiles"])
    return f"{rate['median']:>10,.0f}  {between:>19}"


def augment(arguments: Arguments, flags: argparse.Namespace) -> dict[str, Any]:
    """Measures and prints the table of the augmentation; returns it."""
    from convmixer_jax.benchmarks.augmentation import measure_augmentation

    table = measure_augmentation(arguments.config, flags.batch, flags.workers)
    width = max(len(row["name"]) for row in table)
    columns = [f"{who:>10}  {'quartiles':>19}" for who in ("ours", f"Pillow x{flags.workers}")]
    print(f"{'images/s':<{width}}  {'  '.join(columns)}  {'ratio':>6}")
    for row in table:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.1f}"
        print(f"{row['name']:<{width}}  {rate_columns(row['ours'])}  {rate_columns(row['pillow'])}  {ratio:>6}")
    print("Single operations do not add up: RandAugment makes every pass over all images.")
    return {"batch": flags.batch, "workers": flags.workers, "rows": table}


BENCHMARKS: dict[str, Callable[[Arguments, argparse.Namespace], dict[str, Any]]] = {"augment": augment}


def count(text: str) -> int:
    """Reads a flag's positive whole number."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


class Parser(argparse.ArgumentParser):
    """Tells mistakes as everything else here does: in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage."""
        raise UserError(f"{message} (--help shows what is accepted)")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the benchmark's own flags; those of the recipe are left over."""
    parser = Parser(
        "convmixer_jax.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--batch", type=count, default=512)
    parser.add_argument("--workers", type=count, default=2)
    parser.add_argument("--json", action="store_true")
    return parser


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    try:
        flags, rest = make_parser().parse_known_args(argv)
        arguments = parse(["benchmark", *rest])
        start_jax(arguments.config.compilation_cache)
        measured = BENCHMARKS[flags.benchmark](arguments, flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_MISTAKE
    if flags.json:
        print(json.dumps(measured))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
