"""Tell what a run would need and how long it would take: `python -m convmixer_jax.plan --config configs/cifar10.py`.

With --topology v5e:16x16 for TPU chips that are not there, by their compiler (pip install "jax[tpu]"); without, for the
devices of this machine. What does not fit comes with changes that do, each of them compiled. --config and
--config.FIELD=VALUE are as in convmixer_jax.main.
"""

import argparse
import json
from collections.abc import Sequence

from convmixer_jax.command_line import parse
from convmixer_jax.commands import Parser, count, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.allocator import keep_freed_memory
from convmixer_jax.runs.progress import show, tell


def share(text: str) -> float:
    """Reads a flag's number above 0, up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, up to 1")
    return value


def make_parser() -> Parser:
    """Returns the parser of the command's own flags; those of the recipe are left over."""
    # Without abbreviations: flags of the recipe, which are left over, may begin like one of these.
    parser = Parser(
        "convmixer_jax.plan",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--topology", help="TPU chips: v5e:2x4, v5e:16x16, v4:4x4x4, ... (this machine's devices)")
    parser.add_argument("--batch_size", type=count, help="images of an update over all devices (config.batch_size)")
    parser.add_argument(
        "--efficiency", type=share, default=0.5, help="with --topology: share of the bound that is reached (0.5)"
    )
    parser.add_argument("--measure", action="store_true", help="without --topology: time some updates")
    parser.add_argument("--json", action="store_true", help="the last line is one object")
    return parser


def run(argv: Sequence[str] | None) -> ExitCode:
    """Plans what the command line names; raises UserError."""
    flags, rest = make_parser().parse_known_args(argv)
    if flags.topology is not None and flags.measure:
        raise UserError("--measure: nothing can be run on chips that are absent; leave it out, or --topology")
    if flags.batch_size:
        rest.append(f"--config.batch_size={flags.batch_size}")
    arguments = parse(["plan", *rest])
    config = arguments.config
    if flags.topology is not None:
        import jax

        jax.config.update("jax_platforms", "cpu")  # a TPU of this machine is left alone
    # Programs for absent chips are of no use to a run here; those for this machine are the run's own.
    start_jax(config.compilation_cache and flags.topology is None)
    from convmixer_jax.data.datasets import find_dataset
    from convmixer_jax.planning.planner import plan_absent, plan_local
    from convmixer_jax.planning.report import plan_lines

    dataset = find_dataset(config.dataset, arguments.data_dir, image_size=config.image_size, crop_pct=config.crop_pct)
    if flags.topology is not None:
        plan = plan_absent(config, dataset, flags.topology, flags.efficiency, bool(flags.batch_size), tell)
    else:
        plan = plan_local(config, dataset, flags.measure, tell)
    show("\n".join(plan_lines(plan)))
    if flags.json:
        show(json.dumps(plan))
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    keep_freed_memory()  # before there are threads, as main does
    return run_command(lambda stop: run(argv))


if __name__ == "__main__":
    end_process(main())
