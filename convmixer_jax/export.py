"""Write trained weights for other programs: `python -m convmixer_jax.export --workdir runs/cifar10 --format onnx`.

Each file takes float32 images [batch, H, W, C], normalised, any number of them, and gives logits [batch, classes]; it
is compared with the model before it takes its place. --int8 and --prune write smaller models beside it and tell, on the
data set's test split, what they cost; --int8 tells what it wins in time, too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from convmixer_jax.command_line import DATA_DIR_HELP, data_folder, home_expanded
from convmixer_jax.commands import Parser, beside, count, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.exporting.formats import FORMATS
from convmixer_jax.runs.files import make_workdir, to_json
from convmixer_jax.runs.progress import show

if TYPE_CHECKING:  # it imports JAX
    from convmixer_jax.exporting.report import Request


def fraction(text: str) -> float:
    """Reads a flag's share of weights."""
    try:
        value = float(text)
    except ValueError:
        value = 1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no fraction: a number from 0 to below 1")
    return value


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("convmixer_jax.export", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--workdir", required=True, help="trained weights: a run's workdir, a converted directory, or a file"
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="\n".join(f"{name}: {row.meaning}" for name, row in FORMATS.items()),
    )
    parser.add_argument("--out", help="the file (default: export/model.* in --workdir, or beside a file)")
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument("--int8", action="store_true", help="onnx: a quantised model, too, and what it costs and wins")
    parser.add_argument(
        "--calibration_images", type=count, default=512, help="training images that --int8 looks at (512)"
    )
    parser.add_argument(
        "--prune",
        type=fraction,
        nargs="+",
        default=[],
        metavar="FRACTION",
        help="models, too, with these shares of all kernels' weights set to zero, the smallest ones,\n"
        "and what that costs",
    )
    parser.add_argument("--data_dir", help=DATA_DIR_HELP)
    parser.add_argument(
        "--batch_size", type=count, nargs="+", default=[1, 32], help="images per call that --int8 is timed with (1 32)"
    )
    parser.add_argument("--repetitions", type=count, default=31, help="of every timed call (31)")
    parser.add_argument("--json", action="store_true", help="the last line is one object")
    return parser


def check_packages(name: str) -> None:
    """Raises UserError where a format's packages are missing."""
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format {name} needs {' and '.join(missing)}, not installed here: pip install -r requirements-test.txt"
        )


def out_file(flags: argparse.Namespace) -> Path:
    """Returns the file that is to be written. Raises UserError where its name is another format's."""
    suffix = FORMATS[flags.format].suffix
    out = home_expanded(flags.out, "--out") if flags.out else beside(flags.workdir, f"export/model{suffix}")
    if out.suffix != suffix:
        raise UserError(f"--out is {out}: the name of a file of --format {flags.format} ends in {suffix}")
    return out


def make_way(request: "Request", force: bool) -> None:
    """Raises UserError where a file is in the way or the folder cannot be written."""
    models = [request.file, *([request.int8] if request.int8 else []), *request.prune.values()]
    for file in [file for model in models for file in FORMATS[request.format].files(model)]:
        if file.is_dir() or (file.exists() and not force):
            raise UserError(f"{file} is there already: give --force to replace it, or name another file with --out")
    make_workdir(request.file.parent, "--out")


def run(argv: Sequence[str] | None) -> ExitCode:
    """Exports what the command line asks for; raises UserError."""
    flags = make_parser().parse_args(argv)
    if flags.int8 and flags.format != "onnx":
        raise UserError(f"--int8 is of --format onnx, not {flags.format}: leave one of them out")
    out = out_file(flags)
    check_packages(flags.format)
    start_jax(compilation_cache=True)
    from convmixer_jax.exporting.report import Request, export, table
    from convmixer_jax.inference.loading import Asked, read_place

    weights = read_place(flags.workdir, Asked())
    request = Request(
        format=flags.format,
        file=out,
        int8=out.with_name(f"{out.stem}.int8{out.suffix}") if flags.int8 else None,
        prune={share: out.with_name(f"{out.stem}.pruned-{share:g}{out.suffix}") for share in flags.prune},
        data_dir=data_folder(flags.data_dir),
        calibration_images=flags.calibration_images,
        batch_sizes=tuple(flags.batch_size),
        repetitions=flags.repetitions,
    )
    make_way(request, flags.force)
    done = export(weights, request)
    show("\n".join(table(done)))
    if flags.json:
        show(json.dumps(to_json(done), allow_nan=False))
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line and returns the exit code."""
    return run_command(lambda stop: run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    end_process(main())
