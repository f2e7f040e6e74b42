"""All trials of a crash test: which faults happen to which runs, the runs to compare with, and what came out.

campaign = Campaign(trials=100, seed=0, jobs=2, folder=Path("crashes"))
results = campaign.run(tell)
"""

import concurrent.futures
import contextlib
import itertools
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from convmixer_jax.crashing.contents import Contents, read_contents
from convmixer_jax.crashing.faults import FAULTS
from convmixer_jax.crashing.setups import SETUPS
from convmixer_jax.crashing.starts import Starts
from convmixer_jax.crashing.trials import DEADLINE_S, Order, Trial, run_trial
from convmixer_jax.runs.progress import duration

PAIR_EVERY = 3  # trials, of which one has two processes
MOST_KINDS = 3  # faults of a trial


class UndisturbedError(Exception):
    """The runs to compare with are not as they must be, so nothing can be found out."""


def make_orders(trials: int, seed: int) -> list[Order]:
    """Returns what each trial is to do: every kind of fault comes first in a trial before one does so again."""
    draws = random.Random(f"{seed} orders")
    turns = {name: _turns(name, draws) for name in SETUPS}
    orders = []
    for number in range(trials):
        setup = "pair" if number % PAIR_EVERY == PAIR_EVERY - 1 else "alone"
        kinds = [name for name, fault in FAULTS.items() if setup in fault.setups]
        more = draws.choices(kinds, k=draws.randrange(MOST_KINDS))
        orders.append(Order(number, seed, (next(turns[setup]), *more), setup))
    return orders


def _turns(setup: str, draws: random.Random) -> Iterator[str]:
    """Yields the kinds of faults of a setup, for ever, each as often as the others."""
    kinds = [name for name, fault in FAULTS.items() if setup in fault.setups]
    return itertools.chain.from_iterable(draws.sample(kinds, len(kinds)) for _ in itertools.repeat(None))


class Campaign:
    """folder: for all runs; that of a trial that passes is removed. jobs: trials at once."""

    def __init__(self, trials: int, seed: int, jobs: int, folder: Path, only: int | None = None):
        """Takes what is to be done. only: the number of the one trial to repeat; None for all."""
        self.orders = [each for each in make_orders(trials, seed) if only in (None, each.number)]
        self.jobs, self.folder = jobs, folder
        # The same update of every run.
        nan_step = random.Random(f"{seed} nan").randrange(10, min(setup.steps for setup in SETUPS.values()))
        self.starts = Starts(nan_step, home=folder)
        self._began = time.monotonic()

    def run(self, say: Callable[[str], None]) -> list[Trial]:
        """Makes all trials; returns them by number. say: takes a line for a person. Raises UndisturbedError."""
        trials: list[Trial] = []
        with self._pool() as pool:
            names = sorted({order.setup for order in self.orders})
            spoilt = f"the images of update {self.starts.nan_step} are NaN"
            say(f"undisturbed runs to compare with: {', '.join(names)}; {spoilt}")
            undisturbed = dict(zip(names, pool.map(self._undisturbed, names), strict=True))
            asked = [pool.submit(self._trial, order, undisturbed[order.setup]) for order in self.orders]
            for done in concurrent.futures.as_completed(asked):
                trials.append(done.result())
                say(self._line(trials[-1], len(trials)))
        return sorted(trials, key=lambda trial: trial.order.number)

    @contextlib.contextmanager
    def _pool(self) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
        pool = concurrent.futures.ThreadPoolExecutor(self.jobs)
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self.starts.end_all()
            raise
        pool.shutdown()

    def _undisturbed(self, name: str) -> Contents:
        folder = self.folder / f"undisturbed-{name}"
        start = self.starts.begin(SETUPS[name], folder / "run", folder / "start-1")
        try:
            codes = start.wait(DEADLINE_S)
        except TimeoutError as error:
            raise UndisturbedError(f"the undisturbed run in {folder} did not end within {DEADLINE_S:g} s") from error
        finally:
            start.end()
        if any(codes):
            raise UndisturbedError(f"the undisturbed run in {folder} ended with {codes}")
        contents = read_contents(folder / "run")
        if contents.step != SETUPS[name].steps:
            raise UndisturbedError(
                f"the undisturbed run in {folder} made {contents.step} updates, not as its setup says"
            )
        skipped = sum(row.get("train/skipped_updates", 0) for row in contents.rows)
        if skipped != 1:
            raise UndisturbedError(f"the undisturbed run in {folder} skipped {skipped} updates, not the one of the NaN")
        return contents

    def _trial(self, order: Order, undisturbed: Contents) -> Trial:
        folder = self.folder / f"trial-{order.number}"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier time
        trial = run_trial(order, folder, undisturbed, self.starts)
        if not trial.problems:
            shutil.rmtree(folder)
        return trial

    def _line(self, trial: Trial, done: int) -> str:
        total = len(self.orders)
        left = duration((time.monotonic() - self._began) / done * (total - done))
        kinds = ", ".join(event.kind + ("" if event.happened else " (nothing happened)") for event in trial.events)
        verdict = "; ".join(trial.problems) or "as if nothing had happened"
        return (
            f"{done}/{total}: trial {trial.order.number} ({trial.order.setup}): {kinds}: {verdict} "
            f"[{trial.starts} starts, {trial.seconds:.0f} s; {left} left]"
        )
