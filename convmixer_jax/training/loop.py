"""The training loop: what happens after which update.

A step number counts completed updates (skipped ones included): report, evaluation and checkpoint n all describe the
state after n updates. After update n the order is: report, evaluate, save, then look whether a signal asks to stop.
Metrics are fetched late, so that the device never waits for the host.
"""

import collections
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
from convmixer_jax.training.evaluate import evaluate_state
from convmixer_jax.training.mesh import replicated
from convmixer_jax.training.metrics import TrainSums
from convmixer_jax.training.state import TrainState, to_tree

# Updates that may be under way at once: one runs while the next is handed over, and no more pile up.
IN_FLIGHT = 2


class DivergedError(RuntimeError):
    """Too many updates in a row had a non-finite loss or gradient."""


class Loop:
    """One start of a run, from the state it begins with to the last update, a signal or divergence."""

    def __init__(
        self,
        experiment: Experiment,
        train_step: jax.stages.Compiled,
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

        evaluations: by split, the one evaluated while training first. log: None on all processes but the first.
        history: what a checkpoint's meta carries of the run so far: train_top1 (of the last whole epoch) and best.
        """
        self.experiment, self.config = experiment, experiment.config
        self.train_step, self.state, self.source, self.evaluations = train_step, state, source, evaluations
        self.checkpoints, self.log, self.progress, self.clock, self.stop = checkpoints, log, progress, clock, stop
        self.timeline = timeline
        self.train_top1: float | None = history.get("train_top1")
        self.best: dict[str, Any] | None = history.get("best")
        self.results: dict[str, dict[str, Any]] = {}  # the newest evaluation of each split
        self.step = self._reported_step = int(state.step)
        self._told_failures: set[int] = set()
        self._epoch_sums: TrainSums | None = None
        self._pending: collections.deque[tuple[dict[str, Any], TrainSums, jax.Array]] = collections.deque()
        self._watched: collections.deque[dict[str, jax.Array]] = collections.deque()

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
            if self.step % self.config.report_every_steps == 0 or self.done:
                self._report()
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
        """Whether a signal has come; several processes agree on it, at reports, or they would wait for each other."""
        if jax.process_count() == 1:
            return self.stop.requested
        at_report = self.step % self.config.report_every_steps == 0
        return at_report and bool(multihost_utils.process_allgather(np.asarray(self.stop.requested)).any())

    def _update(self) -> None:
        """Makes the next update; waits only for earlier ones."""
        with self.clock.waiting_for_input():
            batch = self.source.batch(self.step)
        seed = np.uint32(self.config.seed)
        self.state, watch = self.train_step(self.state, seed, self.source.data, batch)
        if "first update" not in self.timeline.parts:
            jax.block_until_ready(watch)
            self.timeline.mark("first update")
            self.progress.say(f"start-up: {self.timeline}")
        self.step += 1
        self._look_late(watch)
        self.progress.advance()

    def _look_late(self, watch: dict[str, jax.Array]) -> None:
        """Waits for the update before the last and stops the run where too many in a row were skipped."""
        self._watched.append(watch)
        if len(self._watched) <= IN_FLIGHT:
            return
        seen = jax.device_get(self._watched.popleft())
        if seen["skipped_in_a_row"] >= self.config.max_skipped_steps:
            self._write_reports()
            self.checkpoints.confirm()
            raise DivergedError(self._divergence(int(seen["step"]), int(seen["skipped_in_a_row"])))

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

    def _report(self) -> None:
        """Takes the sums out of the state and queues their row; writes the row before, which is surely ready."""
        sums = self.state.report
        self.state = self.state.replace(report=self._zeros_like(sums))
        seconds, waited = self.clock.lap()
        images = self.config.batch_size * (self.step - self._reported_step)
        self._reported_step = self.step
        row = {
            "step": self.step,
            "epoch": self.step / self.experiment.steps_per_epoch,
            "perf/images_per_sec": images / seconds,
            "perf/input_wait": waited / seconds,
        }
        self._write_reports()
        self._pending.append((row, sums, self._watched[-1]["learning_rate"]))

    def _write_reports(self) -> None:
        """Writes the queued rows; waits for their updates."""
        while self._pending:
            row, sums, rate = self._pending.popleft()
            row |= sums.means() | {"schedule/learning_rate": float(rate)}
            if self.log:
                self.log.write(row)
            self.progress.report(row)
            if row["train/skipped_updates"]:
                self.progress.say(
                    f"warning: {row['train/skipped_updates']} updates up to step {row['step']} were skipped: "
                    "their loss or gradient was not finite"
                )

    def _settle(self) -> None:
        """Waits for all updates, so that a pause which follows holds none of their time, and writes their rows."""
        jax.block_until_ready(self.state)
        self._write_reports()

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
                self._log_evaluation(split)
        if self.experiment.eval_split == "test":
            return None
        val_top1 = self.results["val"]["top1"]
        if self.best is None or val_top1 >= self.best["val_top1"]:
            self.best = {"val_top1": val_top1, "step": self.step}
        return val_top1

    def evaluate(self, split: str) -> dict[str, Any]:
        """Evaluates the current state on a split and keeps the result in `results`."""
        experiment, source = self.experiment, self.evaluations[split]
        self.results[split] = evaluate_state(
            experiment.eval_step, self.state, self.config.eval_params, source, experiment.sizes[split]
        )
        return self.results[split]

    def _log_evaluation(self, split: str) -> None:
        result = self.evaluate(split)
        row = {"step": self.step, "epoch": self.step / self.experiment.steps_per_epoch, "eval/split": split}
        scores = {name: value for name, value in result.items() if name != "per_class"}
        row |= {f"eval/{name}": value for name, value in scores.items()}
        if self.log:
            self.log.write(row)
        self.progress.say(
            f"step {self.step}  epoch {row['epoch']:.0f}  {split} split, {result['n']} images: "
            + "  ".join(f"{name} {value:.4f}" for name, value in scores.items() if name != "n")
        )

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
