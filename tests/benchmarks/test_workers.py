"""A side runs in a process of its own, when it is told to, and says what went wrong in it."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convmixer_jax.benchmarks.workers import Build, UnavailableError, Worker
from convmixer_jax.errors import UserError
from tests.benchmarks import sides


@contextlib.contextmanager
def working(build: Build, allocator: str = "default", call_seconds: float = 0.1) -> Iterator[Worker]:
    worker = Worker("it", build, (), allocator=allocator, call_seconds=call_seconds)
    with contextlib.closing(worker):
        yield worker
    assert not worker._process.is_alive()


@pytest.mark.parametrize("allocator, tunables, call_seconds, most", [
    ("huge_pages", "glibc.malloc.hugetlb=1", 0.1, 5),
    ("default", None, 0.001, 1),
])  # fmt: skip
def test_a_side_runs_elsewhere_when_told_to(monkeypatch, allocator, tunables, call_seconds, most):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with working(sides.Sleeper, allocator, call_seconds) as worker:
        worker.wait_until_ready()
        # 0.1 s hold five times 20 ms; on a busy machine a sleep is longer, so fewer of them. What is longer than a
        # call is made once.
        assert 1 <= worker.count <= most
        assert worker.images == 3 * worker.count
        assert worker.facts["tunables"] == tunables
        assert worker.facts["process"] != os.getpid()
        assert "GLIBC_TUNABLES" not in os.environ
        began = time.perf_counter()
        worker.call()
        assert time.perf_counter() - began >= 0.02 * worker.count
        peaks = worker.peaks()
        assert peaks["device"] == 77
        assert 1e6 < peaks["host"] < 1e9  # a Python without JAX


@pytest.mark.parametrize("build, kind, told", [
    (sides.build_mistake, UserError, "config.x is 1: take 2"),
    (sides.build_unavailable, UnavailableError, "no compiler"),
    (sides.build_broken, RuntimeError, "it failed in its process(?s:.*)ZeroDivisionError: planted"),
    (sides.build_killed, UnavailableError, "ended with code -9, for want of memory perhaps"),
])  # fmt: skip
def test_what_goes_wrong_is_told(build, kind, told):
    with working(build) as worker, pytest.raises(kind, match=told):
        worker.wait_until_ready()


@pytest.mark.parametrize("build, told", [
    (sides.Full, "^not enough memory: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.$"),
    (sides.Killed, "ended with code -9"),
])  # fmt: skip
def test_a_side_that_is_lost_in_a_call_is_not_available(build, told):
    with working(build, call_seconds=0.001) as worker:
        worker.wait_until_ready()
        with pytest.raises(UnavailableError, match=told):
            worker.call()
        with pytest.raises(UnavailableError, match="its process ended with code"):
            worker.call()


def state(process: int) -> str:
    """Returns the letter that Linux tells of a process, "X" of one that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def wait_for(process: int, states: str) -> None:
    """Waits until Linux tells one of these letters of the process."""
    deadline = time.monotonic() + 30
    while state(process) not in states:
        assert time.monotonic() < deadline, state(process)
        time.sleep(0.001)


def test_a_side_stands_still_between_its_calls():
    with working(sides.Ahead) as worker:
        worker.wait_until_ready()
        started = worker.facts["counter"]
        wait_for(worker.facts["process"], "T")
        wait_for(started, "T")
        worker.call()
        wait_for(started, "T")
        worker.peaks()
        assert worker.facts["counted"] > 0  # which it found out while it ran
    wait_for(started, "XZ")


def test_what_a_side_started_ends_with_it():
    with working(sides.Ahead) as worker:
        worker.wait_until_ready()
    wait_for(worker.facts["counter"], "XZ")


def test_waiting_has_an_end():
    with working(sides.build_slow) as worker, pytest.raises(UnavailableError, match="not ready after 0.01 s"):
        worker.wait_until_ready(0.01)


def test_an_unknown_allocator_is_refused():
    with pytest.raises(UserError, match="--allocator is 'other'"):
        Worker("it", sides.Sleeper, (), allocator="other", call_seconds=0.1)
