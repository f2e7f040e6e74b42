"""Saving a run's state, and telling where that failed.

saving = Saving(context, reports, grace=30.0, several=False)
saving.save(step, state, meta, val_top1)       # starts to; training goes on
saving.look()                                  # between dispatches
saving.is_saved(step)                          # waits
"""

import time
from typing import Any

from convmixer_jax.training.context import RunContext
from convmixer_jax.training.reports import Reports
from convmixer_jax.training.state import TrainState, to_tree
from convmixer_jax.training.stopping import grace_warning


class Saving:
    """Of one start of a run.

    grace: seconds that a signal leaves. several: whether there are other processes. measured: what the start before
    found, see `measured`.
    """

    def __init__(
        self, context: RunContext, reports: Reports, *, grace: float, several: bool, measured: dict[str, float]
    ):
        self._context, self._reports, self._grace, self._several = context, reports, grace, several
        self.measured = {"save": 0.0, "dispatch": 0.0} | measured  # seconds: the newest save, the longest dispatch
        self._began: tuple[int, float] | None = None  # step and time of the save under way
        self._told_failures: set[int] = set()
        self._told_grace = False
        if measured:
            self._tell_grace()

    def save(self, step: int, state: TrainState, meta: dict[str, Any], val_top1: float | None) -> None:
        """Starts to save the state, all of whose updates have ended.

        Rows up to it are on disk before, so that a resumed run misses none.
        """
        context = self._context
        context.watch.doing(f"save of step {step}")
        with context.clock.pause("save"):
            if context.log:
                context.log.flush()
            self._finish()
            self._began = step, time.monotonic()
            context.checkpoints.save(step, to_tree(state), meta, val_top1)
        context.ledger.note("save", step, context.clock.spent())

    def look(self) -> None:
        """Tells of a save that has ended: a failure at once, and what it means for signals. Waits for nothing."""
        checkpoints = self._context.checkpoints
        checkpoints.confirm_if_finished()
        if self._began is not None and not checkpoints.writing:
            (saved, began), self._began = self._began, None
            if checkpoints.saved == saved:
                self.measured["save"] = time.monotonic() - began
                self._tell_grace()
        for step in sorted(checkpoints.failures.keys() - self._told_failures):
            self._told_failures.add(step)
            self._reports.write_failed_save(step, checkpoints.failures[step])

    def dispatched(self, seconds: float) -> None:
        """Takes the seconds of a dispatch."""
        self.measured["dispatch"] = max(self.measured["dispatch"], seconds)

    def is_saved(self, step: int) -> bool:
        """Waits for the save under way and returns whether `step` is saved."""
        context = self._context
        context.watch.doing(f"save of step {context.checkpoints.writing or step}")
        with context.clock.pause("save"):
            self._finish()
        return context.checkpoints.saved == step

    def _finish(self) -> None:
        self._context.checkpoints.confirm()
        self.look()

    def _tell_grace(self) -> None:
        warning = grace_warning(self._grace, self.measured["dispatch"], self.measured["save"], self._several)
        if warning and not self._told_grace:
            self._told_grace = True
            self._context.progress.say(warning)
