"""A worker: takes runs of a study, makes as many at once as it may, and goes on until nothing is left of it.

code = Worker(plan, queue, folder, jobs=2, stop=stop).run()
"""

import dataclasses
import math
import time
from pathlib import Path

from optuna.trial import TrialState

from convmixer_jax.errors import ExitCode
from convmixer_jax.runs.progress import duration, show, tell
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.studying.folder import FAILED, PRUNED, workdir, write_trial
from convmixer_jax.studying.plan import Plan
from convmixer_jax.studying.queue import Claim, Counts, Queue
from convmixer_jax.studying.storage import BEAT_SECONDS
from convmixer_jax.studying.trial import COMPLETE, End, Trial

LOOK_SECONDS = 0.2  # between two looks at the processes
ASK_SECONDS = 2.0  # between two questions of an idle worker


@dataclasses.dataclass
class Slot:
    """A run that is being made. reported: evaluations that the queue knows. hopeless: why it was pruned, or ""."""

    claim: Claim
    trial: Trial
    reported: int = 0
    hopeless: str = ""
    told: bool = False

    @property
    def name(self) -> str:
        """The run, for people."""
        return f"{self.claim.point.name} seed {self.claim.seed}"


class Worker:
    """jobs: runs at once."""

    def __init__(self, plan: Plan, queue: Queue, folder: Path, jobs: int, stop: StopRequest):
        self._plan, self._queue, self._folder, self._jobs, self._stop = plan, queue, folder, jobs, stop
        self._slots: list[Slot] = []
        self._failed: list[str] = []
        self._began, self._before = time.monotonic(), queue.counts().ended
        self._waits_for = 0

    def run(self) -> ExitCode:
        """Works until the study is done, or a signal comes. Raises RunAgainError where the storage is lost."""
        self._stop.defer()
        try:
            while not self._stop.requested:
                asked = self._take()
                if not asked and not self._slots:
                    if self._is_over():
                        return self._close()
                    self._sleep(ASK_SECONDS)
                self._look()
            return self._give_back()
        finally:
            for slot in self._slots:
                slot.trial.stop()

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.requested:
            time.sleep(LOOK_SECONDS)

    def _take(self) -> bool:
        """Fills the free slots; returns whether it got a run."""
        got = False
        while len(self._slots) < self._jobs and (claim := self._queue.claim()):
            place = workdir(self._folder, claim.point.name, claim.seed)
            arguments = self._plan.arguments(claim.point, claim.seed)
            self._slots.append(Slot(claim, Trial(place, arguments)))
            got = True
        return got

    def _is_over(self) -> bool:
        counts = self._queue.counts()
        if counts.running != self._waits_for and not counts.left:
            self._waits_for = counts.running
            if counts.running:
                tell(f"waiting for {counts.running} of other workers; a worker that is gone is noticed within a minute")
        return not (counts.running or counts.left)

    def _look(self) -> None:
        """Looks at all runs until one ends, a signal comes, or free slots should be tried again."""
        deadline = time.monotonic() + (BEAT_SECONDS if len(self._slots) == self._jobs else ASK_SECONDS)
        for slot in self._slots:
            self._queue.alive(slot.claim)
        while self._slots and time.monotonic() < deadline and not self._stop.requested:
            ended = [(slot, end) for slot in self._slots if (end := self._step(slot))]
            for slot, end in ended:
                self._end(slot, end)
            if ended:
                return
            time.sleep(LOOK_SECONDS)

    def _step(self, slot: Slot) -> End | None:
        end = slot.trial.look()
        if slot.trial.waits and end is None and not slot.told:
            tell(f"{slot.name}: a process of another worker still trains there; waiting for it")
            slot.told = True
        if slot.claim.prunes and self._plan.study.pruner != "none" and not slot.hopeless:
            self._report(slot, decide=end is None)
        return end

    def _report(self, slot: Slot, decide: bool) -> None:
        """Tells the queue of new evaluations; stops the run where they are hopeless, if there is still to decide."""
        curve = slot.trial.curve()
        for step, epoch, top1 in curve[slot.reported :]:
            slot.reported += 1
            if self._queue.report(slot.claim, math.ceil(epoch), top1) and decide:
                slot.hopeless = (
                    f"{self._plan.study.pruner}: val top1 {top1:.4f} at step {step} is not among the best so far"
                )
                slot.trial.stop()
                return

    def _end(self, slot: Slot, end: End) -> None:
        """Notes how a run ended, and says so."""
        self._slots.remove(slot)
        curve = [(step, top1) for step, _, top1 in slot.trial.curve()] if end.state != COMPLETE else []
        if end.state == COMPLETE and end.result is not None:
            # What is chosen by is the validation split wherever there is one.
            self._queue.finish(slot.claim, TrialState.COMPLETE, end.result.get("val_top1", end.result["top1"]))
            text = f"test top1 {end.result['top1']:.4f}"
        elif slot.hopeless:
            write_trial(slot.trial.workdir, PRUNED, slot.hopeless, curve)
            self._queue.finish(slot.claim, TrialState.PRUNED)
            text = f"pruned ({slot.hopeless})"
        elif end.state == FAILED:
            write_trial(slot.trial.workdir, FAILED, end.why, curve)
            self._queue.finish(slot.claim, TrialState.FAIL)
            self._failed.append(slot.name)
            text = f"failed: {end.why}"
        else:
            self._queue.put_back(slot.claim)
            return
        tell(self._line(slot, text, self._queue.counts()))

    def _line(self, slot: Slot, text: str, counts: Counts) -> str:
        """Returns the line of a run that ended, with the time left at the pace of all workers since this one began."""
        open_ = counts.left + counts.running
        pace = (time.monotonic() - self._began) / max(counts.ended - self._before, 1)
        return (
            f"{counts.ended}/{counts.ended + open_}: {slot.name}: {text} "
            f"[{time.monotonic() - slot.trial.began:.0f} s; {duration(pace * open_)} left]"
        )

    def _give_back(self) -> ExitCode:
        """Stops the runs of this worker, which save, and has them wait for the next one."""
        name = self._stop.received.name if self._stop.received else "a signal"
        tell(f"{name} received: {len(self._slots)} runs save and stop")
        for slot in self._slots:
            slot.trial.stop()
        stopped = 0
        while self._slots:
            for slot in list(self._slots):
                self._queue.alive(slot.claim)
                if end := slot.trial.look():
                    stopped += end.state not in (COMPLETE, FAILED)
                    self._end(slot, end)
            time.sleep(LOOK_SECONDS)
        tell(f"stopped: {stopped} runs wait in {self._folder}; run the same command again to go on")
        return ExitCode.STOPPED

    def _close(self) -> ExitCode:
        counts = self._queue.counts()
        refused = f"; {counts.refused} points were refused before they ran" if counts.refused else ""
        show(f"{self._plan.study.name}: {counts.ended} runs are done{refused}; all of it is in {self._folder}")
        if self._failed:
            show(f"{len(self._failed)} failed: {', '.join(self._failed)}; the same command tries them again")
            return ExitCode.CRASH
        return ExitCode.DONE
