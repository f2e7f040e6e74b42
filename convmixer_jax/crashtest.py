"""Kill, stop, freeze and damage small runs at random, and see that all come out the same to the bit.

    python -m convmixer_jax.crashtest --trials 15 --seed 0

Each trial trains on the bundled digits, in one process or in two with two devices each; one batch is NaN. One to three
faults happen to it at random moments, saves too: signals, kills, a process that hangs or is suspended, a full disk,
flipped bits, cut and removed files of checkpoints. It is started again until it is done. It passes only if parameters,
statistics, optimiser, moving averages, metrics and result are those of a run that nothing happened to, bit for bit,
and if each fault was noticed and ended as documented. Takes CPUs only. Exit code 1 where a trial fails: its folder
stays, and --only N with the same --trials and --seed draws the same faults again.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from convmixer_jax.command_line import home_expanded
from convmixer_jax.commands import Parser, count, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.measuring.machine import usable_cores
from convmixer_jax.runs.files import make_workdir, write_json
from convmixer_jax.runs.progress import show, tell

RESULT_FILE = "crashtest.json"


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("convmixer_jax.crashtest", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=count, default=15, help="how many (15)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws; moments depend on the machine besides (0)")
    parser.add_argument("--jobs", type=count, default=usable_cores(), help="trials at once (as many as cores)")
    parser.add_argument("--only", type=int, metavar="N", help="the number of the one trial to make, from 0")
    parser.add_argument("--folder", metavar="FOLDER", help="for the runs, new or empty (a temporary one)")
    return parser


def make_folder(given: str | None) -> Path:
    """Returns an empty folder. Raises UserError where there is something in it already."""
    if given is None:
        return Path(tempfile.mkdtemp(prefix="convmixer-crashtest-"))
    folder = home_expanded(given, "--folder")
    make_workdir(folder, "--folder")
    if any(folder.iterdir()):
        raise UserError(f"--folder {folder} is not empty: name a new one")
    return folder


def run(argv: Sequence[str] | None) -> ExitCode:
    """Makes the trials that the command line asks for; raises UserError."""
    flags = make_parser().parse_args(argv)
    if flags.only is not None and not 0 <= flags.only < flags.trials:
        raise UserError(f"--only is {flags.only}: with --trials {flags.trials} it must be 0 to {flags.trials - 1}")
    folder = make_folder(flags.folder)
    # Not at the top: a mistake on the command line, and --help, are answered before JAX is imported.
    import jax

    jax.config.update("jax_platforms", "cpu")
    start_jax(compilation_cache=False)
    from convmixer_jax.crashing.campaign import Campaign, UndisturbedError
    from convmixer_jax.crashing.table import make_table
    from convmixer_jax.runs.provenance import describe

    try:
        trials = Campaign(flags.trials, flags.seed, flags.jobs, folder, flags.only).run(tell)
    except UndisturbedError as error:
        tell(f"error: {error}: see what its processes said there")
        return ExitCode.CRASH
    passed = sum(not trial.problems for trial in trials)
    about = {"trials": len(trials), "passed": passed, "seed": flags.seed} | describe()
    write_json(folder / RESULT_FILE, about | {"each": [trial.to_json() for trial in trials]})
    show(make_table(trials))
    idle = sum(not any(event.happened for event in trial.events) for trial in trials)
    note = f" (to {idle} of them nothing happened)" if idle else ""
    show(f"{passed} of {len(trials)} trials passed{note}; every event is in {folder / RESULT_FILE}")
    return ExitCode.DONE if passed == len(trials) else ExitCode.CRASH


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv))


if __name__ == "__main__":
    end_process(main())
