"""The training loop: what happens after which update.

Updates go to the devices several at a time, never past one after which something is due. A step number counts
completed updates (skipped ones included): report, evaluation and checkpoint n all describe the state after n updates.
After update n the order is: report, evaluate, save, then look whether a signal asks to stop, which is also looked at
between the batches of an evaluation. Metrics are fetched late, so that the device never waits for the host.
"""

import collections
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from convmixer_jax.config_record import digest
from convmixer_jax.data.inputs import EvalInput, TrainInput
from convmixer_jax.data.placing import put
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.training.assembly import Experiment
from convmixer_jax.training.context import RunContext
from convmixer_jax.training.dispatch import next_batches
from convmixer_jax.training.mesh import replicated
from convmixer_jax.training.metrics import TrainSums
from convmixer_jax.training.pace import Pace, updates_until_due
from convmixer_jax.training.program import kept_memory
from convmixer_jax.training.reports import Reports
from convmixer_jax.training.saving import Saving
from convmixer_jax.training.scores import Scores
from convmixer_jax.training.state import TrainState
from convmixer_jax.training.stopping import IN_FLIGHT, AbandonedError, Stopping, limit_grace


class DivergedError(RuntimeError):
    """Too many updates in a row had a non-finite loss or gradient."""


@dataclasses.dataclass(frozen=True)
class Sent:
    """A dispatch that is to be looked at when it has ended: `updates` up to `step`.

    watch: as the train step returns it. sums: those of the report that is due after it, if one is.
    """

    step: int
    updates: int
    watch: dict[str, jax.Array]
    sums: TrainSums | None


class Loop:
    """One start of a run, from the state it begins with to the last update, a signal or divergence."""

    def __init__(
        self,
        experiment: Experiment,
        program: jax.stages.Compiled,
        state: TrainState,
        source: TrainInput,
        evaluations: dict[str, EvalInput],
        context: RunContext,
        history: dict[str, Any],
    ):
        """Takes everything ready.

        program: the experiment's dispatch. evaluations: by split, the one evaluated while training first. history: what
        a checkpoint's meta carries of the run so far, see `meta`.
        """
        self.experiment, self.config = experiment, experiment.config
        self.program, self.state, self.source, self.evaluations = program, state, source, evaluations
        self.context, self.watch, self.clock = context, context.watch, context.clock
        self.train_top1: float | None = history.get("train_top1")
        self.step = int(state.step)
        several = jax.process_count() > 1
        self.reports = Reports(
            context.log,
            context.progress,
            context.clock,
            batch_size=self.config.batch_size,
            steps_per_epoch=experiment.steps_per_epoch,
            step=self.step,
            replaced=source.replaced if self.config.on_bad_example == "skip" else None,
        )
        self.stopping = Stopping(context.stop, jax.process_count())
        self.scores = Scores(experiment, evaluations, context, self.reports, self.stopping, history)
        measured = history.get("measured", {})
        grace = self.config.stop_grace_seconds
        self.saving = Saving(context, self.reports, grace=grace, several=several, measured=measured)
        self.pace = Pace(experiment.plan.capacity, measured=self.config.steps_per_dispatch == 0)
        self._updates_at_once = self.pace.wanted
        self._kept = kept_memory(experiment, program)
        self._epoch_sums: TrainSums | None = None
        self._sent: collections.deque[Sent] = collections.deque()
        self._seen_at: float | None = None

    @property
    def done(self) -> bool:
        """Whether the last update was made."""
        return self.step == self.experiment.total_steps

    def run(self) -> ExitCode:
        """Trains from the state's step to the end.

        Returns DONE; STOPPED after a signal; UNSAVED where the save of the last state failed. Raises UserError where
        data cannot be read, having saved.
        """
        limit_grace(self.context.stop, self.config.stop_grace_seconds, self.context.checkpoints, self.watch)
        self.context.stop.defer()
        self.clock.start_updates()
        try:
            return self._run()
        except AbandonedError:
            return self._stop()
        except UserError:
            self._keep_what_is_done()
            raise

    def _run(self) -> ExitCode:
        if self.scores.pending:
            self._evaluate_pending()
        while not self.done:
            if self.stopping.due():
                return self._stop()
            self._agree_on_pace()
            self._update()
            if self.step % self.experiment.steps_per_epoch == 0:
                self._end_epoch()
            if self.step % self.config.checkpoint_every_steps == 0 or self.done or self.scores.is_best(self.step):
                self._save()
            self.saving.look()
        return ExitCode.DONE if self._is_saved() or self._saved_again() else ExitCode.UNSAVED

    def _evaluate_pending(self) -> None:
        """Makes the evaluations that a signal cut short, before the checkpoint that this start goes on from."""
        self.scores.evaluate_all(self.step, self.state, self.scores.pending)
        val_top1 = self.scores.val_top1(self.step)
        if val_top1 is not None:
            self.context.checkpoints.add_score(self.step, val_top1)

    def _keep_what_is_done(self) -> None:
        """Saves the state where data could not be read, so that the run goes on from here once they can be."""
        if jax.process_count() > 1 or not self.step or self.context.checkpoints.saved == self.step:
            return  # of several processes one may be alone with its trouble, and a save needs all of them
        self._save()
        if self._is_saved():
            self.context.progress.say(f"saved step {self.step} before stopping")

    def _agree_on_pace(self) -> None:
        """Sets the updates of a dispatch; processes that made different ones would wait for each other.

        Several agree on them at reports: it makes them wait for their devices.
        """
        if jax.process_count() == 1:
            self._updates_at_once = self.pace.wanted
        elif self.step % self.config.report_every_steps == 0:
            self.watch.doing(f"other processes at step {self.step}")
            self._updates_at_once = int(multihost_utils.process_allgather(np.asarray(self.pace.wanted)).min())

    def _update(self) -> None:
        """Hands the next updates to the devices; waits only for earlier ones."""
        experiment, config = self.experiment, self.config
        due = config.report_every_steps, config.checkpoint_every_steps, experiment.steps_per_epoch
        count = min(self._updates_at_once, updates_until_due(self.step, experiment.total_steps, *due))
        self.watch.doing(f"the batches of updates {self.step + 1} to {self.step + count}")
        with self.clock.waiting_for_input():
            batches = next_batches(experiment.inputs, self.source, self.step, count, experiment.plan)
        seed = np.uint32(config.seed)
        self.state, watch = self.program(self.state, seed, self.source.data, batches, np.int32(count))
        self.step += count
        self._sent.append(Sent(self.step, count, watch, self._take_report()))
        timeline = self.context.timeline
        first = "first update" not in timeline.parts
        if first:
            self.watch.doing(f"update {self.step}, the first of this start", compiling=True)
            jax.block_until_ready(watch)
            timeline.mark("first update")
            self.context.progress.say(f"start-up: {timeline}")
        self._look_late(0 if first else IN_FLIGHT)
        self.context.progress.advance(count)

    def _look_late(self, unseen: int) -> None:
        """Waits until so many dispatches are left to look at; writes the reports of the others.

        Stops the run where too many updates in a row were skipped.
        """
        diverged = None
        while len(self._sent) > unseen:
            sent = self._sent.popleft()
            self.watch.doing(f"update {sent.step} (dispatch of {sent.updates})")
            seen = jax.device_get(sent.watch)
            self._completed(sent.updates, self.clock.step_seconds)
            if sent.sums is not None:
                self.reports.write(sent.step, sent.sums, float(seen["learning_rate"]))
                self.context.ledger.note("report", sent.step, self.clock.spent())
            if self._kept is not None:
                self._kept.give_back()
            if diverged is None and seen["skipped_in_a_row"] >= self.config.max_skipped_steps:
                diverged, unseen = seen, 0
        if diverged is not None:
            self.context.checkpoints.confirm()
            raise DivergedError(self._divergence(int(diverged["step"]), int(diverged["skipped_in_a_row"])))

    def _completed(self, updates: int, now: float) -> None:
        """Takes a dispatch that has ended; the first has nothing before it to be timed from."""
        self.pace.completed(updates, now)
        if self._seen_at is not None:
            self.saving.dispatched(now - self._seen_at)
        self._seen_at = now

    def _divergence(self, step: int, skipped: int) -> str:
        # A checkpoint made within this row of skipped updates holds weights that no update can be made from.
        good = max((saved for saved in self.context.checkpoints.steps() if saved <= step - skipped), default=None)
        return (
            f"{skipped} updates in a row up to step {step} had a non-finite loss or gradient "
            f"(config.max_skipped_steps); the last good checkpoint is {'none' if good is None else f'step {good}'}. "
            "Lower config.schedule.learning_rate or set config.optimizer.clip_norm, with another --workdir"
        )

    def _zeros_like(self, sums: TrainSums) -> TrainSums:
        """Returns sums of nothing. Made on the host: computed on the device they would queue behind the updates."""
        whole = replicated(self.experiment.mesh)
        return jax.tree.map(lambda leaf: put(np.zeros(leaf.shape, leaf.dtype), whole), sums)

    def _take_report(self) -> TrainSums | None:
        """Takes the sums out of the state where a report is due."""
        if self.step % self.config.report_every_steps and not self.done:
            return None
        sums = self.state.report
        self.state = self.state.replace(report=self._zeros_like(sums))
        return sums

    def _settle(self) -> None:
        """Waits for all updates, so that a pause which follows holds none of their time, and writes their rows."""
        self._look_late(0)
        jax.block_until_ready(self.state)

    def _end_epoch(self) -> None:
        """Takes the epoch's sums; evaluates where it is due."""
        self._epoch_sums = self.state.epoch
        self.state = self.state.replace(epoch=self._zeros_like(self.state.epoch))
        epoch = self.step // self.experiment.steps_per_epoch
        if epoch % self.config.eval_every_epochs and not self.done:
            return
        self._settle()
        self.scores.evaluate_all(self.step, self.state, self.scores.due(self.done))

    def meta(self) -> dict[str, Any]:
        """Returns what a checkpoint carries beside its arrays: step, config digest, history and seconds.

        pending: splits that are to be evaluated before the next update. measured: see `Saving`.
        """
        if self._epoch_sums is not None:
            self.train_top1, self._epoch_sums = self._epoch_sums.means()["train/top1"], None
        return {
            "step": self.step,
            "config_digest": digest(self.config),
            "train_top1": self.train_top1,
            "best": self.scores.best,
            "pending": list(self.scores.pending),
            "measured": dict(self.saving.measured),
            "seconds": self.clock.seconds,
            "step_seconds": self.clock.step_seconds,
        }

    def _save(self) -> None:
        """Starts to save the state."""
        self._settle()
        self.saving.save(self.step, self.state, self.meta(), self.scores.val_top1(self.step))

    def _is_saved(self) -> bool:
        """Waits for the save under way and returns whether the current state is saved."""
        self._settle()
        return self.saving.is_saved(self.step)

    def _saved_again(self) -> bool:
        """Tries the last save once more, which no later one makes good; returns whether that worked."""
        self.context.progress.say(f"saving step {self.step} once more")
        self._save()
        return self._is_saved()

    def _stop(self) -> ExitCode:
        """Saves the state, unless that is done or there is nothing to save yet, and waits for it."""
        say, checkpoints = self.context.progress.say, self.context.checkpoints
        say(f"{self.stopping.reason}: " + (f"saving step {self.step}" if self.step else "nothing to save yet"))
        if self.step and not self._is_saved():
            self._save()
            if not self._is_saved():
                kept = "from the start" if checkpoints.saved is None else f"from step {checkpoints.saved}"
                say(f"warning: stopped without saving step {self.step}; run again to go on {kept}")
        return ExitCode.STOPPED
