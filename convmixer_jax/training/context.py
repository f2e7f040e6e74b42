"""What goes with the updates of a run: where they are saved, logged, timed and watched.

with open_watchdog(workdir, 600.0, 3600.0) as watch, Ledger(workdir, process, began) as ledger:
    with_it = Attendants(clock, stop, timeline, watch, ledger)
    context = RunContext(**vars(with_it), checkpoints=checkpoints, log=log, progress=progress)
"""

import dataclasses
from pathlib import Path

import jax

from convmixer_jax.runs import exchange
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.clock import RunClock, Timeline
from convmixer_jax.runs.ledger import Ledger
from convmixer_jax.runs.metrics_log import MetricsLog
from convmixer_jax.runs.peers import Peers
from convmixer_jax.runs.progress import Progress
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.runs.watchdog import Allowances, Watchdog


@dataclasses.dataclass(frozen=True)
class Attendants:
    """What is with a start of a run from its beginning."""

    clock: RunClock
    stop: StopRequest
    timeline: Timeline
    watch: Watchdog
    ledger: Ledger


@dataclasses.dataclass(frozen=True)
class RunContext(Attendants):
    """And what comes once its updates can begin. log: None on all processes but the first."""

    checkpoints: Checkpoints
    log: MetricsLog | None
    progress: Progress


def open_watchdog(workdir: Path, ordinary: float, compiling: float) -> Watchdog:
    """Returns the watchdog of this process. ordinary, compiling: seconds, see `Allowances`."""
    index, count = jax.process_index(), jax.process_count()
    peers = Peers(index, count, exchange.heard, exchange.repeat) if count > 1 else None
    return Watchdog(workdir / "stuck", Allowances(ordinary, compiling), peers, index)
