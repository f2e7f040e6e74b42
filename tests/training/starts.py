"""Starts of runs in this process, which compile once what processes of their own would compile each.

What another process would do to one, a crash test does: `python -m convmixer_jax.crashtest`, and test_interruptions.py.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from convmixer_jax.config import get_base
from convmixer_jax.errors import ExitCode
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.clock import Timeline
from convmixer_jax.runs.signals import Interrupted, StopRequest
from convmixer_jax.runs.watchdog import Watchdog
from convmixer_jax.training import loop, runner
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.dispatch import next_batches
from convmixer_jax.training.resume import restore_state
from tests.training.steps import bits


@dataclasses.dataclass
class Start:
    """A start of a run: what it ended with, the updates of each dispatch, the bits of each state that it saved."""

    workdir: Path
    code: ExitCode
    counts: list[int]
    saved: dict[int, dict]

    def ends(self, start: int = 0) -> list[int]:
        """The steps that its dispatches end with. start: the step it went on from."""
        return [start + sum(self.counts[: n + 1]) for n in range(len(self.counts))]


def start(
    workdir: Path,
    config: ConfigDict,
    before_dispatch: Callable[[int], None] = lambda step: None,
    doing: Callable[[str], None] = lambda what: None,
    data_dir: Path | None = None,
) -> Start:
    """Trains, or goes on; STOPPED where Interrupted ended it.

    before_dispatch: gets the step that each dispatch begins with. doing: gets what the watchdog is told, when it is.
    """
    started = Start(workdir, ExitCode.CRASH, [], {})
    save, say = Checkpoints.save, Watchdog.doing

    def noted_batches(inputs, source, step, count, plan):
        started.counts.append(count)
        before_dispatch(step)
        return next_batches(inputs, source, step, count, plan)

    def noted_save(checkpoints, step, tree, *arguments):
        started.saved[step] = bits(tree)
        save(checkpoints, step, tree, *arguments)

    def noted_doing(watch, what, **more):
        say(watch, what, **more)
        doing(what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "next_batches", noted_batches)
        patch.setattr(Checkpoints, "save", noted_save)
        patch.setattr(Watchdog, "doing", noted_doing)
        started.code = ExitCode.STOPPED
        with contextlib.suppress(Interrupted), StopRequest() as stop:
            started.code = runner.train(config, workdir, data_dir or workdir, stop, Timeline())
    return started


def config_of(settings: dict[str, Any]) -> ConfigDict:
    config = get_base()
    for name, value in settings.items():
        config.update_from_flattened_dict({name: value})
    return config


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved_steps(workdir: Path) -> list[int]:
    # Orbax writes into a folder of another name, with a suffix, until all is there.
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdigit())


def state_bits(workdir: Path, config: ConfigDict, step: int) -> dict[str, tuple[np.dtype, bytes]]:
    """Every number of a checkpoint: parameters, statistics, optimiser, counts and running sums."""
    with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        state, _ = restore_state(assemble(config), checkpoints, step)
    return bits(state)


def files_of(workdir: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(workdir)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in workdir.rglob("*")
        if path.is_file()
    }
