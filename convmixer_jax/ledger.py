"""Show where the time of a run went: `python -m convmixer_jax.ledger runs/cifar10 --plot where.png`.

Over all starts and processes, from the ledgers that they append to in the run's folder; changes nothing there. Goodput
is the share of the time since the first start in which updates were made that count.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from convmixer_jax.command_line import home_expanded
from convmixer_jax.commands import Parser, end_process, run_command
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.ledger import CATEGORIES, Account, read_run
from convmixer_jax.runs.progress import show

# Of the pictures: time that counts, time that is needed for it, time that is gone.
COLOURS = dict(
    zip(
        CATEGORIES,
        ("#2b7a4b", "#8fb4d9", "#4477aa", "#66a3a3", "#ccbb44", "#e0d58c", "#cc3311", "#888888", "#dddddd"),
        strict=True,
    )
)


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("convmixer_jax.ledger", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workdir", metavar="WORKDIR", help="the run's folder, in use or not")
    parser.add_argument("--json", action="store_true", help="the last line is one object")
    parser.add_argument("--plot", metavar="FILE", help="also draw a stacked bar for each process: .png, .svg, .pdf")
    return parser


def table(accounts: Mapping[int, Account]) -> list[str]:
    """Returns lines: seconds and shares of each category, a column for each process."""
    heads = ["", *(f"process {number}" for number in accounts)]
    rows = [
        [name, *(cell(account, account.seconds[name]) for account in accounts.values())]
        for name in CATEGORIES
        if any(account.seconds[name] for account in accounts.values())
    ]
    rows += [
        ["all", *(cell(account, account.wall) for account in accounts.values())],
        ["starts", *(str(account.starts) for account in accounts.values())],
        ["updates", *(str(account.updates) for account in accounts.values())],
        ["updates lost", *(str(account.lost_updates) for account in accounts.values())],
        ["goodput", *(f"{account.goodput:.1%}" for account in accounts.values())],
    ]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = []
    for name, *texts in [heads, *rows]:
        cells = [text.rjust(width) for text, width in zip(texts, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    return lines


def cell(account: Account, seconds: float) -> str:
    """Returns "12.3 s  45.6 %"."""
    return f"{seconds:.1f} s {seconds / account.wall if account.wall else 0:6.1%}"


def plot(accounts: Mapping[int, Account], file: Path) -> None:
    """Draws a stacked bar for each process. Raises UserError where the file cannot be written."""
    from matplotlib.figure import Figure  # late: a table needs none

    figure = Figure(figsize=(9, 1.6 + 0.5 * len(accounts)), layout="constrained")
    axes = figure.subplots()
    names = [f"process {number}: {account.goodput:.0%} goodput" for number, account in accounts.items()]
    left = [0.0] * len(accounts)
    for category in CATEGORIES:
        widths = [account.seconds[category] for account in accounts.values()]
        axes.barh(names, widths, left=left, color=COLOURS[category], label=category)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the first start")
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UserError(f"--plot {file} cannot be written ({error}): name a file as .png, .svg or .pdf") from error


def as_json(accounts: Mapping[int, Account]) -> str:
    """Returns one object: an account for each process, and its goodput."""
    each = {
        str(number): dataclasses.asdict(account) | {"goodput": account.goodput} for number, account in accounts.items()
    }
    return json.dumps({"processes": each}, allow_nan=False)


def run(argv: Sequence[str] | None) -> ExitCode:
    """Does what the command line asks for; raises UserError."""
    flags = make_parser().parse_args(argv)
    accounts = read_run(home_expanded(flags.workdir, "WORKDIR"))
    if not accounts:
        raise UserError(f"{flags.workdir} has no ledger: name a run's folder, or train first")
    for line in table(accounts):
        show(line)
    if flags.plot:
        plot(accounts, home_expanded(flags.plot, "--plot"))
        show(f"picture: {flags.plot}")
    if flags.json:
        show(as_json(accounts))
    return ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv))


if __name__ == "__main__":
    end_process(main())
