"""Train or evaluate a ConvMixer: `python -m convmixer_jax.main --help` tells how.

Starts the process, calls one function, and turns what comes back into an exit code.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from convmixer_jax.command_line import CACHE, Arguments, help_text, home_expanded, parse
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.allocator import keep_freed_memory
from convmixer_jax.runs.clock import Timeline
from convmixer_jax.runs.progress import nowhere
from convmixer_jax.runs.signals import SIGNALS, Interrupted, StopRequest

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def start_jax(compilation_cache: bool) -> None:
    """Imports JAX and finds its devices. Raises UserError where the environment names none that there are."""
    try:
        # Not at the top: a mistake on the command line, and --help, are answered before JAX is imported.
        import jax

        from convmixer_jax.runs.programs import keep_programs

        if compilation_cache:
            keep_programs(home_expanded(CACHE / "compiled", "the compilation cache"))
        jax.devices()
    except (RuntimeError, ValueError, AssertionError) as error:
        asked = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
        raise UserError(
            f"JAX cannot start ({str(error) or type(error).__name__}) with {asked or 'no variables set'}: "
            "check JAX_PLATFORMS and JAX_NUM_CPU_DEVICES, and that the accelerator's plugin is installed"
        ) from error


def run(arguments: Arguments, stop: StopRequest, timeline: Timeline) -> ExitCode:
    """Does what is asked for."""
    # Not in start_jax: a benchmark gives the same allocator to all that it compares.
    keep_freed_memory()
    start_jax(arguments.config.compilation_cache)
    from convmixer_jax.training import runner

    timeline.mark("imports")
    if arguments.mode == "eval":
        return runner.evaluate_checkpoint(arguments.config, arguments.workdir, arguments.data_dir, arguments.step)
    return runner.train(arguments.config, arguments.workdir, arguments.data_dir, stop, timeline)


def dispatch(argv: Sequence[str]) -> ExitCode:
    """Parses and runs the command line; raises UserError, Interrupted, OSError and whatever is a bug."""
    timeline = Timeline()
    if {"--help", "-h", "-help", "--helpfull"} & set(argv[1:]):
        print(help_text(), flush=True)
        return ExitCode.DONE
    with StopRequest() as stop:
        return run(parse(argv), stop, timeline)


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line and returns the exit code. A bug keeps its traceback; all else is told in one line."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the process, a daemon or cron
            setattr(sys, name, nowhere())
    try:
        return dispatch(sys.argv if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_MISTAKE
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
        print(f"error: {error.strerror} ({error.filename or 'in the workdir'}): free some, run again", file=sys.stderr)
        return ExitCode.USER_MISTAKE
    except Exception:
        traceback.print_exc()
        return ExitCode.CRASH


if __name__ == "__main__":
    code = main()
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # all is done and saved: too late to change the exit code
    if code != ExitCode.DONE:
        # A compilation may go on in other threads: an interpreter that ends waits for them, or they crash in it.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # whoever reads it may have gone
                stream.flush()
        os._exit(code)
    sys.exit(code)
