"""Sides of a comparison, each in a process of its own, of which one works at a time.

    with contextlib.closing(Worker("ours", build_step, (config,), allocator="kept", call_seconds=0.5)) as ours:
        ours.wait_until_ready()
        timing = measure_together({"ours": ours.call})["ours"]
        print(timing.rate(ours.images))

A process each, so that memory can be told apart, no side's threads or caches serve another, and all have the same
allocator. Between its calls it is stopped, with every process that it started: what makes batches ahead of time would
else go on, take the processors from the side that is timed, and be given its own first batches.
`build` is a module's function: the process imports that module and what it needs.
"""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Protocol

from convmixer_jax.errors import UserError, lookup
from convmixer_jax.runs.allocator import VARIABLES
from convmixer_jax.runs.memory import host_peak_bytes, is_out_of_memory

# glibc gives large blocks back to the system and gets them anew, page by page, in every update. A run of ours keeps
# them (runs/allocator.py); PyTorch gains by it, and by huge pages, too, so a comparison without would flatter us.
ALLOCATORS: dict[str, dict[str, str]] = {
    "kept": VARIABLES,
    "huge_pages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "default": {},
}
# Batches in a run of a side that makes them ahead of time: several times as many as it has ready, for these come at
# once, and of a run that took them alone the time would say nothing.
IN_A_RUN = 16
# Several processes share an accelerator: none may take all of its memory at once.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Side(Protocol):
    """What a process measures. images: in `run(1)`. facts: plain values, known before it runs or found meanwhile."""

    images: int
    facts: dict[str, Any]

    def run(self, count: int) -> None:
        """Does the work `count` times and waits for all of it."""

    def device_peak_bytes(self) -> int | None:
        """Returns the most accelerator memory in use so far; None where the platform does not tell."""


Build = Callable[..., Side]


class UnavailableError(Exception):
    """A side cannot be measured here; the message is one line for the table."""


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for a process that is started meanwhile: glibc reads them when it begins."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _calibrated(side: Side, call_seconds: float) -> int:
    """Warms the side up; returns how often it runs in about `call_seconds`, at least once."""
    side.run(1)
    count, seconds = 0, 0.0
    while seconds < call_seconds / 2:  # what was made ahead of time comes at once, and soon runs out
        count = 2 * count or 1
        began = time.perf_counter()
        side.run(count)
        seconds = time.perf_counter() - began
    return max(1, round(count * call_seconds / seconds))


def _serve(connection: Connection, build: Build, arguments: tuple[Any, ...], call_seconds: float) -> None:
    """Builds and warms up a side, then runs it whenever it is told to; what goes wrong is told, too."""
    os.setpgrp()  # with all that it starts
    try:
        side = build(*arguments)
        count = _calibrated(side, call_seconds)
        connection.send(("ready", {"count": count, "images": count * side.images, "facts": side.facts}))
        while connection.recv() == "run":
            side.run(count)
            connection.send(("done", None))
        peaks = {"host": host_peak_bytes(), "device": side.device_peak_bytes()}
        facts = side.facts
        del side  # and its own processes and semaphores, in good order, before this one is ended
        connection.send(("peaks", {"peaks": peaks, "facts": facts}))
    except UserError as error:
        connection.send(("mistake", str(error)))
    except UnavailableError as error:
        connection.send(("unavailable", str(error)))
    except Exception as error:
        if is_out_of_memory(error):
            first, *_ = str(error).strip().splitlines() or ["MemoryError"]
            connection.send(("unavailable", f"not enough memory: {first[:200]}"))
        else:
            connection.send(("failed", traceback.format_exc()))


class Worker:
    """One side in its process."""

    def __init__(self, name: str, build: Build, arguments: tuple[Any, ...], *, allocator: str, call_seconds: float):
        """Starts the process.

        allocator: a row of ALLOCATORS. call_seconds: a call makes as many updates as take about so long, at least one.
        """
        self.name = name
        self.count = self.images = 0  # updates and images in a call
        self.facts: dict[str, Any] = {}
        context = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads may hang
        self._connection, theirs = context.Pipe()
        serving = (theirs, build, arguments, call_seconds)
        self._process = context.Process(target=_serve, args=serving)  # no daemon, which may start none of its own
        with _variables(SHARED | lookup(ALLOCATORS, allocator, "--allocator")):
            self._process.start()
        theirs.close()  # so that the end of the process is noticed

    def _receive(self, request: str | None = None) -> Any:
        """Returns what the process answers, to `request` if there is one.

        Raises UserError, UnavailableError, or RuntimeError with its traceback.
        """
        try:
            if request:
                self._connection.send(request)
            kind, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise UnavailableError(
                f"its process ended with code {self._process.exitcode}"
                + (", for want of memory perhaps" if self._process.exitcode == -9 else "")
            ) from None
        if kind == "mistake":
            raise UserError(answer)
        if kind == "unavailable":
            raise UnavailableError(answer)
        if kind == "failed":
            raise RuntimeError(f"{self.name} failed in its process:\n{answer}")
        return answer

    def wait_until_ready(self, seconds: float | None = None) -> None:
        """Waits until the side is built and warm; raises UnavailableError where that takes longer than `seconds`."""
        if not self._connection.poll(seconds):
            raise UnavailableError(f"not ready after {seconds:g} s")
        answer = self._receive()
        self._signal(signal.SIGSTOP)
        self.count, self.images, self.facts = answer["count"], answer["images"], answer["facts"]

    def call(self) -> None:
        """Lets the side make its updates and waits for them; raises UnavailableError where it is lost by it."""
        self._signal(signal.SIGCONT)
        self._receive("run")
        self._signal(signal.SIGSTOP)

    def peaks(self) -> dict[str, int | None]:
        """Ends the side; returns the most bytes that it used: host, and device where the platform tells.

        `facts` holds what it found out while it ran, too.
        """
        self._signal(signal.SIGCONT)
        answer = self._receive("end")
        self.facts = answer["facts"]
        peaks: dict[str, int | None] = answer["peaks"]
        return peaks

    def _signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process and those that it started."""
        if self._process.pid:
            with contextlib.suppress(ProcessLookupError):  # it is lost: the next answer tells
                os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Ends the process and those that it started, whatever they do."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # who is stopped takes no notice before
        self._process.terminate()  # one that is only being started leads no others yet
        self._process.join()
        self._connection.close()
