"""Train or evaluate a ConvMixer: `python -m convmixer_jax.main --help` tells how.

Starts the process, calls one function, and turns what comes back into an exit code.
"""

import sys
import traceback
from collections.abc import Sequence

from convmixer_jax.command_line import CACHE, Arguments, help_text, parse
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.clock import Timeline
from convmixer_jax.runs.signals import Interrupted, StopRequest


def run(arguments: Arguments, timeline: Timeline) -> ExitCode:
    """Starts JAX and does what is asked for."""
    with StopRequest() as stop:
        # Not at the top: a mistake on the command line, and --help, are answered before JAX is imported.
        import jax

        if arguments.config.compilation_cache:
            # Before any array is made: JAX looks at this only once.
            jax.config.update("jax_compilation_cache_dir", str((CACHE / "compiled").expanduser()))
        from convmixer_jax.training import runner

        timeline.mark("imports")
        if arguments.mode == "eval":
            return runner.evaluate_checkpoint(arguments.config, arguments.workdir, arguments.data_dir, arguments.step)
        return runner.train(arguments.config, arguments.workdir, arguments.data_dir, stop, timeline)


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line and returns the exit code. Only a UserError is told in one line."""
    timeline = Timeline()
    argv = sys.argv if argv is None else argv
    if {"--help", "-h", "-help", "--helpfull"} & set(argv[1:]):
        print(help_text())
        return ExitCode.DONE
    try:
        return run(parse(argv), timeline)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_MISTAKE
    except Interrupted as signal:
        print(signal, file=sys.stderr)
        return ExitCode.STOPPED
    except Exception:
        traceback.print_exc()
        return ExitCode.CRASH


if __name__ == "__main__":
    sys.exit(main())
