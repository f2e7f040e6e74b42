"""Make a data set ready: `python -m convmixer_jax.prepare tiny_imagenet --data_dir ~/data`.

Downloads what may be downloaded, or takes the archive that --from names; checks counts, labels and checksums; decodes
once what is small enough to be kept decoded. Whatever stops it, run it again to go on; a second time does nothing.
--verify reads and decodes every image instead, lists each one that is bad, and ends with exit code 2 if there are any.
"""

import argparse
from collections.abc import Sequence

from convmixer_jax.command_line import DATA_DIR_HELP, data_folder, home_expanded
from convmixer_jax.commands import Parser, end_process, run_command
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.signals import StopRequest


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser(
        "convmixer_jax.prepare",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "name", metavar="NAME", help="of config.dataset: cifar10, imagenet, folder:PATH, tfds:NAME, ..."
    )
    parser.add_argument("--data_dir", help=DATA_DIR_HELP)
    parser.add_argument("--from", dest="archive", metavar="ARCHIVE", help="the published archive, fetched before")
    parser.add_argument("--verify", action="store_true", help="read and decode every image, list the bad ones")
    parser.add_argument("--force", action="store_true", help="check and make everything anew")
    return parser


def run(argv: Sequence[str] | None, stop: StopRequest) -> ExitCode:
    """Prepares or verifies what the command line names; raises UserError."""
    # What is downloaded and decoded until a signal lies there, whole.
    stop.left = "stopped; run again to go on"
    flags = make_parser().parse_args(argv)
    data_dir = data_folder(flags.data_dir)
    archive = home_expanded(flags.archive, "--from") if flags.archive else None
    if flags.verify and (archive or flags.force):
        raise UserError("--verify looks at what is there and changes nothing: leave --from and --force out")
    # Not at the top: a mistake on the command line, and --help, are answered before arrays are imported.
    from convmixer_jax.preparing.preparations import prepare
    from convmixer_jax.preparing.requests import Request
    from convmixer_jax.preparing.verification import verify

    request = Request(flags.name, data_dir, archive, flags.force)
    try:
        if flags.verify:
            return ExitCode.USER_MISTAKE if verify(request) else ExitCode.DONE
        prepare(request)
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be looked at ({error.strerror}): choose a --data_dir that you may read and write"
        ) from error
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv, stop))


if __name__ == "__main__":
    end_process(main())
