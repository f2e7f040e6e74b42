"""Train or evaluate a ConvMixer.

    python -m convmixer_jax.main --config FILE [--workdir DIR] [--data_dir DIR] [--mode train|eval] [--step N]
                                 [--config.FIELD=VALUE ...]

Training goes on where the workdir stopped; a finished workdir says so. Evaluation restores the newest checkpoint, or
--step, and prints one JSON object as its last line. Exit codes: 0 done; 2 a mistake in what was asked for, one line;
74 finished, but a checkpoint could not be saved; 75 stopped by a signal after saving, run again to go on; 76 stuck or
another process lost, run again; 1 anything else.
"""

import dataclasses
import itertools
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from convmixer_jax.config import flatten, get_base
from convmixer_jax.errors import ExitCode, UserError, suggest
from convmixer_jax.runs.clock import Timeline
from convmixer_jax.runs.signals import StopRequest

CACHE = Path("~/.cache/convmixer_jax")

EXAMPLES = """
Examples:
  python -m convmixer_jax.main --config configs/digits.py
  python -m convmixer_jax.main --config configs/cifar10.py --data_dir ~/data --config.model.kernel_size=7
  python -m convmixer_jax.main --config configs/cifar10.py --mode eval
"""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The command line, checked: step is None for the newest checkpoint."""

    config: ConfigDict
    workdir: Path
    data_dir: Path
    mode: str
    step: int | None


def define_flags(argv: Sequence[str]) -> flags.FlagValues:
    """Returns the flags, not yet parsed. They are this module's own, so that importing it defines nothing global."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "recipe, a file of configs/", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "folder of the run (default: runs/<name of the config>)", flag_values=values)
    flags.DEFINE_string("data_dir", None, f"data (default: $CONVMIXER_DATA_DIR, else {CACHE})", flag_values=values)
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "train, or evaluate a checkpoint", flag_values=values)
    flags.DEFINE_integer("step", None, "with --mode eval: the checkpoint's step (default: newest)", flag_values=values)
    return values


def help_text() -> str:
    """Returns what --help prints: usage, exit codes, examples, and every field of the config with its default."""
    fields = "\n".join(f"  --config.{name}={value!r}" for name, value in flatten(get_base()))
    return (
        f"{__doc__}{EXAMPLES}\nFields with their base values (meanings and units: convmixer_jax/config.py):\n{fields}"
    )


def config_path(argv: Sequence[str]) -> Path | None:
    """Returns the recipe that the command line names, None where it names none."""
    for argument, following in itertools.pairwise([*argv, ""]):
        name, _, value = argument.partition("=")
        if name in ("--config", "-config"):
            return Path(value or following)
    return None


def flag_error(error: Exception, argv: Sequence[str]) -> UserError:
    """Returns a library's complaint about the command line or the recipe as a user's mistake, in one line.

    absl and ml_collections raise several kinds of exceptions, some of them with whole tracebacks in their text.
    """
    known = [name for name, _ in flatten(get_base())]
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0].removeprefix("config.")
        if argument.startswith("--config.") and name not in known:
            near = suggest(name, known)
            return UserError(f"--config.{name}: there is no such field{near}; --help lists all of them")
    recipe = config_path(argv)
    if recipe is not None and not recipe.is_file():
        return UserError(f"--config {recipe}: there is no such file; recipes are Python files, e.g. configs/digits.py")
    unknown = re.search(r'Key "(\w+)" does not exist', str(error))
    if unknown:
        near = suggest(unknown[1], [part for name in known for part in name.split(".")])
        return UserError(f"--config {recipe} assigns {unknown[1]!r}: there is no such field{near}; --help lists all")
    last = [line for line in str(error).splitlines() if line.strip()][-1]
    return UserError(f"{last.strip()} (--help shows what is accepted)")


def parse(argv: Sequence[str]) -> Arguments:
    """Returns the checked command line; argv[0] is the program's name. Raises UserError."""
    values = define_flags(argv)
    try:
        rest = values(list(argv))
        config = values.config
        if config is not None:
            config.keys()  # a recipe that could not be read raises only when it is looked at
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise flag_error(error, argv) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not understood: every argument is a --flag (--help lists them)")
    if config is None:
        raise UserError("--config is missing: name a recipe, e.g. --config configs/digits.py (--help shows more)")
    if values.step is not None and values.mode != "eval":
        raise UserError(f"--step is {values.step}: it goes with --mode eval")
    name = Path(config_flags.get_config_filename(values["config"])).stem
    return Arguments(
        config=config,
        workdir=Path(values.workdir or Path("runs") / name),
        data_dir=Path(values.data_dir or os.environ.get("CONVMIXER_DATA_DIR") or CACHE).expanduser(),
        mode=values.mode,
        step=values.step,
    )


def run(arguments: Arguments) -> ExitCode:
    """Starts JAX and does what is asked for."""
    timeline = Timeline()
    with StopRequest() as stop:
        # Not at the top: a mistake on the command line, and --help, are answered before JAX is imported.
        import jax

        if arguments.config.compilation_cache:
            # Before any array is made: JAX looks at this only once.
            jax.config.update("jax_compilation_cache_dir", str((CACHE / "compiled").expanduser()))
        from convmixer_jax.training import runner

        if arguments.mode == "eval":
            return runner.evaluate_checkpoint(arguments.config, arguments.workdir, arguments.data_dir, arguments.step)
        return runner.train(arguments.config, arguments.workdir, arguments.data_dir, stop, timeline)


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line and returns the exit code. Only a UserError is told in one line."""
    argv = sys.argv if argv is None else argv
    if {"--help", "-h", "-help", "--helpfull"} & set(argv[1:]):
        print(help_text())
        return ExitCode.DONE
    try:
        return run(parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_MISTAKE
    except Exception:
        traceback.print_exc()
        return ExitCode.CRASH


if __name__ == "__main__":
    sys.exit(main())
