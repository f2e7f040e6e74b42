"""Rows of metrics, and how they are told.

reports = Reports(log, progress, clock, batch_size=512, steps_per_epoch=97, step=0)
reports.write(50, sums, learning_rate)
reports.write_evaluation(97, "test", result)
"""

from collections.abc import Callable
from typing import Any

from convmixer_jax.runs.clock import RunClock
from convmixer_jax.runs.metrics_log import MetricsLog
from convmixer_jax.runs.progress import Progress
from convmixer_jax.training.metrics import TrainSums


class Reports:
    """Writes rows to the log and shows them. log: None on all processes but the first."""

    def __init__(
        self,
        log: MetricsLog | None,
        progress: Progress,
        clock: RunClock,
        *,
        batch_size: int,
        steps_per_epoch: int,
        step: int,
        replaced: Callable[[range], int] | None = None,
    ):
        """step: where this start goes on from. replaced: from updates to bad examples in them; None if none may be."""
        self.log, self.progress, self.clock = log, progress, clock
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self._last_step, self._replaced = step, replaced

    def write(self, step: int, sums: TrainSums, learning_rate: float) -> None:
        """Writes the row of training at `step`. sums: of the updates since the row before.

        To be called as soon as these updates are known to have ended: the seconds since the call before are theirs.
        """
        seconds, waited = self.clock.lap()
        updates = range(self._last_step, step)
        self._last_step = step
        row = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "perf/images_per_sec": self.batch_size * len(updates) / seconds,
            "perf/input_wait": waited / seconds,
            **({"perf/replaced_examples": self._replaced(updates)} if self._replaced else {}),
            **sums.means(),
            "schedule/learning_rate": learning_rate,
        }
        if self.log:
            self.log.write(row)
        self.progress.report(row)
        if row["train/skipped_updates"]:
            self.progress.say(
                f"warning: {row['train/skipped_updates']} updates up to step {step} were skipped: "
                "their loss or gradient was not finite"
            )

    def write_failed_save(self, step: int, reason: str) -> None:
        """Writes the row of a checkpoint of `step` that could not be saved, and warns."""
        row = {"step": step, "epoch": step / self.steps_per_epoch, "save/failed": 1, "save/reason": reason}
        if self.log:
            self.log.write(row)
        self.progress.say(f"warning: checkpoint {step} could not be saved: {reason}")

    def write_evaluation(self, step: int, split: str, result: dict[str, Any]) -> None:
        """Writes the row of an evaluation at `step`. result: as `evaluate_state` returns it."""
        row = {"step": step, "epoch": step / self.steps_per_epoch, "eval/split": split}
        scores = {name: value for name, value in result.items() if name != "per_class"}
        row |= {f"eval/{name}": value for name, value in scores.items()}
        if self.log:
            self.log.write(row)
        self.progress.say(
            f"step {step}  epoch {row['epoch']:.0f}  {split} split, {result['n']} images: "
            + "  ".join(f"{name} {value:.4f}" for name, value in scores.items() if name != "n")
        )
