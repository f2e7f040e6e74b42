"""The runs of a study that wait, one for each point and seed, shared by all of its workers.

    queue = Queue(plan, models, folder, url)
    claim = queue.claim()                       # None: nothing waits just now
    if queue.report(claim, epoch, top1): ...    # hopeless: to be stopped
    queue.finish(claim, TrialState.COMPLETE, 0.93)

Optuna keeps which run is in what state; every step that must not be made twice holds a lock in the study's folder,
which all workers see. What Optuna calls a trial is a run here.
"""

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import write_json
from convmixer_jax.studying.folder import RESULT_FILE, STUDY_FILE, workdir
from convmixer_jax.studying.models import Models, RefusedError
from convmixer_jax.studying.plan import RECIPE, Plan
from convmixer_jax.studying.record import check_runs, check_same, identity, make_record, read_study
from convmixer_jax.studying.samplers import PRUNERS, SAMPLERS, suggest
from convmixer_jax.studying.storage import POINT, default_url, held, lost, open_place, put_back, told_errors
from convmixer_jax.studying.study import Point, decoded, encode, make_point

MOST_REFUSED = 300  # points in a row that a sampler may ask for in vain
WAITING, RUNNING, COMPLETE = TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE
PRUNED, FAIL = TrialState.PRUNED, TrialState.FAIL
SEED, PARAMETERS = "seed", "parameters"  # attributes of a trial, beside POINT
Run = tuple[str, int]  # the name of a point, and a seed


@dataclasses.dataclass(frozen=True)
class Claim:
    """A run that this worker has to make. prunes: whether the study's pruner decides on it."""

    trial: optuna.Trial
    point: Point
    seed: int
    prunes: bool


@dataclasses.dataclass(frozen=True)
class Counts:
    """Runs that ended, that workers make now, that are still to be begun; and points that were refused."""

    ended: int
    running: int
    left: int
    refused: int


class Queue:
    """Opens the study, new or as it is. url: of the storage. Raises UserError."""

    def __init__(self, plan: Plan, models: Models, folder: Path, url: str):
        self._plan, self._models, self._folder, self._url = plan, models, folder, url
        self._exhausted = False
        with held(folder / ".lock"), told_errors(url):
            there = read_study(folder)
            check_same(plan, there, f"the study in {folder}")
            self._place = open_place(url, folder)
            epochs = plan.config(RECIPE).epochs
            sampler, pruner = SAMPLERS[plan.study.sampler](0), PRUNERS[plan.study.pruner](epochs)
            self._study = self._place.open_study(name_of(folder), sampler, pruner)
            self._number = self._join(there)
            check_runs(plan, folder, self._points())
            self._place.revive(self._study)
            self._fill(begun_again=True)

    def _join(self, there: dict[str, Any]) -> str:
        """Returns the number by which folder and storage know each other. there: what study.json holds."""
        plan, name = self._plan, name_of(self._folder)
        stored = self._study.user_attrs.get("made_with", {})
        check_same(plan, stored, f"the study {name!r} of --storage")
        if stored and not there and (self._url == default_url(self._folder) or self._has_runs()):
            there = stored  # study.json alone was lost
        if stored and stored["id"] != there.get("id"):
            raise UserError(
                f"--dir {self._folder} is not where the study {name!r} of --storage has its runs: all workers share "
                "one folder; name that one, or for a new study a folder of another name"
            )
        number: str = there.get("id") or uuid.uuid4().hex
        write_json(self._folder / STUDY_FILE, make_record(plan, self._points(), number))
        if not stored:
            self._study.set_user_attr("made_with", identity(plan) | {"id": number})
        return number

    def _has_runs(self) -> bool:
        """Whether a run that the storage knows is in the folder."""
        return any(workdir(self._folder, name, seed).is_dir() for name, seed in self._runs())

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the lock; what the storage raises here is no mistake of the user's."""
        with held(self._folder / ".lock"), lost(self._url):
            yield

    def _trials(self) -> list[FrozenTrial]:
        """Returns the trials that are runs, all but those that were refused."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if POINT in trial.user_attrs]

    def _runs(self) -> dict[Run, FrozenTrial]:
        """Returns the newest trial of each run of the plan, oldest first; earlier ones of a run were given up.

        There may be others, of a study that had more seeds or points once.
        """
        mine = {point.name for point in self._points()}
        runs: dict[Run, FrozenTrial] = {}
        for trial in self._trials():
            run = trial.user_attrs[POINT], trial.user_attrs[SEED]
            if run[0] in mine and run[1] in self._plan.seeds:
                runs.pop(run, None)
                runs[run] = trial
        return runs

    def _points(self) -> list[Point]:
        """Returns all points so far: those of the plan, then what was sampled."""
        points = {point.name: point for point in self._plan.points}
        for trial in self._trials() if self._plan.study.searches else ():
            name = trial.user_attrs[POINT]
            points.setdefault(name, make_point(self._plan.study, decoded(trial.user_attrs[PARAMETERS]), name))
        return list(points.values())

    def _wanted(self, runs: dict[Run, FrozenTrial]) -> list[tuple[Point, int]]:
        """Returns the runs that should be there: of a search the other seeds once the first one is complete."""
        first, *others = seeds = self._plan.seeds
        if not self._plan.study.searches:
            # Seed by seed: the whole comparison is there early.
            return [(point, seed) for seed in seeds for point in self._plan.points]
        points = self._points()
        well = [point for point in points if _state(runs, (point.name, first)) == COMPLETE]
        return [(point, first) for point in points] + [(point, seed) for seed in others for point in well]

    def _fill(self, begun_again: bool = False) -> None:
        """Adds the runs that should be there and are not.

        begun_again: those that failed, too, and those whose result was removed.
        """
        runs = self._runs()
        for point, seed in self._wanted(runs):
            state = _state(runs, (point.name, seed))
            gone = state == COMPLETE and not (workdir(self._folder, point.name, seed) / RESULT_FILE).exists()
            if state is None or (begun_again and (state == FAIL or gone)):
                searched = point.parameters if self._plan.study.searches else {}
                fixed = {field: encode(value) for field, value in searched.items()}
                self._study.enqueue_trial(fixed, user_attrs=_attributes(point, seed))

    def claim(self) -> Claim | None:
        """Returns a run to make; None where none waits and none is to be sampled."""
        with self._alone():
            self._place.revive(self._study)
            self._fill()
            waiting = [trial for trial in self._runs().values() if trial.state == WAITING]
            if not waiting:
                return self._sample() if self._may_sample() else None
            return self._claimed(self._place.take(self._study, waiting[0].number))

    def _claimed(self, trial: optuna.Trial) -> Claim:
        if self._plan.study.searches:
            suggest(trial, self._plan.study.axes)
        name, seed = trial.user_attrs[POINT], trial.user_attrs[SEED]
        point = next(point for point in self._points() if point.name == name)
        return Claim(trial, point, seed, prunes=not self._plan.study.searches or seed == self._plan.seeds[0])

    def _may_sample(self) -> bool:
        return self._plan.study.searches and not self._exhausted and len(self._points()) < self._plan.trials

    def _sample(self) -> Claim | None:
        """Returns the first run of a new point; None where the sampler finds none any more."""
        for _ in range(MOST_REFUSED):
            # Of the number of the trial: workers that begin at once would sample the same.
            count = len(self._study.get_trials(deepcopy=False))
            self._study.sampler = SAMPLERS[self._plan.study.sampler](count)
            trial = self._study.ask()
            self._place.alive(trial.number)
            point = make_point(self._plan.study, suggest(trial, self._plan.study.axes))
            if self._is_new(trial, point):
                for name, value in _attributes(point, self._plan.seeds[0]).items():
                    trial.set_user_attr(name, value)
                write_json(self._folder / STUDY_FILE, make_record(self._plan, self._points(), self._number))
                return Claim(trial, point, self._plan.seeds[0], prunes=True)
            self._place.done(trial.number)
        self._exhausted = True
        return None

    def _is_new(self, trial: optuna.Trial, point: Point) -> bool:
        """Whether a sampled point can be run and was not; else tells the sampler what came of it."""
        twin = self._runs().get((point.name, self._plan.seeds[0]))
        if twin is not None:
            trial.set_user_attr("twin", point.name)
            known = twin.state if twin.state in (COMPLETE, PRUNED) else FAIL
            self._study.tell(trial, twin.value if known == COMPLETE else None, known)
            return False
        try:
            self._models.require(point)
        except RefusedError as error:
            trial.set_user_attr("refused", str(error))
            trial.set_constraint("budget", error.excess)
            self._study.tell(trial, state=PRUNED)
            return False
        return True

    def alive(self, claim: Claim) -> None:
        """Gives a sign of life of a run."""
        with lost(self._url):
            self._place.alive(claim.trial.number)

    def report(self, claim: Claim, epoch: int, top1: float) -> bool:
        """Tells a score on the validation split; returns whether the run is hopeless."""
        if not claim.prunes:
            return False
        with lost(self._url):
            try:
                claim.trial.report(top1, epoch)
            except optuna.exceptions.UpdateFinishedTrialError:  # given up, while this worker was suspended
                return False
            # At its end there is nothing to save by stopping it.
            return epoch < self._plan.config(claim.point).epochs and claim.trial.should_prune()

    def finish(self, claim: Claim, state: TrialState, value: float | None = None) -> None:
        """Notes how a run ended. value: what the sampler is to make large, of a complete one."""
        with self._alone():
            self._study.tell(claim.trial, value, state, skip_if_finished=True)
            self._place.done(claim.trial.number)
            self._fill()

    def put_back(self, claim: Claim) -> None:
        """Has a run wait again, for this worker's next start or another's."""
        with self._alone():
            trial = next(each for each in self._trials() if each.number == claim.trial.number)
            if trial.state == RUNNING:
                self._study.tell(claim.trial, state=FAIL)
                put_back(self._study, trial)
            self._place.done(claim.trial.number)

    def counts(self) -> Counts:
        """Returns how far the study is."""
        with lost(self._url):
            runs = self._runs()
            trials = self._study.get_trials(deepcopy=False)
        refused = {str(trial.params) for trial in trials if "refused" in trial.user_attrs}
        states = [trial.state for trial in runs.values()]
        running, waiting = states.count(RUNNING), states.count(WAITING)
        left = waiting
        if self._plan.study.searches:
            unasked = 0 if self._exhausted else max(self._plan.trials - len(self._points()), 0)
            firsts = [trial for (_, seed), trial in runs.items() if seed == self._plan.seeds[0]]
            open_ = sum(trial.state in (WAITING, RUNNING) for trial in firsts)
            left += unasked * len(self._plan.seeds) + open_ * (len(self._plan.seeds) - 1)
        return Counts(len(runs) - running - waiting, running, left, len(refused))


def name_of(folder: Path) -> str:
    """Returns what a storage calls the study in a folder, however that is named: `.`, too, has a name."""
    return Path(os.path.abspath(folder)).name


def _state(runs: dict[Run, FrozenTrial], run: Run) -> TrialState | None:
    return runs[run].state if run in runs else None


def _attributes(point: Point, seed: int) -> dict[str, Any]:
    return {SEED: seed, PARAMETERS: dict(point.parameters), POINT: point.name}
