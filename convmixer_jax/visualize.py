"""Draw what a model has learnt: `python -m convmixer_jax.visualize --workdir runs/cifar10 [IMAGE ...]`.

Writes PNGs and prints their names. Without --what everything that is possible is drawn, and what is not is told.
--workdir is a run's workdir, or whatever else has weights; IMAGEs are for the class-activation maps.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from convmixer_jax.command_line import DATA_DIR_HELP, data_folder, home_expanded
from convmixer_jax.commands import Parser, beside, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.inference.pictures import PICTURES
from convmixer_jax.runs.files import make_workdir
from convmixer_jax.runs.progress import printable, show, tell
from convmixer_jax.runs.signals import StopRequest


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = Parser("convmixer_jax.visualize", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="a file of any size and mode, a folder or a pattern")
    parser.add_argument("--workdir", required=True, help="a run's workdir, or another place of weights")
    parser.add_argument("--data_dir", help=DATA_DIR_HELP)
    parser.add_argument("--out", help="folder of the pictures (default: pictures in --workdir, or beside a file)")
    choices = "\n".join(f"{name}: {picture.meaning}" for name, picture in PICTURES.items())
    parser.add_argument(
        "--what", nargs="+", choices=PICTURES, metavar="WHAT", help=f"some of (default: all)\n{choices}"
    )
    parser.add_argument("--json", action="store_true", help="the last line is one object")
    return parser


def draw(flags: argparse.Namespace) -> dict[str, Any]:
    """Draws what is asked for; returns {pictures: files, left_out: reasons by picture, errors: of image files}."""
    from convmixer_jax.inference.image_files import find_images
    from convmixer_jax.inference.loading import read_weights
    from convmixer_jax.inference.subject import Subject

    data_dir = data_folder(flags.data_dir)
    out = home_expanded(flags.out, "--out") if flags.out else beside(flags.workdir, "pictures")
    images, unreadable = find_images(flags.images)
    if flags.images and not images:
        raise UserError(next(iter(unreadable.values())))
    subject = Subject(*read_weights(flags.workdir), data_dir, images)
    make_workdir(out, "--out")
    written: list[str] = []
    left_out: dict[str, str] = {}
    for name in [name for name in PICTURES if name in (flags.what or PICTURES)]:
        try:
            files = PICTURES[name].draw(subject, out)
        except UserError as error:
            if flags.what:
                raise
            left_out[name] = str(error)
            tell(f"left out: {name}: {error}")
            continue
        for file in files:
            show(printable(str(file)))
        written += map(str, files)
    unreadable |= subject.unreadable
    for reason in unreadable.values():
        tell(f"error: {printable(reason)}")
    errors = [{"file": file, "error": reason} for file, reason in unreadable.items()]
    return {"pictures": written, "left_out": left_out, "errors": errors}


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line and returns the exit code."""

    def run(stop: StopRequest) -> ExitCode:
        del stop  # nothing is left half done: a signal may end it
        flags = make_parser().parse_intermixed_args(argv)
        if flags.images and "cam" not in (flags.what or PICTURES):
            raise UserError(f"{flags.images[0]} is an image, which only --what cam looks at: add cam, or name no image")
        start_jax(compilation_cache=True)
        drawn = draw(flags)
        if flags.json:
            print(json.dumps(drawn), flush=True)
        return ExitCode.USER_MISTAKE if drawn["errors"] else ExitCode.DONE

    return run_command(run)


if __name__ == "__main__":
    end_process(main(sys.argv[1:]))
