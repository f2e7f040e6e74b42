"""Make a report of runs and studies: `python -m convmixer_jax.report runs/kernel_size --out report`.

Writes report.md with its figures, and report.html, one file that any browser opens from disk: a table of all points
that sorts and filters, learning curves, accuracy against parameters, time and FLOPs, kernels, confusions, goodput.
Changes nothing in the runs' folders, and takes no accelerator.
"""

import argparse
import os
import sys
import time
import webbrowser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convmixer_jax.command_line import DATA_DIR_HELP, data_folder, home_expanded
from convmixer_jax.commands import Parser, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.files import NO_SPACE, make_workdir
from convmixer_jax.runs.progress import show, tell
from convmixer_jax.runs.signals import StopRequest

if TYPE_CHECKING:  # it imports JAX
    from convmixer_jax.reporting.content import Reporter

LOOK_SECONDS = 3.0  # between two looks at the runs' files
RELOAD_SECONDS = 5  # between two loads of a page that is followed
NAP_SECONDS = 0.1  # after which a signal is noticed


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("convmixer_jax.report", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("places", metavar="RUNS_OR_STUDY", nargs="+", help="folders of runs, or of studies")
    parser.add_argument("--out", required=True, help="folder of the report")
    parser.add_argument("--data_dir", help=f"{DATA_DIR_HELP};\nof it the test split, for the confusion matrix")
    parser.add_argument(
        "--follow", action="store_true", help="write it anew whenever a run has something new, until Ctrl-C"
    )
    parser.add_argument(
        "--open",
        choices=("auto", "yes", "no"),
        default="auto",
        help="show it in a browser (auto: at a terminal with a display)",
    )
    return parser


def wants_browser(choice: str) -> bool:
    """Whether the page is to be opened. choice: of --open."""
    display = sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return choice == "yes" or (choice == "auto" and display and sys.stdout.isatty())


def warn(warnings: Iterable[str], known: set[str]) -> None:
    """Tells the warnings that are not `known`, and makes them known."""
    for warning in warnings:
        if warning not in known:
            tell(f"warning: {warning}")
            known.add(warning)


def write(reporter: "Reporter", places: Sequence[Path], out: Path, reload_seconds: int | None, known: set[str]) -> None:
    """Writes the report. reload_seconds: see `html`. known: warnings that were told before."""
    from convmixer_jax.reporting.writing import write_report

    content = reporter.make(places)
    warn(content.warnings, known)
    try:
        write_report(content, out, reload_seconds)
    except OSError as error:
        if error.errno in NO_SPACE:  # told for all commands alike
            raise
        told = f"{error.filename} cannot be written ({error.strerror}): free its place"
        raise UserError(f"--out {out}: {told}") from error


def follow(reporter: "Reporter", places: Sequence[Path], out: Path, known: set[str], stop: StopRequest) -> None:
    """Writes the report, and again whenever there is something new, until a signal comes; then once more, to stay."""
    from convmixer_jax.reporting.collection import signatures

    seen, due = None, 0.0
    while not stop.requested:
        if time.monotonic() < due:
            time.sleep(NAP_SECONDS)
            continue
        try:
            now = signatures(places)
            if now != seen:
                write(reporter, places, out, RELOAD_SECONDS, known)
                tell(f"{'following' if seen is None else 'written anew'}: {out / 'report.html'} (Ctrl-C ends this)")
                seen = now
        except (UserError, OSError) as error:
            if seen is None:
                raise
            warn([str(error)], known)  # a folder may be gone for a moment, a disk full
        due = time.monotonic() + LOOK_SECONDS
    write(reporter, places, out, None, known)


def run(argv: Sequence[str] | None, stop: StopRequest) -> ExitCode:
    """Does what the command line asks for; raises UserError."""
    flags = make_parser().parse_args(argv)
    if flags.follow:
        stop.defer()
    places = [home_expanded(place, "RUNS_OR_STUDY") for place in flags.places]
    out, data_dir = home_expanded(flags.out, "--out"), data_folder(flags.data_dir)
    import jax

    jax.config.update("jax_platforms", "cpu")  # the runs themselves may have the accelerator
    start_jax(compilation_cache=True)
    from convmixer_jax.reporting.collection import look
    from convmixer_jax.reporting.content import Reporter

    look(places)
    make_workdir(out, "--out")
    reporter, known = Reporter(data_dir), set[str]()
    browser = wants_browser(flags.open)
    if browser or not flags.follow:  # a browser needs the page before it is followed
        write(reporter, places, out, RELOAD_SECONDS if flags.follow else None, known)
    if browser:
        webbrowser.open((out / "report.html").resolve().as_uri())
    if flags.follow:
        follow(reporter, places, out, known, stop)
        tell(f"{stop.received.name if stop.received else 'a signal'} received: the report is up to date")
    for name in ("report.md", "report.html"):
        show(str(out / name))
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv, stop))


if __name__ == "__main__":
    end_process(main())
