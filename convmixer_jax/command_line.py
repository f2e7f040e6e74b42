"""The command line: what is accepted, what --help prints, and every mistake in it told in one line.

    arguments = parse(sys.argv)

Nothing here imports JAX, so that help and errors are quick.
"""

import dataclasses
import itertools
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from convmixer_jax.cluster import Asked
from convmixer_jax.config import flatten, get_base
from convmixer_jax.config_rules import check
from convmixer_jax.errors import UserError, suggest
from convmixer_jax.presets import fill

CACHE = Path("~/.cache/convmixer_jax")
# "gs://bucket", and as a Path prints it.
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
DATA_DIR_HELP = f"data (default: $CONVMIXER_DATA_DIR, else {CACHE})"

USAGE = """Train or evaluate a ConvMixer.

    python -m convmixer_jax.main --config FILE [--workdir DIR] [--data_dir DIR] [--mode train|eval] [--step N]
                                 [--coordinator HOST:PORT --num_processes N --process_id I] [--config.FIELD=VALUE ...]

Several processes, each started with its own --process_id, train as one. On Cloud TPU slices, in SLURM steps and under
Open MPI they find each other; launch/ has scripts that start them.

Training goes on where the workdir stopped; a finished workdir says so. Evaluation restores the newest checkpoint, or
--step, and prints one JSON object as its last line. Exit codes: 0 done; 2 a mistake in what was asked for, one line;
74 finished, but a checkpoint could not be saved; 75 stopped by a signal after saving, run again to go on; 76 stuck or
another process lost, run again; 1 anything else.

Examples:
  python -m convmixer_jax.main --config configs/digits.py
  python -m convmixer_jax.main --config configs/cifar10.py --data_dir ~/data --config.model.kernel_size=7
  python -m convmixer_jax.main --config configs/cifar10.py --mode eval
"""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line, checked: step is None for the newest checkpoint. cluster: see `cluster.find_place`."""

    config: ConfigDict
    workdir: Path
    data_dir: Path
    mode: str
    step: int | None
    cluster: Asked


def define_flags(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags, not yet parsed. They are this module's own, so that importing it defines nothing global."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "recipe, a file of configs/", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "folder of the run (default: runs/<name of the config>)", flag_values=values)
    flags.DEFINE_string("data_dir", None, DATA_DIR_HELP, flag_values=values)
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "train, or evaluate a checkpoint", flag_values=values)
    flags.DEFINE_integer("step", None, "with --mode eval: the checkpoint's step (default: newest)", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where all processes meet", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "how many processes make the run", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which of them this one is, from 0", flag_values=values)
    waiting = "seconds to wait for the other processes"
    flags.DEFINE_integer("initialization_timeout", 300, waiting, lower_bound=1, flag_values=values)
    return values


def help_text() -> str:
    """Returns what --help prints: usage, exit codes, examples, and every field of the config with its default."""
    values = define_flags([])
    options = "\n".join(f"  --{name:<24}{values[name].help}" for name in values)
    fields = "\n".join(f"  --config.{name}={value!r}" for name, value in flatten(get_base()))
    heading = "Fields with their base values (meanings and units: convmixer_jax/config.py):"
    return f"{USAGE}\nFlags:\n{options}\n\n{heading}\n{fields}"


def config_path(argv: Sequence[str]) -> Path | None:
    """Returns the recipe that the command line names, None where it names none."""
    for argument, following in itertools.pairwise([*argv, ""]):
        name, _, value = argument.partition("=")
        if name in ("--config", "-config"):
            return Path(value or following)
    return None


def recipe_line(error: BaseException | None, recipe: Path) -> int | None:
    """Returns the line of the recipe that raised `error`, or what `error` comes from; None where none did."""
    found = None
    while error is not None:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == recipe]
        found = frames[-1].lineno if frames else found
        error = error.__cause__ or error.__context__
    return found


def flag_error(error: BaseException, argv: Sequence[str]) -> UserError:
    """Returns a library's complaint about the command line or the recipe as a user's mistake, in one line.

    absl and ml_collections raise several kinds of exceptions, some of them with whole tracebacks in their text; and a
    recipe is a program, which may raise anything.
    """
    known = [name for name, _ in flatten(get_base())]
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0].removeprefix("config.")
        if argument.startswith("--config.") and name not in known:
            near = suggest(name, known)
            return UserError(f"--config.{name}: there is no such field{near}; --help lists all of them")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    recipe = config_path(argv)
    line = recipe_line(error, recipe) if recipe else None
    if recipe is None or (isinstance(error, flags.Error) and line is None):
        return UserError(f"{reason} (--help shows what is accepted; a recipe is a file, e.g. configs/digits.py)")
    if not recipe.is_file():
        return UserError(f"--config {recipe}: there is no such file; recipes are Python files, e.g. configs/digits.py")
    unknown = re.search(r'Key "(\w+)" does not exist', str(error))
    if unknown:
        near = suggest(unknown[1], [part for name in known for part in name.split(".")])
        reason = f"there is no field {unknown[1]!r}{near}"
    place = f", line {line}" if line else ""
    return UserError(f"--config {recipe}{place}: {reason} (configs/digits.py is a recipe that works)")


def check_recipe(config: object, recipe: Path | None, overridden: Iterable[str]) -> ConfigDict:
    """Returns the config, filled by its preset. Raises UserError unless it is the base with values in their ranges.

    overridden: dotted names of the fields that the command line sets.
    """
    if recipe is None:
        raise UserError("--config is missing: name a recipe, e.g. --config configs/digits.py (--help shows more)")
    known = {name for name, _ in flatten(get_base())}
    there = {name for name, _ in flatten(config)} if isinstance(config, ConfigDict) else set()
    if not isinstance(config, ConfigDict) or there != known:
        odd = f"a config that differs in {', '.join(sorted(there ^ known)[:3])}" if there else type(config).__name__
        raise UserError(
            f"--config {recipe}: get_config() returned {odd}: it must start from convmixer_jax.config.get_base(), "
            "assign its fields, and return it"
        )
    explicit = {name.removeprefix("model.") for name in overridden if name.startswith("model.")}
    fill(config.model, get_base().model, explicit)
    check(config)
    return config


def home_expanded(path: Path | str, flag: str) -> Path:
    """Returns the path with a leading ~ or ~user replaced.

    Raises UserError where that user has no home, and for a URL, which would become a folder of that name.
    """
    if URL.match(str(path)):
        raise UserError(
            f"{flag} {path}: a path is needed, not a URL; mount a bucket (gcsfuse BUCKET FOLDER for gs://, as "
            "launch/tpu_vm.sh --bucket does on every host) and give the path below FOLDER"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{flag} {path}: {error}; give the path itself") from error


def data_folder(flag: str | None) -> Path:
    """Returns the folder of the data sets. flag: what --data_dir says, None where it is not there. Raises UserError."""
    return home_expanded(flag or os.environ.get("CONVMIXER_DATA_DIR") or CACHE, "--data_dir")


def parse(argv: Sequence[str]) -> Arguments:
    """Returns the checked command line; argv[0] is the program's name. Raises UserError."""
    logging.set_verbosity(logging.ERROR)  # ml_collections warns of what check_recipe tells
    try:
        values = define_flags(argv)
        rest = values(list(argv))
        config = values.config
        getattr(config, "keys", None)  # a recipe that could not be read raises only when it is looked at
    except (Exception, SystemExit) as error:  # a recipe may even call sys.exit
        raise flag_error(error, argv) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not understood: every argument is a --flag (--help lists them)")
    recipe = config_path(argv)
    config = check_recipe(config, recipe, config_flags.get_override_values(values["config"]) if recipe else ())
    if values.step is not None and values.mode != "eval":
        raise UserError(f"--step is {values.step}: it goes with --mode eval")
    name = Path(config_flags.get_config_filename(values["config"])).stem
    return Arguments(
        config=config,
        workdir=home_expanded(values.workdir or Path("runs") / name, "--workdir"),
        data_dir=data_folder(values.data_dir),
        mode=values.mode,
        step=values.step,
        cluster=Asked(values.coordinator, values.num_processes, values.process_id, values.initialization_timeout),
    )
