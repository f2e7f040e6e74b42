"""Measure on this machine: `python -m convmixer_jax.benchmark step --config configs/cifar10_fast.py --against torch`.

Ratios are what counts: sides are timed in turn, in one run. Far quartiles tell of a busy machine. --config and
--config.FIELD=VALUE are as in convmixer_jax.main; `step --help` and so on tell the flags of each benchmark.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convmixer_jax.command_line import Arguments, parse
from convmixer_jax.commands import Parser, count, end_process, run_command, seconds, start_jax
from convmixer_jax.config_rules import COMPUTE_DTYPES
from convmixer_jax.errors import ExitCode

Measured = dict[str, Any]


def augment_flags(parser: Parser) -> None:
    """Declares the flags of `augment`."""
    parser.add_argument("--batch", type=count, default=512, help="images per call (512)")
    parser.add_argument("--workers", type=count, default=2, help="processes of Pillow (2)")


def repetition_flags(parser: Parser) -> None:
    """Declares how often is measured."""
    parser.add_argument("--repetitions", type=count, default=7, help="of every timed call (7)")


def timing_flags(parser: Parser, call_seconds: float = 0.5) -> None:
    """Declares how programs are timed."""
    repetition_flags(parser)
    told = f"a call repeats what is shorter ({call_seconds:g})"
    parser.add_argument("--call_seconds", type=seconds, default=call_seconds, help=told)
    parser.add_argument(
        "--allocator", choices=["kept", "huge_pages", "default"], default="kept", help="of all sides, glibc's setting"
    )


def fixed_flags(parser: Parser) -> None:
    """Declares what a fixed batch looks like."""
    parser.add_argument("--image_size", type=count, default=0, help="pixels of a side (the data set's)")
    parser.add_argument("--classes", type=count, default=0, help="classes (the data set's)")


def batch_flags(parser: Parser) -> None:
    """Declares the flags of what works on a fixed batch."""
    timing_flags(parser)
    fixed_flags(parser)


def against_flags(parser: Parser) -> None:
    """Declares the flags of what PyTorch is put beside."""
    batch_flags(parser)
    parser.add_argument("--against", choices=["torch"], help="time PyTorch's ConvMixer, too, in turn")
    parser.add_argument("--modes", nargs="+", default=[], help="of PyTorch, as the table names them (all)")


def input_flags(parser: Parser) -> None:
    """Declares the flags of `input`."""
    timing_flags(parser, call_seconds=2.0)
    parser.add_argument("--against", choices=["torch"], help="time PyTorch's DataLoader with Pillow, too, in turn")
    parser.add_argument("--workers", type=count, default=2, help="processes of the DataLoader (2)")
    parser.add_argument("--ready_seconds", type=seconds, default=120.0, help="a part may take to be compiled (120)")
    parser.add_argument("--photographs", type=count, default=0, help="write so many of 500x375 and read these")
    parser.add_argument("--batches", type=count, default=0, help="stream so many, and tell how memory grows")


def scaling_flags(parser: Parser) -> None:
    """Declares the flags of `scaling`."""
    batch_flags(parser)
    parser.add_argument("--batch_size", type=count, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--depth", type=count, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--kernel_size", type=count, nargs="+", default=[3, 5, 7, 9])
    parser.add_argument("--ready_seconds", type=seconds, default=300.0, help="a point may take to be compiled (300)")
    parser.add_argument("--plot", type=Path, help="file of a picture, .png, .svg or .pdf; wants matplotlib")


def operations_flags(parser: Parser) -> None:
    """Declares the flags of `ops`."""
    batch_flags(parser)
    parser.add_argument("--dtype", choices=COMPUTE_DTYPES, nargs="+", default=list(COMPUTE_DTYPES))
    parser.add_argument("--kernel_size", type=count, nargs="+", default=[3, 5, 7, 9])
    parser.add_argument("--ready_seconds", type=seconds, default=120.0, help="one may take to be compiled (120)")
    parser.add_argument(
        "--write", action="store_true", help="put the quickest into the table that config.model.ops = auto reads"
    )


def tpu_flags(parser: Parser) -> None:
    """Declares the flags of `tpu`."""
    fixed_flags(parser)
    parser.add_argument("--topology", default="v5e:1x1", help="chips, which need not be there (v5e:1x1)")
    parser.add_argument("--ops", nargs="+", default=[], help="implementations, as config.model.ops (all)")


def augment(arguments: Arguments, flags: argparse.Namespace) -> Measured:
    """Measures and prints the table of the augmentation; returns it."""
    start_jax(arguments.config.compilation_cache)
    from convmixer_jax.benchmarks.augmentation import measure_augmentation
    from convmixer_jax.benchmarks.report import rate_columns

    table = measure_augmentation(arguments.config, flags.batch, flags.workers)
    width = max(len(row["name"]) for row in table)
    columns = [f"{who:>10}  {'quartiles':>19}" for who in ("ours", f"Pillow x{flags.workers}")]
    print(f"{'images/s':<{width}}  {'  '.join(columns)}  {'ratio':>6}")
    for row in table:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.1f}"
        print(f"{row['name']:<{width}}  {rate_columns(row['ours'])}  {rate_columns(row['pillow'])}  {ratio:>6}")
    print("Single operations do not add up: RandAugment makes every pass over all images.")
    return {"batch": flags.batch, "workers": flags.workers, "rows": table}


def settings_of(flags: argparse.Namespace) -> Any:
    """Returns the flags as speed.Settings; what a benchmark has no flag for it does not read."""
    from convmixer_jax.benchmarks.ours import FixedBatch
    from convmixer_jax.benchmarks.speed import Settings

    given = vars(flags)
    return Settings(
        repetitions=flags.repetitions,
        call_seconds=flags.call_seconds,
        allocator=flags.allocator,
        fixed=FixedBatch(given.get("image_size", 0), given.get("classes", 0)),
        against=given.get("against"),
        modes=given.get("modes", ()),
        ready_seconds=given.get("ready_seconds"),
    )


def speed(arguments: Arguments, flags: argparse.Namespace) -> Measured:
    """Measures and prints step, train or eval; returns what was measured."""
    from convmixer_jax.benchmarks import report
    from convmixer_jax.benchmarks import speed as programs

    settings, config = settings_of(flags), arguments.config
    measure: dict[str, Callable[[], Measured]] = {
        "step": lambda: programs.measure_step(config, settings),
        "train": lambda: programs.measure_train(config, settings),
        "eval": lambda: programs.measure_eval(config, settings),
    }
    measured = measure[flags.benchmark]()
    print("\n".join(report.speed_table(measured)))
    return measured


def whole_input(arguments: Arguments, flags: argparse.Namespace) -> Measured:
    """Measures and prints the input, whole and by its parts; returns what was measured."""
    from convmixer_jax.benchmarks.input_speed import input_table, measure_input, photographs

    with photographs(arguments.config, flags.photographs) as config:
        more = {"workers": flags.workers, "batches": flags.batches}
        measured = measure_input(config, settings_of(flags), arguments.data_dir, **more)
    print("\n".join(input_table(measured)))
    return measured


def startup(arguments: Arguments, flags: argparse.Namespace) -> Measured:
    """Measures and prints the seconds to the first update; returns them."""
    from convmixer_jax.benchmarks.startup import measure_startup, startup_table

    measured = measure_startup(flags.recipe_flags, arguments.data_dir, flags.repetitions)
    print("\n".join(startup_table(measured)))
    return measured


def scaling(arguments: Arguments, flags: argparse.Namespace) -> Measured:
    """Measures and prints cost against work; returns what was measured."""
    from convmixer_jax.benchmarks.scaling import AXES, check_picture, measure_scaling, scaling_table

    if flags.plot:
        check_picture(flags.plot)
    measured = measure_scaling(arguments.config, settings_of(flags), {axis: getattr(flags, axis) for axis in AXES})
    print("\n".join(scaling_table(measured)))
    return measured


def leave_picture(measured: Measured, flags: argparse.Namespace) -> None:
    """Draws what `scaling` measured where that was asked for."""
    from convmixer_jax.benchmarks.scaling import draw

    if flags.plot:
        draw(measured, flags.plot)


def operations(arguments: Arguments, flags: argparse.Namespace) -> Measured:
    """Measures and prints the implementations of the operations; returns what was measured."""
    from convmixer_jax.benchmarks.operations import measure_operations, operations_table

    measured = measure_operations(arguments.config, settings_of(flags), flags.dtype, flags.kernel_size)
    print("\n".join(operations_table(measured)))
    return measured


def leave_choices(measured: Measured, flags: argparse.Namespace) -> None:
    """Writes what `ops` found to be the quickest where that was asked for."""
    from convmixer_jax.benchmarks.operations import write_choices
    from convmixer_jax.ops.choice import CHOICES

    if flags.write:
        write_choices(measured, CHOICES)


def leave_nothing(measured: Measured, flags: argparse.Namespace) -> None:
    """Writes no file."""


def tpu(arguments: Arguments, flags: argparse.Namespace) -> Measured:
    """Compiles for an absent TPU and prints what its compiler tells; returns it."""
    from convmixer_jax.benchmarks.ours import FixedBatch
    from convmixer_jax.benchmarks.tpu import measure_tpu, tpu_table

    fixed = FixedBatch(flags.image_size, flags.classes)
    measured = measure_tpu(arguments.config, fixed, flags.topology, flags.ops)
    print("\n".join(tpu_table(measured)))
    return measured


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark: what it measures, the flags that it declares, what runs it, and what then writes its files.

    leave: comes after all is printed, so that a full disk loses nothing that was measured.
    """

    summary: str
    declare: Callable[[Parser], None]
    run: Callable[[Arguments, argparse.Namespace], Measured]
    leave: Callable[[Measured, argparse.Namespace], None] = leave_nothing


BENCHMARKS: dict[str, Benchmark] = {
    "step": Benchmark("the update on a fixed batch", against_flags, speed),
    "train": Benchmark("the update with gathering and augmentation, and its share of `step`", timing_flags, speed),
    "eval": Benchmark("the evaluation of a fixed batch", against_flags, speed),
    "input": Benchmark("the input from the real data, whole and by its parts", input_flags, whole_input),
    "startup": Benchmark("seconds from the command to the first update", repetition_flags, startup),
    "scaling": Benchmark("the update over batch size, depth and kernel size", scaling_flags, scaling, leave_picture),
    "ops": Benchmark(
        "the update by every implementation of the operations", operations_flags, operations, leave_choices
    ),
    "tpu": Benchmark("the update's bytes, FLOPs and memory on an absent TPU, by its compiler", tpu_flags, tpu),
    "augment": Benchmark("the recipe's augmentation, whole and by parts, beside Pillow", augment_flags, augment),
}


def make_parser() -> Parser:
    """Returns the parser of the benchmarks' own flags; those of the recipe are left over."""
    parser = Parser("convmixer_jax.benchmark", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="benchmark")
    for name, benchmark in BENCHMARKS.items():
        # Without abbreviations: flags of the recipe, which are left over, may begin like one of these.
        own = commands.add_parser(name, help=benchmark.summary, description=benchmark.summary, allow_abbrev=False)
        benchmark.declare(own)
        own.add_argument("--json", action="store_true", help="the last line is one object")
    return parser


def run(argv: Sequence[str] | None) -> ExitCode:
    """Measures what the command line names; raises UserError."""
    flags, rest = make_parser().parse_known_args(argv)
    flags.recipe_flags = rest
    benchmark = BENCHMARKS[flags.benchmark]
    measured = benchmark.run(parse(["benchmark", *rest]), flags)
    if flags.json:
        print(json.dumps(measured))
    benchmark.leave(measured, flags)
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv))


if __name__ == "__main__":
    end_process(main())
