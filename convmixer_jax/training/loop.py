"""The training loop: what happens after which update.

Updates go to the devices several at a time, never past one after which something is due. A step number counts
completed updates (skipped ones included): report, evaluation and checkpoint n all describe the state after n updates.
After update n the order is: report, evaluate, save, then look whether a signal asks to stop. Metrics are fetched late,
so that the device never waits for the host.
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
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.clock import RunClock, Timeline
from convmixer_jax.runs.metrics_log import MetricsLog
from convmixer_jax.runs.progress import Progress
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.training.assembly import Experiment
from convmixer_jax.training.capacity import evaluation_mistakes
from convmixer_jax.training.dispatch import next_batches
from convmixer_jax.training.evaluate import evaluate_state
from convmixer_jax.training.mesh import replicated
from convmixer_jax.training.metrics import TrainSums
from convmixer_jax.training.pace import Pace, updates_until_due
from convmixer_jax.training.reports import Reports
from convmixer_jax.training.state import TrainState, to_tree

# Dispatches that may be under way at once: one runs while the next is handed over, and no more pile up.
IN_FLIGHT = 2


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
        *,
        checkpoints: Checkpoints,
        log: MetricsLog | None,
        progress: Progress,
        clock: RunClock,
        stop: StopRequest,
        timeline: Timeline,
        history: dict[str, Any],
    ):
        """Takes everything ready.

        program: the experiment's dispatch. evaluations: by split, the one evaluated while training first. log: None on
        all processes but the first. history: what a checkpoint's meta carries of the run so far: train_top1 (of the
        last whole epoch) and best.
        """
        self.experiment, self.config = experiment, experiment.config
        self.program, self.state, self.source, self.evaluations = program, state, source, evaluations
        self.checkpoints, self.log, self.progress, self.clock, self.stop = checkpoints, log, progress, clock, stop
        self.timeline = timeline
        self.train_top1: float | None = history.get("train_top1")
        self.best: dict[str, Any] | None = history.get("best")
        self.results: dict[str, dict[str, Any]] = {}  # the newest evaluation of each split
        self.step = int(state.step)
        self.reports = Reports(
            log,
            progress,
            clock,
            batch_size=self.config.batch_size,
            steps_per_epoch=experiment.steps_per_epoch,
            step=self.step,
        )
        self.pace = Pace(experiment.plan.capacity, measured=self.config.steps_per_dispatch == 0)
        self._updates_at_once = self.pace.wanted
        self._told_failures: set[int] = set()
        self._epoch_sums: TrainSums | None = None
        self._sent: collections.deque[Sent] = collections.deque()

    @property
    def done(self) -> bool:
        """Whether the last update was made."""
        return self.step == self.experiment.total_steps

    def run(self) -> ExitCode:
        """Trains from the state's step to the end.

        Returns DONE; STOPPED after a signal; UNSAVED where the save of the last state failed. Raises UserError where
        data cannot be read, having saved.
        """
        self.stop.defer()
        self.clock.start_updates()
        try:
            return self._run()
        except UserError:
            self._keep_what_is_done()
            raise

    def _run(self) -> ExitCode:
        while not self.done:
            if self._should_stop():
                return self._stop()
            self._update()
            val_top1 = self._end_epoch() if self.step % self.experiment.steps_per_epoch == 0 else None
            is_best = val_top1 is not None and self.best is not None and self.best["step"] == self.step
            if self.step % self.config.checkpoint_every_steps == 0 or self.done or is_best:
                self._save(val_top1)
            self._tell_failures()
        return ExitCode.DONE if self._is_saved() else ExitCode.UNSAVED

    def _keep_what_is_done(self) -> None:
        """Saves the state where data could not be read, so that the run goes on from here once they can be."""
        if jax.process_count() > 1 or not self.step or self.checkpoints.saved == self.step:
            return  # of several processes one may be alone with its trouble, and a save needs all of them
        self._save()
        if self._is_saved():
            self.progress.say(f"saved step {self.step} before stopping")

    def _should_stop(self) -> bool:
        """Whether a signal has come.

        Several processes agree on it, and on the updates of a dispatch, or they would wait for each other. They do so
        at reports: it makes them wait for their devices.
        """
        if jax.process_count() == 1:
            self._updates_at_once = self.pace.wanted
            return self.stop.requested
        if self.step % self.config.report_every_steps:
            return False
        stop, wanted = multihost_utils.process_allgather(np.asarray([self.stop.requested, self.pace.wanted])).T
        self._updates_at_once = int(wanted.min())
        return bool(stop.any())

    def _update(self) -> None:
        """Hands the next updates to the devices; waits only for earlier ones."""
        experiment, config = self.experiment, self.config
        due = config.report_every_steps, config.checkpoint_every_steps, experiment.steps_per_epoch
        count = min(self._updates_at_once, updates_until_due(self.step, experiment.total_steps, *due))
        with self.clock.waiting_for_input():
            batches = next_batches(experiment.inputs, self.source, self.step, count, experiment.plan)
        seed = np.uint32(config.seed)
        self.state, watch = self.program(self.state, seed, self.source.data, batches, np.int32(count))
        self.step += count
        self._sent.append(Sent(self.step, count, watch, self._take_report()))
        first = "first update" not in self.timeline.parts
        if first:
            jax.block_until_ready(watch)
            self.timeline.mark("first update")
            self.progress.say(f"start-up: {self.timeline}")
        self._look_late(0 if first else IN_FLIGHT)
        self.progress.advance(count)

    def _look_late(self, unseen: int) -> None:
        """Waits until so many dispatches are left to look at; writes the reports of the others.

        Stops the run where too many updates in a row were skipped.
        """
        diverged = None
        while len(self._sent) > unseen:
            sent = self._sent.popleft()
            seen = jax.device_get(sent.watch)
            self.pace.completed(sent.updates, self.clock.step_seconds)
            if sent.sums is not None:
                self.reports.write(sent.step, sent.sums, float(seen["learning_rate"]))
            if diverged is None and seen["skipped_in_a_row"] >= self.config.max_skipped_steps:
                diverged, unseen = seen, 0
        if diverged is not None:
            self.checkpoints.confirm()
            raise DivergedError(self._divergence(int(diverged["step"]), int(diverged["skipped_in_a_row"])))

    def _divergence(self, step: int, skipped: int) -> str:
        # A checkpoint made within this row of skipped updates holds weights that no update can be made from.
        good = max((saved for saved in self.checkpoints.steps() if saved <= step - skipped), default=None)
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

    def _end_epoch(self) -> float | None:
        """Takes the epoch's sums; evaluates where it is due. Returns the validation top-1 where there is one."""
        self._epoch_sums = self.state.epoch
        self.state = self.state.replace(epoch=self._zeros_like(self.state.epoch))
        epoch = self.step // self.experiment.steps_per_epoch
        if epoch % self.config.eval_every_epochs and not self.done:
            return None
        self._settle()
        with self.clock.pause():
            for split in self.evaluations if self.done else [self.experiment.eval_split]:
                self.reports.write_evaluation(self.step, split, self.evaluate(split))
        if self.experiment.eval_split == "test":
            return None
        val_top1 = self.results["val"]["top1"]
        if self.best is None or val_top1 >= self.best["val_top1"]:
            self.best = {"val_top1": val_top1, "step": self.step}
        return val_top1

    def evaluate(self, split: str) -> dict[str, Any]:
        """Evaluates the current state on a split and keeps the result in `results`."""
        experiment, source = self.experiment, self.evaluations[split]
        with evaluation_mistakes(experiment.eval_batch_size, self.config.input):
            self.results[split] = evaluate_state(
                experiment.eval_step, self.state, self.config.eval_params, source, experiment.sizes[split]
            )
        return self.results[split]

    def meta(self) -> dict[str, Any]:
        """Returns what a checkpoint carries beside its arrays: step, config digest, history and seconds."""
        if self._epoch_sums is not None:
            self.train_top1, self._epoch_sums = self._epoch_sums.means()["train/top1"], None
        return {
            "step": self.step,
            "config_digest": digest(self.config),
            "train_top1": self.train_top1,
            "best": self.best,
            "seconds": self.clock.seconds,
            "step_seconds": self.clock.step_seconds,
        }

    def _save(self, val_top1: float | None = None) -> None:
        """Starts to save the state. Rows up to it are on disk before, so that a resumed run misses none."""
        self._settle()
        with self.clock.pause():
            if self.log:
                self.log.flush()
            self.checkpoints.save(self.step, to_tree(self.state), self.meta(), val_top1)

    def _tell_failures(self) -> None:
        """Says at once where a save has failed; the run goes on."""
        self.checkpoints.confirm_if_finished()
        for step in sorted(self.checkpoints.failures.keys() - self._told_failures):
            self._told_failures.add(step)
            self.progress.say(f"warning: checkpoint {step} could not be saved: {self.checkpoints.failures[step]}")

    def _is_saved(self) -> bool:
        """Waits for the save under way and returns whether the current state is saved."""
        self._settle()
        with self.clock.pause():
            self.checkpoints.confirm()
        self._tell_failures()
        return self.checkpoints.saved == self.step

    def _stop(self) -> ExitCode:
        """Saves the state, unless that is done or there is nothing to save yet, and waits for it."""
        name = self.stop.received.name if self.stop.received else "a signal to another process"
        self.progress.say(f"{name} received: " + (f"saving step {self.step}" if self.step else "nothing to save yet"))
        if self.step and not self._is_saved():
            self._save()
            if not self._is_saved():
                kept = "from the start" if self.checkpoints.saved is None else f"from step {self.checkpoints.saved}"
                self.progress.say(f"warning: stopped without saving step {self.step}; run again to go on {kept}")
        return ExitCode.STOPPED
