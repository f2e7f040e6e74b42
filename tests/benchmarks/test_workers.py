"""A side runs in a process of its own, when it is told to, and says what went wrong in it."""

import contextlib
import os
import time
from collections.abc import Iterator

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


@pytest.mark.parametrize("allocator, tunables", [("huge_pages", "glibc.malloc.hugetlb=1"), ("default", None)])
def test_a_side_runs_elsewhere_when_told_to(monkeypatch, allocator, tunables):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with working(sides.Sleeper, allocator) as worker:
        worker.wait_until_ready()
        # 0.1 s hold five times 20 ms; on a busy machine a sleep is longer, so fewer of them.
        assert 1 <= worker.count <= 5
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


def test_what_is_longer_than_a_call_is_made_once():
    with working(sides.Sleeper, call_seconds=0.001) as worker:
        worker.wait_until_ready()
        assert (worker.count, worker.images) == (1, 3)


@pytest.mark.parametrize("build, kind, told", [
    (sides.build_mistake, UserError, "config.x is 1: take 2"),
    (sides.build_unavailable, UnavailableError, "no compiler"),
    (sides.build_broken, RuntimeError, "it failed in its process(?s:.*)ZeroDivisionError: planted"),
    (sides.build_killed, UnavailableError, "ended with code -9, for want of memory perhaps"),
])  # fmt: skip
def test_what_goes_wrong_is_told(build, kind, told):
    with working(build) as worker, pytest.raises(kind, match=told):
        worker.wait_until_ready()


def test_waiting_has_an_end():
    with working(sides.build_slow) as worker, pytest.raises(UnavailableError, match="not ready after 0.01 s"):
        worker.wait_until_ready(0.01)


def test_an_unknown_allocator_is_refused():
    with pytest.raises(UserError, match="--allocator is 'other'"):
        Worker("it", sides.Sleeper, (), allocator="other", call_seconds=0.1)
