"""One trial: a run that faults happen to, start after start, until it is done; then it is compared to the bit.

trial = run_trial(Order(7, seed=0, kinds=("SIGKILL", "bit flip"), setup="alone"), folder, undisturbed, starts)
trial.problems                  # [] where it passed
"""

import dataclasses
import random
import shutil
import time
from pathlib import Path
from typing import Any

from convmixer_jax.crashing.contents import Contents, damage, differences, read_contents
from convmixer_jax.crashing.damage import Damage
from convmixer_jax.crashing.faults import FAULTS, FULL, LOST, SUSPENDED_A_WHILE, Happened, wrong_codes
from convmixer_jax.crashing.setups import GRACE_SECONDS, SETUPS, Setup
from convmixer_jax.crashing.starts import Start, Starts
from convmixer_jax.errors import ExitCode
from convmixer_jax.runs import steps
from convmixer_jax.runs.ledger import ledger_path, read_starts

DEADLINE_S = 400.0  # of one start: whatever hangs is ended by its watchdog long before
ALL_LOST = "no checkpoint in "  # begins the message of a run whose checkpoints are all damaged
MOST_STARTS = 3  # without a fault, until the run is done; one is enough, unless all checkpoints are lost


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be done. number, seed: decide all draws. kinds: rows of FAULTS. setup: a row of SETUPS."""

    number: int
    seed: int
    kinds: tuple[str, ...]
    setup: str


@dataclasses.dataclass
class Event:
    """A fault, and how its start (counted from 1) ended.

    seconds: from the fault to the end of the last process. lost: updates that the next start made again, None where
    that is not known. noticed: whether the run, or a look at its checkpoints, told of it.
    """

    start: int
    kind: str
    moment: str
    happened: bool
    codes: list[int]
    seconds: float | None
    noticed: bool
    damage: str | None = None
    lost: int | None = None


@dataclasses.dataclass
class Trial:
    """events: what happened. problems: what should not have been. seconds: of all of it."""

    order: Order
    events: list[Event] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return dataclasses.asdict(self)


class Disturbed:
    """A run under way in `folder`/run; what its processes say is beside it."""

    def __init__(self, order: Order, folder: Path, starts: Starts):
        self.folder, self._starts = folder, starts
        self.setup: Setup = SETUPS[order.setup]
        self.workdir, self.checkpoints = folder / "run", folder / "run" / "checkpoints"
        self.trial = Trial(order)
        self.damaged: dict[int, str] = {}  # by step, what was damaged and must be set aside
        self.began: list[float] = []

    def start(self) -> Start:
        """Begins the next start."""
        self.trial.starts += 1
        start = self._starts.begin(self.setup, self.workdir, self.folder / f"start-{self.trial.starts}")
        self.began.append(start.began)
        return start

    def wrong(self, problem: str) -> None:
        """Notes a problem of the start under way."""
        self.trial.problems.append(f"start {self.trial.starts}: {problem}")

    def saved(self) -> int:
        """Returns the newest durable step, 0 for none."""
        return max((step.number for step in steps.durable(steps.read_steps(self.checkpoints))), default=0)

    def disturb(self, kind: str, draws: random.Random) -> bool:
        """Makes one start that something happens to; returns whether the run can be gone on with."""
        fault, start = FAULTS[kind], self.start()
        try:
            happened = fault.happen(start, self.saved(), draws)
            codes = start.wait(DEADLINE_S)
        except TimeoutError:
            self.wrong(f"did not end within {DEADLINE_S:g} s of {kind}")
            return False
        finally:
            start.end()
        if self._begins_again(codes, start):
            return self.disturb(kind, draws)
        seconds = None if happened.at is None else max(start.ended.values()) - happened.at
        moment, hit = str(happened.moment), happened.at is not None
        event = Event(self.trial.starts, kind, moment, hit, codes, seconds, noticed=any(codes))
        self.trial.events.append(event)
        problem = wrong_codes(self.setup, fault, happened, codes)
        if problem:
            self.wrong(f"{problem} ({kind} {happened.moment})")
        if happened.at is None:
            return any(codes)
        self._look(event, happened, start)
        if fault.damage is not None and any(codes):
            self._damage(event, fault.damage, draws)
        return any(codes)

    def _look(self, event: Event, happened: Happened, start: Start) -> None:
        """Notes whether the run told of the fault, and in time."""
        said = start.said()
        if event.kind == FULL:
            event.noticed = event.happened = event.noticed or "could not be saved" in said  # else nothing was written
        if event.kind == SUSPENDED_A_WHILE:
            event.noticed = True  # there is nothing to tell
        gentle = set(event.codes) <= {ExitCode.STOPPED}
        if gentle and event.seconds is not None and event.seconds > GRACE_SECONDS:
            self.wrong(
                f"{event.seconds:.1f} s from {event.kind} to the end, config.stop_grace_seconds: {GRACE_SECONDS}"
            )
        if "Traceback" in said and event.kind != FULL and not LOST & set(event.codes):
            self.wrong(f"a traceback after {event.kind} {happened.moment}")

    def _damage(self, event: Event, do: Damage, draws: random.Random) -> None:
        """Damages a durable step, mostly the newest; looks whether that is found."""
        durable = [step.number for step in steps.durable(steps.read_steps(self.checkpoints))]
        if not durable:
            event.happened = False
            return
        number = durable[-1] if draws.random() < 0.7 else draws.choice(durable)
        event.damage = f"checkpoint {number}: " + do(self.checkpoints / str(number), draws)
        found = damage(self.checkpoints)
        event.noticed = number in found
        if not event.noticed:
            self.wrong(f"not found: {event.damage}")
        if number == durable[-1]:
            self.damaged[number] = event.damage

    def go_on(self) -> bool:
        """Starts the run until it is done, undisturbed; returns whether it is."""
        for _ in range(MOST_STARTS):
            start = self.start()
            try:
                codes = start.wait(DEADLINE_S)
            except TimeoutError:
                self.wrong(f"did not end within {DEADLINE_S:g} s, undisturbed")
                return False
            finally:
                start.end()
            if not any(codes):
                return True
            if not self._begins_again(codes, start):
                self.wrong(f"exit codes {codes} of a start that nothing happened to")
                return False
        return False

    def _begins_again(self, codes: list[int], start: Start) -> bool:
        """Whether the start refused to go on since all checkpoints are lost; then does as its message says.

        One that refuses without having set any aside is no such start: it would refuse again and again.
        """
        aside = self.checkpoints / steps.QUARANTINE
        if ExitCode.USER_MISTAKE not in codes or ALL_LOST not in start.said() or not aside.is_dir():
            return False
        self.check_set_aside()
        shutil.rmtree(aside)
        return True

    def check_set_aside(self) -> None:
        """The newest step was damaged, so a start has looked at it: it must be in quarantine, and not lost."""
        aside = [folder.name for folder, _ in steps.quarantined(self.checkpoints)]
        for number, what in self.damaged.items():
            if not any(name.startswith(f"{number}-") for name in aside):
                self.wrong(f"not set aside: {what}")
        self.damaged.clear()

    def check_lost(self) -> None:
        """Notes for each fault how many updates were made again, and whether those are more than may be."""
        ledger = read_starts(ledger_path(self.workdir, 0))
        every = self.setup.checkpoint_every_steps
        for event in self.trial.events:
            if event.start == len(self.began):
                continue  # nothing came after it
            began, next_began = self.began[event.start - 1], self.began[event.start]
            of = [start for start in ledger if began <= start.began < next_began]
            after = [start.step for start in ledger if start.began >= next_began and start.step is not None]
            made = [line.step for start in of for line in start.lines if line.step is not None]
            if not made or not after or event.damage:
                continue
            event.lost = max(max(made) - after[0], 0)
            # A save begins only when the one before is durable, so at most two intervals were made in vain.
            most = 0 if set(event.codes) == {ExitCode.STOPPED} else 2 * every
            if event.lost > most and event.kind != FULL:
                self.wrong(f"{event.lost} updates were lost by {event.kind}, at most {most} may be")


def run_trial(order: Order, folder: Path, undisturbed: Contents, starts: Starts) -> Trial:
    """Runs a trial in `folder`, which is made. undisturbed: what the run must come to."""
    began, disturbed = time.monotonic(), Disturbed(order, folder, starts)
    draws = random.Random(f"{order.seed} {order.number}")
    trial = disturbed.trial
    for kind in order.kinds:
        if not disturbed.disturb(kind, draws):
            break
    if disturbed.go_on():
        disturbed.check_set_aside()
        disturbed.check_lost()
        try:
            trial.problems += differences(read_contents(disturbed.workdir), undisturbed)
        except (steps.DamagedError, OSError, ValueError) as error:
            trial.problems.append(f"the finished run cannot be read: {error}")
    trial.seconds = time.monotonic() - began
    return trial
