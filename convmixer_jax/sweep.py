"""Make all runs of a study: `python -m convmixer_jax.sweep --study studies/kernel_size.py --scale small`.

A study is a file: a recipe, the fields that vary, seeds (see studies/ and convmixer_jax/studying/study.py). Each run is
one of `convmixer_jax.main` in the folder DIR/POINT/seed-N. SIGTERM and Ctrl-C stop the runs, which save; the same
command goes on. What is done is skipped, what failed is tried again. Several workers, this command on one machine or on
many, share a study by one --dir, which all of them see, and one --storage. Searches choose, and pruners stop hopeless
runs, by the validation split alone (config.val_fraction, which trains on so much less); the test split is for reports.
Flags like --config.epochs=3 go to all runs.

--storage: sqlite:///FILE for one machine, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE for many (pip install
"psycopg[binary]"), or journal:FILE, a file on a disk that all see.
Exit codes: 0 all is done; 1 a run failed, the others are done; 2 a mistake in what was asked for; 75 stopped, 76 the
storage was lost: run again to go on.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from convmixer_jax.command_line import DATA_DIR_HELP, home_expanded
from convmixer_jax.commands import Parser, count, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode
from convmixer_jax.runs.files import make_workdir
from convmixer_jax.runs.progress import show, tell
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.studying.plan import Plan, make_plan
from convmixer_jax.studying.record import check_runs, check_same, read_study
from convmixer_jax.studying.study import FULL


def seeds(text: str) -> tuple[int, ...]:
    """Reads a flag's whole numbers, as 0,1,2."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 0,1,2")
    return tuple(int(part) for part in parts)


def make_parser() -> Parser:
    """Returns the parser of the command's own flags; fields of the config are left over."""
    parser = Parser(
        "convmixer_jax.sweep",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--study", required=True, metavar="FILE", help="a file such as studies/kernel_size.py")
    parser.add_argument("--scale", default=FULL, help="a scale of the study: full (as published), small, ... (full)")
    parser.add_argument("--dir", help="folder of the study (runs/studies/NAME, with -SCALE unless full)")
    parser.add_argument("--storage", metavar="URL", help="where it is kept what is done (study.db in the folder)")
    parser.add_argument("--jobs", type=count, default=1, help="runs at once; on a CPU each takes all cores (1)")
    parser.add_argument("--seeds", type=seeds, default=(), help="such as 0,1,2 (the study's)")
    parser.add_argument("--data_dir", help=DATA_DIR_HELP)
    parser.add_argument("--dry-run", action="store_true", help="list points with parameters, FLOPs, time; begin none")
    return parser


def folder_of(plan: Plan, given: str | None) -> Path:
    """Returns the folder of a study."""
    if given:
        return home_expanded(given, "--dir")
    scale = "" if plan.scale == FULL else f"-{plan.scale}"
    return Path("runs/studies") / f"{plan.study.name}{scale}"


def list_them(plan: Plan, folder: Path) -> ExitCode:
    """Prints what the study would do."""
    # A measurement is of the devices, and the programs, that runs would use.
    start_jax(plan.config(plan.points[0]).compilation_cache if plan.points else False)
    from convmixer_jax.studying.listing import list_runs, measured
    from convmixer_jax.studying.models import Models

    models = Models(plan)
    models.check(plan.points)
    check_same(plan, read_study(folder), f"the study in {folder}")
    check_runs(plan, folder, plan.points)
    for line in list_runs(plan, models, folder, functools.partial(measured, plan, models)):
        show(line)
    return ExitCode.DONE


def work(plan: Plan, folder: Path, url: str | None, jobs: int, stop: StopRequest) -> ExitCode:
    """Makes the runs that are left."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # models are only counted here; accelerators are for the runs
    from convmixer_jax.studying.models import Models
    from convmixer_jax.studying.queue import Queue
    from convmixer_jax.studying.storage import default_url
    from convmixer_jax.studying.worker import Worker

    models = Models(plan)
    models.check(plan.points)
    make_workdir(folder, "--dir")
    queue = Queue(plan, models, folder, url or default_url(folder))
    left = queue.counts().left
    tell(f"{plan.study.title}: {left} runs wait, {jobs} at once; each has its folder in {folder}, with a trial.log")
    return Worker(plan, queue, folder, jobs, stop).run()


def run(argv: Sequence[str] | None, stop: StopRequest) -> ExitCode:
    """Does what the command line asks for; raises UserError."""
    flags, rest = make_parser().parse_known_args(argv)
    if flags.data_dir:
        home_expanded(flags.data_dir, "--data_dir")
    plan = make_plan(home_expanded(flags.study, "--study"), flags.scale, rest, flags.seeds, flags.data_dir)
    folder = folder_of(plan, flags.dir)
    return list_them(plan, folder) if flags.dry_run else work(plan, folder, flags.storage, flags.jobs, stop)


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv, stop))


if __name__ == "__main__":
    end_process(main())
