"""What happens to a start of a run, and how it must end then.

    fault = FAULTS["SIGKILL"]
    happened = fault.happen(start, saved=120, draws=random.Random(1))
    wrong_codes(start.setup, fault, happened, start.wait(180))        # None

Faults that damage checkpoints, a row for each of DAMAGES, begin with a kill: what is damaged then lies still.
"""

import dataclasses
import random
import signal
import time
from collections.abc import Callable

from convmixer_jax.crashing.damage import DAMAGES, Damage
from convmixer_jax.crashing.moments import Moment, draw_moment
from convmixer_jax.crashing.setups import Setup
from convmixer_jax.crashing.starts import Start
from convmixer_jax.errors import ExitCode

DONE, UNSAVED, STOPPED, STUCK = ExitCode.DONE, ExitCode.UNSAVED, ExitCode.STOPPED, ExitCode.STUCK
# Of a process that lost another: our watchdog's, or the abort of JAX's runtime, where that is quicker.
LOST = frozenset({STUCK, -signal.SIGABRT})
LONGEST_SUSPENSION_S = 3.0
LONGEST_FULL_S = 2.0
LONGEST_BEFORE_SECOND_S = 0.3
MISSED_WITHIN_S = 60.0  # how long the others may wait for a process that is suspended
# Faults of which trials expect something of their own.
FULL, SUSPENDED_A_WHILE = "full disk", "suspended a while"


@dataclasses.dataclass(frozen=True)
class Happened:
    """moment: as it was drawn. to: the processes. at: of the monotonic clock; None where the start ended before.

    step: updates that had been made by then, at least. problem: what was wrong already while it happened.
    """

    moment: Moment
    to: tuple[int, ...]
    at: float | None
    step: int = 0
    problem: str | None = None


Happen = Callable[[Start, int, random.Random], Happened]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row of FAULTS. happen: does it to a start that goes on from an update.

    hit, others: exit codes of the processes that it happens to, and of the others. damage: what is done to a checkpoint
    afterwards. setups: rows of SETUPS.
    """

    happen: Happen
    hit: frozenset[int]
    others: frozenset[int]
    damage: Damage | None = None
    setups: tuple[str, ...] = ("alone", "pair")


def _send(numbers: list[signal.Signals], where: str = "any", at_most: int | None = None) -> Happen:
    """Returns what sends the signals, one after the other, to random processes, `at_most` so many (None: to all)."""

    def happen(start: Start, saved: int, draws: random.Random) -> Happened:
        count = len(start.processes)
        to = tuple(sorted(draws.sample(range(count), draws.randint(1, at_most or count))))
        moment = draw_moment(draws, start, saved, where)
        pauses = [0.0, *(draws.uniform(0, LONGEST_BEFORE_SECOND_S) for _ in numbers[1:])]
        if not moment.wait(start):
            return Happened(moment, to, None)
        at, step = time.monotonic(), start.step() or saved
        for number, pause in zip(numbers, pauses, strict=True):
            time.sleep(pause)
            for index in to:
                start.send(index, number)
        return Happened(moment, to, at, step)

    return happen


def _hang(start: Start, saved: int, draws: random.Random) -> Happened:
    """Makes the main thread of a process wait for ever, once updates are made."""
    index, moment = draws.randrange(len(start.processes)), draw_moment(draws, start, saved, "update")
    if not moment.wait(start):
        return Happened(moment, (index,), None)
    step = start.step() or saved
    return Happened(moment, (index,), start.send(index, signal.SIGUSR1), step)


def _suspend_one(start: Start, saved: int, draws: random.Random) -> Happened:
    """Suspends a process; the others must not wait for it."""
    index, moment = draws.randrange(len(start.processes)), draw_moment(draws, start, saved, "update")
    if not moment.wait(start):
        return Happened(moment, (index,), None)
    step, at = start.step() or saved, start.send(index, signal.SIGSTOP)
    others = [process for number, process in enumerate(start.processes) if number != index]
    while (waiting := any(process.poll() is None for process in others)) and time.monotonic() < at + MISSED_WITHIN_S:
        time.sleep(0.05)
    start.send(index, signal.SIGKILL)
    problem = f"the others still waited after {MISSED_WITHIN_S:g} s" if waiting else None
    return Happened(moment, (index,), at, step, problem)


def _suspend_for_a_while(start: Start, saved: int, draws: random.Random) -> Happened:
    """Suspends and continues the process: it must just go on."""
    moment, pause = draw_moment(draws, start, saved), draws.uniform(0, LONGEST_SUSPENSION_S)
    if not moment.wait(start):
        return Happened(moment, (0,), None)
    at = start.send(0, signal.SIGSTOP)
    time.sleep(pause)
    start.send(0, signal.SIGCONT)
    return Happened(moment, (0,), at)


def _full_disk(start: Start, saved: int, draws: random.Random) -> Happened:
    """For a while no file may grow beyond some bytes."""
    moment, most = draw_moment(draws, start, saved, "update"), draws.choice([0, 1_000, 20_000])
    pause, to = draws.uniform(0, LONGEST_FULL_S), tuple(range(len(start.processes)))
    if not moment.wait(start):
        return Happened(moment, to, None)
    at = time.monotonic()
    start.limit_files(most)
    time.sleep(pause)
    start.limit_files(None)
    return Happened(moment, to, at)


_STOPPED, _KILLED = frozenset({STOPPED}), frozenset({-signal.SIGKILL})
# A second signal has its default effect; which of the two comes first is not known.
_TWICE = frozenset({STOPPED, -signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT})
_FULL = frozenset({DONE, ExitCode.USER_MISTAKE, UNSAVED, *LOST})
_kill = _send([signal.SIGKILL], "saved", at_most=1)  # something to damage must be there

FAULTS: dict[str, Fault] = {
    "SIGTERM": Fault(_send([signal.SIGTERM]), _STOPPED, _STOPPED),
    "SIGINT": Fault(_send([signal.SIGINT]), _STOPPED, _STOPPED),
    "SIGTERM in a save": Fault(_send([signal.SIGTERM], "save"), _STOPPED, _STOPPED),
    "two signals": Fault(_send([signal.SIGTERM, signal.SIGTERM]), _TWICE, _STOPPED | LOST),
    "SIGKILL": Fault(_send([signal.SIGKILL], at_most=1), _KILLED, LOST),
    "SIGKILL in a save": Fault(_send([signal.SIGKILL], "save", at_most=1), _KILLED, LOST),
    "stuck": Fault(_hang, frozenset({STUCK}), LOST),
    "suspended": Fault(_suspend_one, _KILLED, LOST, setups=("pair",)),
    SUSPENDED_A_WHILE: Fault(_suspend_for_a_while, frozenset({DONE}), frozenset(), setups=("alone",)),
    FULL: Fault(_full_disk, _FULL, _FULL),
    **{name: Fault(_kill, _KILLED, LOST, damage) for name, damage in DAMAGES.items()},
}


def wrong_codes(setup: Setup, fault: Fault, happened: Happened, codes: list[int]) -> str | None:
    """Returns what is wrong with how the processes ended, None where nothing is."""
    if happened.problem is not None:
        return happened.problem
    if happened.at is None:
        return None if not any(codes) else f"exit codes {codes} before anything happened"
    in_start_up = happened.moment.step is None  # where the processes may not know each other yet, nor agree
    # What happens to the last updates may find them made.
    at_the_end = {DONE} if happened.step + 2 * setup.checkpoint_every_steps >= setup.steps else set()
    for index, code in enumerate(codes):
        allowed = fault.hit if index in happened.to else fault.others | (LOST if in_start_up else set())
        if code not in allowed | at_the_end:
            return f"exit code {code} of process {index}, not {' or '.join(map(str, sorted(allowed)))}"
    return None
