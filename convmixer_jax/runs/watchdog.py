"""A thread that ends a process which makes no progress, or whose peers are lost, and tells why.

    with Watchdog(workdir / "stuck", Allowances(ordinary=600, compiling=3600), peers) as watch:
        watch.doing("the data", starting=True)
        watch.doing("update 1200 (dispatch of 8)")     # each call is progress

A process that waits for ever holds its machine, and all others of the run with theirs. It ends with exit code 76: run
again.
"""

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from convmixer_jax.errors import ExitCode, RunAgainError, UserError
from convmixer_jax.runs.peers import LINGER, PAUSE, SILENT, Peers, Trouble
from convmixer_jax.runs.signals import Interrupted

SECONDS = 5.0  # for a disk or a process that may be the very thing that everything waits for


@dataclasses.dataclass(frozen=True)
class Allowances:
    """Seconds that may pass without progress; 0 for any number. compiling: of start-up, too."""

    ordinary: float
    compiling: float


@dataclasses.dataclass(frozen=True)
class Activity:
    """What the process waits for. compiling: whether that has the longer allowance.

    starting: so has a start-up, whose imports may besides keep all threads of Python from running.
    """

    what: str
    compiling: bool
    starting: bool = False


class Watchdog:
    """Looks every PAUSE seconds while the context is open. folder: for the stacks. peers: None for a process alone."""

    def __init__(self, folder: Path, allowances: Allowances, peers: Peers | None, index: int = 0):
        self._folder, self._allowances, self._peers, self._index = folder, allowances, peers, index
        self._activity = self._seen = Activity("the start", compiling=True, starting=True)
        self._idle, self._looked = 0.0, time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        # A thread of its own: where process 0 hangs, who asks it for anything does, too.
        self._asking = threading.Thread(target=self._ask, name="peers", daemon=True)
        self._news = threading.Event()
        self._unanswered = 0
        self._lost: Trouble | None = None

    def doing(self, what: str, *, compiling: bool = False, starting: bool = False) -> None:
        """Notes that this begins now, and so that all before it has ended; takes under a microsecond."""
        changed = starting != self._activity.starting
        self._activity = Activity(what, compiling or starting, starting)
        if changed:
            self._news.set()  # from here on the others may, or may not, count on hearing from this process

    @property
    def activity(self) -> str:
        """What the process is doing."""
        return self._activity.what

    def idle_too_long(self, now: float) -> str | None:
        """Returns what has gone on for longer than it may, and for how long, or None. now: of the monotonic clock.

        A time in which this thread itself could not run, such as that of a suspended machine, does not count.
        """
        self._idle += min(now - self._looked, 2 * PAUSE)
        self._looked = now
        if self._activity is not self._seen:
            self._seen, self._idle = self._activity, 0.0
        allowed = self._allowances.compiling if self._seen.compiling else self._allowances.ordinary
        if not allowed or self._idle <= allowed:
            return None
        field = "watchdog_compile_seconds" if self._seen.compiling else "watchdog_seconds"
        return f"no progress in {self._idle:.0f} s (config.{field}), waiting for: {self._seen.what}"

    def _run(self) -> None:
        while not self._over.wait(PAUSE):
            self._unanswered += 1
            stuck = self.idle_too_long(time.monotonic())
            if stuck:
                self.end(stuck)
            if self._lost is not None:
                self.end(self._lost.words, self._lost.code, stacks=self._lost.code == ExitCode.STUCK)
            if self._peers is not None and not self._activity.starting and self._unanswered > SILENT:
                self.end(f"process 0, which joins all others, gave no answer in {SILENT * PAUSE:g} s")

    def _ask(self) -> None:
        while self._peers is not None and not self._over.is_set():
            self._news.wait(PAUSE)
            self._news.clear()
            try:
                self._lost = self._lost or self._peers.look(self._activity.what, self._activity.starting)
            except RuntimeError as error:
                self._lost = Trouble(f"process 0, which joins all others, was lost ({str(error).splitlines()[0]})")
            self._unanswered = 0

    def _leave(self, reason: str, code: ExitCode) -> None:
        if self._peers is not None:
            with contextlib.suppress(RuntimeError):  # there may be nobody left to tell
                self._peers.leave(reason, code)

    def end(self, trouble: str, code: ExitCode = ExitCode.STUCK, stacks: bool = True) -> None:
        """Tells what is wrong, with the stacks of all threads where asked for, and ends the process at once."""
        way_out = "" if code == ExitCode.USER_MISTAKE else f"; was at: {self._activity.what}; run again"
        head = f"error: process {self._index}: {trouble}{way_out}"
        lines = "\n".join([head, *(self._peers.describe() if self._peers and stacks else [])])
        _in_time(lambda: self._leave(trouble, code))
        with contextlib.suppress(OSError, ValueError):  # whoever read it may have gone
            print(lines, file=sys.stderr, flush=True)
            if stacks:
                faulthandler.dump_traceback(sys.stderr)
        if stacks:
            _in_time(lambda: self._write(lines))
        if self._peers is not None and self._index == 0 and self._peers.others:
            time.sleep((LINGER + 1) * PAUSE)  # the end of process 0 aborts the others, which should hear of it first
        os._exit(code)

    def _write(self, lines: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"process-{self._index}.txt").open("w") as file:
            file.write(f"{lines}\n")
            file.flush()
            faulthandler.dump_traceback(file)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        self._asking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        foreseen = kind is None or issubclass(kind, UserError | RunAgainError) or not issubclass(kind, Exception)
        if self._peers is not None and not foreseen:
            # What a device says of a lost peer looks like any error of its own; the thread ends the process if it is.
            print(f"error: {error}; looking whether another process was lost", file=sys.stderr, flush=True)
            self._over.wait((SILENT + 2) * PAUSE)
            silent = self._peers.silent()
            if silent:
                names = " and ".join(map(str, silent))
                self.end(f"process {names} was lost: not a word in {SILENT * PAUSE:g} s, and this one failed")
        self._over.set()
        self._news.set()
        self._thread.join()
        self._asking.join(SECONDS)
        _in_time(lambda: self._leave(*_reason(kind, error)))


def _reason(kind: type[BaseException] | None, error: BaseException | None) -> tuple[str, ExitCode]:
    """Returns what the others are told of an error, and the exit code that it has here, unless it is a crash."""
    if kind is None:
        return "", ExitCode.DONE
    for known, code in ((UserError, ExitCode.USER_MISTAKE), (Interrupted, ExitCode.STOPPED)):
        if issubclass(kind, known):
            return str(error), code
    return f"{kind.__name__}: {error}", ExitCode.STUCK


def _in_time(function: Callable[[], None]) -> None:
    """Calls a function that may wait for ever, but waits for it no longer than SECONDS."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(SECONDS)
