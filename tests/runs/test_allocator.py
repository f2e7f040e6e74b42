"""Freed memory is kept where glibc can be told so, and settings of the user stay."""

import os
import subprocess
import sys

import pytest

from convmixer_jax.runs import allocator

# Writes 64 MiB of a block of 3 GiB three times in another thread, as XLA does; prints the page faults of the last time.
# Free memory beyond 2 GiB is given back where the threshold for that is the largest int.
BLOCKS = """
import ctypes, resource, threading
from convmixer_jax.runs.allocator import keep_freed_memory
kept = keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size, written, faults = 3 << 30, 64 << 20, []
def write():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = libc.malloc(size)
        ctypes.memset(block, 1, written)
        libc.free(block)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=write)
thread.start()
thread.join()
print(kept, faults[-1])
"""


def faults(**variables: str) -> tuple[bool, int]:
    """Returns whether freed memory is kept, by a process with these variables, and its page faults."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_", "MALLOC_"))}
    environment = inherited | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    command = [sys.executable, "-c", BLOCKS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, number = done.stdout.split()
    return kept == "True", int(number)


def test_a_block_is_used_again_without_page_faults():
    kept, number = faults()
    assert kept == allocator.is_glibc()
    if kept:
        assert number < (64 << 20) // 4096 // 100


def test_settings_of_the_environment_are_left_alone():
    kept, number = faults(MALLOC_MMAP_THRESHOLD_="1048576")
    assert not kept
    # As many faults as pages, which may be large: at least one for each 2 MiB.
    assert number >= 32


# A thread that exists already has a heap of its own, or lets others have one, whose large blocks are mapped each time.
ALONE = """
import threading
from convmixer_jax import {command}
def keep():
    raise SystemExit(f"threads: {{threading.active_count()}}")
{command}.keep_freed_memory = keep
{command}.main(["{command}", "--help"])
"""


@pytest.mark.parametrize("command", ["main", "plan"])
def test_memory_is_kept_before_there_are_threads(command):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    code = ALONE.format(command=command)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == "threads: 1\n"


@pytest.mark.parametrize("answer", [None, "musl 1.2", OSError(22, "Invalid argument"), ValueError("unknown name")])
def test_elsewhere_nothing_is_done(monkeypatch, answer):
    def confstr(name: str) -> str | None:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(allocator.os, "confstr", confstr)
    assert not allocator.keep_freed_memory()


# Frees blocks, each too small for the next and with one behind it that is never written to, so that none is used again.
# Prints by how many megabytes the process grew and how often freed memory was given back.
GROWING = """
import ctypes
import sys
from convmixer_jax.runs.allocator import KeptMemory, keep_freed_memory
from convmixer_jax.runs.memory import host_resident_bytes
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = libc.free.argtypes = [ctypes.c_size_t]
def grow(kept):
    before, gave = host_resident_bytes(), 0
    for size in (100 << 20, 101 << 20, 102 << 20, 103 << 20):
        block = libc.malloc(size)
        libc.malloc(128 << 20)
        ctypes.memset(block, 1, size)
        libc.free(block)
        gave += kept.give_back()
    return (host_resident_bytes() - before) >> 20, gave
print(*grow(KeptMemory(host_resident_bytes() + (int(sys.argv[1]) << 20))))
"""


def test_what_is_kept_is_bounded():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_", "MALLOC_"))}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = []
    for allowed in ("10000", "150"):
        command = [sys.executable, "-c", GROWING, allowed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.append(tuple(map(int, done.stdout.split())))
    (unbounded, never), (bounded, times) = found
    assert never == 0
    if not allocator.is_glibc():
        assert times == 0
        return
    assert times >= 1
    assert unbounded > 290  # three blocks and more, of four
    assert bounded < 250  # the allowed 150 and less than one block beyond
