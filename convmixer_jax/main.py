"""Train or evaluate a ConvMixer: `python -m convmixer_jax.main --help` tells how.

Starts the process, calls one function, and turns what comes back into an exit code.
"""

import functools
import os
import sys
from collections.abc import Sequence

from convmixer_jax import cluster
from convmixer_jax.command_line import Arguments, help_text, parse
from convmixer_jax.commands import end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode
from convmixer_jax.runs.allocator import keep_freed_memory
from convmixer_jax.runs.clock import Timeline
from convmixer_jax.runs.signals import StopRequest


def run(arguments: Arguments, stop: StopRequest, timeline: Timeline) -> ExitCode:
    """Does what is asked for."""
    place = cluster.find_place(arguments.cluster, os.environ)
    with cluster.member(place, lambda: stop.ending):
        joined = functools.partial(join, place, arguments, stop) if place else None
        start_jax(arguments.config.compilation_cache, joined)
        import jax

        from convmixer_jax.training import agreement, runner

        timeline.mark("imports")
        agreement.check_devices(device.process_index for device in jax.devices())
        if arguments.mode == "eval":
            return runner.evaluate_checkpoint(arguments.config, arguments.workdir, arguments.data_dir, arguments.step)
        return runner.train(arguments.config, arguments.workdir, arguments.data_dir, stop, timeline)


def join(place: cluster.Place, arguments: Arguments, stop: StopRequest) -> None:
    """Makes this process one of those of the run, if all were started alike."""
    from convmixer_jax.training.agreement import facts

    asked = {"--mode": arguments.mode, "--step": arguments.step}
    found, seconds = asked | facts(arguments.config), arguments.cluster.initialization_timeout
    cluster.join(place, found, seconds, lambda: stop.ending)


def dispatch(argv: Sequence[str], stop: StopRequest) -> ExitCode:
    """Parses and runs the command line; raises UserError, Interrupted, OSError and whatever is a bug."""
    timeline = Timeline()
    if {"--help", "-h", "-help", "--helpfull"} & set(argv[1:]):
        print(help_text(), flush=True)
        return ExitCode.DONE
    return run(parse(argv), stop, timeline)


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line and returns the exit code."""
    # Before run_command, which starts a thread; not in start_jax: what a benchmark compares has one allocator.
    keep_freed_memory()
    return run_command(lambda stop: dispatch(sys.argv if argv is None else argv, stop))


if __name__ == "__main__":
    end_process(main())
