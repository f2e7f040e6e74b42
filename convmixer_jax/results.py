"""Publish what finished runs gave: `python -m convmixer_jax.results add NAME RUN [RUN ...]`, then `... table`.

`add` writes results/NAME.json (config, seeds, test accuracy of each at its last epoch, time, hardware, versions,
revision), each run's metrics.jsonl, compressed, and a picture of the learning curves. `table` prints what lies there
as Markdown, published scores and ours side by side, and writes it into a document.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from convmixer_jax.command_line import home_expanded
from convmixer_jax.commands import Parser, end_process, run_command
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.files import NO_SPACE, write_bytes
from convmixer_jax.runs.progress import show

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # also that of files


def name_of_result(text: str) -> str:
    """Returns the text; raises argparse's error where it is no name."""
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: take letters, digits, _ and -")
    return text


def percentage(text: str) -> float:
    """Returns a percentage as a share of 1; raises argparse's error where it is none."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no accuracy in percent, from 0 to 100")
    if 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is in percent: {100 * value:g}?")
    return value / 100


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("convmixer_jax.results", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add = commands.add_parser("add", help="make a result of runs that differ in their seed alone")
    add.add_argument("name", metavar="NAME", type=name_of_result, help="of the result and its files")
    add.add_argument("runs", metavar="RUN", nargs="+", help="folders of finished runs, a seed each")
    add.add_argument("--published", type=percentage, metavar="TOP1", help="what others got, in percent; with --source")
    add.add_argument("--source", default="", help="where that is published")
    add.add_argument("--note", default="", help="a remark that stands below the table")
    add.add_argument("--replace", action="store_true", help="put it in the place of the result of that name")
    table = commands.add_parser("table", help="print the table of all results")
    table.add_argument("--write", metavar="FILE", help="also put it into a document, between its two comments")
    for command in (add, table):
        command.add_argument("--folder", default="results", help="of the results (default: results)")
    return parser


def add_result(flags: argparse.Namespace, folder: Path) -> None:
    """Makes a result of runs. Raises UserError."""
    from convmixer_jax.publishing.curve import draw
    from convmixer_jax.publishing.record import Published, make_record, save
    from convmixer_jax.reporting.workdirs import is_run, read_run

    if (flags.published is None) != (not flags.source):
        raise UserError("--published and --source belong together: what others got, and where it stands")
    path = folder / f"{flags.name}.json"
    if path.exists() and not flags.replace:
        raise UserError(f"{path} is there already: take another NAME, or --replace")
    places = [home_expanded(place, "RUN") for place in flags.runs]
    for place in places:
        if not is_run(place):
            raise UserError(f"{place} is no run's folder: name those that main, or a sweep, trained in")
    runs = [read_run(place, place.name) for place in places]
    published = None if flags.published is None else Published(flags.published, flags.source)
    record = make_record(flags.name, runs, published, flags.note)
    for revision in record["revisions"]:
        if revision is None or revision.endswith("-dirty"):
            show(f"warning: trained with code of no commit (revision {revision}), which nobody else has")
    show(f"result: {save(record, runs, folder)}")
    picture = path.with_suffix(".png")
    if draw(record, folder, picture):
        show(f"picture: {picture}")


def show_table(flags: argparse.Namespace, folder: Path) -> None:
    """Prints the table, and puts it into a document. Raises UserError."""
    from convmixer_jax.publishing.record import read_records
    from convmixer_jax.publishing.table import table_lines

    lines = table_lines(read_records(folder))
    for line in lines:
        show(line)
    if flags.write:
        write_into(home_expanded(flags.write, "--write").resolve(), lines)


def write_into(document: Path, lines: Sequence[str]) -> None:
    """Puts the lines into a document, which keeps its line ends and its mode. Raises UserError."""
    from convmixer_jax.publishing.table import placed

    try:
        text, mode = document.read_bytes().decode(), document.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--write {document} cannot be read ({error}): name a text file") from error
    line_end = "\r\n" if "\r\n" in text else "\n"
    changed = placed(text.replace("\r\n", "\n"), lines, str(document)).replace("\n", line_end)
    try:
        write_bytes(document, changed.encode())
        document.chmod(mode)
    except OSError as error:
        if error.errno in NO_SPACE:  # told for all commands alike
            raise
        raise UserError(f"--write {document} cannot be written ({error.strerror}): free its place") from error


def run(argv: Sequence[str] | None) -> ExitCode:
    """Does what the command line asks for; raises UserError."""
    flags = make_parser().parse_args(argv)
    folder = home_expanded(flags.folder, "--folder")
    try:
        (add_result if flags.command == "add" else show_table)(flags, folder)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        told = f"--folder {folder}: {error.filename} cannot be read or written ({error.strerror})"
        raise UserError(f"{told}: choose another one") from error
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv))


if __name__ == "__main__":
    end_process(main())
