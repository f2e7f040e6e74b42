"""What every command shares: how its flags are read, how JAX is started, and how it ends.

    def run(stop: StopRequest) -> ExitCode:
        flags = make_parser().parse_args(argv)
        start_jax(compilation_cache=True)
        ...                                      # raises UserError for a user's mistake
        return ExitCode.DONE

    if __name__ == "__main__":
        end_process(run_command(run))

Nothing here imports JAX before `start_jax`, so that help and errors are quick.
"""

import argparse
import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from convmixer_jax.command_line import CACHE, home_expanded
from convmixer_jax.errors import ExitCode, RunAgainError, UserError
from convmixer_jax.runs.files import NO_SPACE
from convmixer_jax.runs.progress import nowhere
from convmixer_jax.runs.signals import SIGNALS, Interrupted, StopRequest
from convmixer_jax.weights.hub import is_hub


class Parser(argparse.ArgumentParser):
    """Tells mistakes as everything else here does: in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage."""
        raise UserError(f"{message} (--help shows what is accepted)")


def count(text: str) -> int:
    """Reads a flag's positive whole number."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


def seconds(text: str) -> float:
    """Reads a flag's positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return value


def beside(place: str, name: str) -> Path:
    """Returns `name` in the folder at --workdir, or beside the file there: where files go that --out does not name.

    Raises UserError where the place is a repository of the hub, which is no folder of this machine.
    """
    if is_hub(place):
        raise UserError(f"--workdir is {place}, which is no folder here: say with --out where to write")
    path = home_expanded(place, "--workdir")
    return (path.parent if path.is_file() else path) / name


def start_jax(compilation_cache: bool, join: Callable[[], None] | None = None) -> None:
    """Imports JAX and finds its devices. Raises UserError where the environment names none that there are.

    compilation_cache: whether compiled programs are kept for the next start. join: makes this process one of several;
    done before a device is touched, since JAX learns then which devices there are. What it raises is raised.
    """
    try:
        # Not at the top: a mistake on the command line, and --help, are answered before JAX is imported.
        import jax

        from convmixer_jax.runs.programs import keep_programs

        if compilation_cache:
            keep_programs(home_expanded(CACHE / "compiled", "the compilation cache"))
        if join:
            join()
        jax.devices()
    except (RuntimeError, ValueError, AssertionError) as error:
        asked = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
        raise UserError(
            f"JAX cannot start ({str(error) or type(error).__name__}) with {asked or 'no variables set'}: "
            "check JAX_PLATFORMS and JAX_NUM_CPU_DEVICES, and that the accelerator's plugin is installed"
        ) from error


def run_command(function: Callable[[StopRequest], ExitCode]) -> ExitCode:
    """Runs `function` and returns the exit code. A bug keeps its traceback; all else is told in one line.

    function: takes what holds a signal: until its `defer()` is called, SIGTERM and SIGINT end the command.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process, a daemon or cron
            setattr(sys, name, nowhere())
    # Pillow's, of images half as large as those that it refuses: the user can do nothing about it, and need not.
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit")
    try:
        with StopRequest() as stop:
            code = function(stop)
            sys.stdout.flush()  # a disk that is full is told here, and not when the interpreter ends
            return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_MISTAKE
    except RunAgainError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.STUCK
    except Interrupted as signalled:
        print(signalled, file=sys.stderr)
        return ExitCode.STOPPED
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain once more when it flushes at its end.
        sys.stdout = nowhere()
        return ExitCode.CRASH
    except OSError as error:
        if error.errno not in NO_SPACE:
            traceback.print_exc()
            return ExitCode.CRASH
        # An error of writing the output names no file, and libraries do not always.
        place = error.filename or "where the output or the run's files go"
        print(f"error: {error.strerror} ({place}): free some, run again", file=sys.stderr)
        return ExitCode.USER_MISTAKE
    except Exception:
        traceback.print_exc()
        return ExitCode.CRASH


def end_process(code: ExitCode) -> NoReturn:
    """Ends the process with the exit code."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # all is done and saved: too late to change the exit code
    if code != ExitCode.DONE:
        # A compilation may go on in other threads: an interpreter that ends waits for them, or they crash in it.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # whoever reads it may have gone
                stream.flush()
        os._exit(code)
    sys.exit(code)
