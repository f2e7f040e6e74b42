"""Sides that a worker's process builds in tests, workers that are pretended, and the smallest config of programs.

A worker's process imports this file, so that JAX is not imported here.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ml_collections import ConfigDict

from convmixer_jax.benchmarks.workers import UnavailableError
from convmixer_jax.config import get_base
from convmixer_jax.errors import UserError


class Sleeper:
    """Three images in 20 ms each time. facts tell what its process was started with."""

    def __init__(self) -> None:
        self.images = 3
        self.facts = {"tunables": os.environ.get("GLIBC_TUNABLES"), "process": os.getpid()}

    def run(self, count: int) -> None:
        time.sleep(0.02 * count)

    def device_peak_bytes(self) -> int:
        return 77


def build_mistake() -> Sleeper:
    raise UserError("config.x is 1: take 2")


def build_unavailable() -> Sleeper:
    raise UnavailableError("no compiler")


def build_broken() -> Sleeper:
    raise ZeroDivisionError("planted")


def build_killed() -> Sleeper:
    os.kill(os.getpid(), signal.SIGKILL)
    return Sleeper()


class Ahead(Sleeper):
    """Counts in a process of its own, a thousand times a second, as what prepares batches ahead does."""

    def __init__(self) -> None:
        super().__init__()
        fork = multiprocessing.get_context("fork")  # at once
        self.counted = fork.Value("q", 0)
        self.counter = fork.Process(target=count_up, args=(self.counted,), daemon=True)
        self.counter.start()
        self.facts |= {"counter": self.counter.pid}

    def run(self, count: int) -> None:
        super().run(count)
        self.facts["counted"] = self.counted.value


def count_up(counted: Any) -> None:
    while True:
        time.sleep(0.001)
        counted.value += 1


def build_slow() -> Sleeper:
    time.sleep(60)
    return Sleeper()


class Full(Sleeper):
    """Has not enough memory in its first call, which is the third time that it runs where calls are short."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def run(self, count: int) -> None:
        self.runs += 1
        if self.runs > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nand a page more")
        super().run(count)


class Killed(Full):
    """Is ended by the system in its first call."""

    def run(self, count: int) -> None:
        try:
            super().run(count)
        except RuntimeError:
            os.kill(os.getpid(), signal.SIGKILL)


class Pretended:
    """Stands in for a Worker: the clock moves on by its seconds. Subclasses say how a side behaves."""

    clock = 0.0
    made: list["Pretended"] = []  # noqa: RUF012

    def __init__(self, name: str, build: Any, arguments: tuple[Any, ...], *, allocator: str, call_seconds: float):
        self.name, self.build, self.arguments = name, build, arguments
        self.facts: dict[str, Any] = {}
        self.images, self.calls, self.closed = 0, 0, False
        self.made.append(self)

    def behaviour(self) -> tuple[float | None, int, dict[str, Any]] | None:
        """Returns seconds and images of a call, and facts. None: not ready in time; seconds None: killed by a call."""
        raise NotImplementedError

    def wait_until_ready(self, seconds: float | None) -> None:
        found = self.behaviour()
        if found is None:
            raise UnavailableError(f"not ready after {seconds} s")
        _, self.images, self.facts = found

    def call(self) -> None:
        # What is not ready would go on compiling, and take the processors from what is timed.
        assert all(worker.closed for worker in self.made if not worker.facts)
        self.calls += 1
        seconds, *_ = self.behaviour() or (None,)
        if seconds is None:
            raise UnavailableError("its process ended with code -9")
        Pretended.clock += seconds

    def peaks(self) -> dict[str, int | None]:
        return {"host": 2 * 10**9, "device": None}

    def close(self) -> None:
        self.closed = True


@contextlib.contextmanager
def pretending(monkeypatch: pytest.MonkeyPatch, kind: type[Pretended]) -> Iterator[None]:
    """Puts `kind` in the place of workers, and its clock in that of the machine's; all are closed in the end."""
    Pretended.clock, Pretended.made = 0.0, []
    monkeypatch.setattr("convmixer_jax.benchmarks.speed.Worker", kind)
    monkeypatch.setattr(time, "perf_counter", lambda: Pretended.clock)
    yield
    assert all(worker.closed for worker in Pretended.made)


def small_config() -> ConfigDict:
    config = get_base()
    config.dataset, config.batch_size, config.devices, config.train_examples = "cifar10", 6, 1, 60
    config.model.dim, config.model.depth, config.model.patch_size, config.model.kernel_size = 8, 1, 4, 3
    config.augment.order = ("horizontal_flip",)
    config.schedule.name, config.schedule.learning_rate = "constant", 0.01
    # A gradient's rounding error then moves a weight by no more than rate / eps = 1 times itself.
    config.optimizer.eps = 1e-2
    return config


def squeezed(line: str) -> str:
    """Returns a line of a table with single spaces between its words."""
    return " ".join(line.split())
