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


@pytest.mark.parametrize("answer", [None, "musl 1.2", OSError(22, "Invalid argument"), ValueError("unknown name")])
def test_elsewhere_nothing_is_done(monkeypatch, answer):
    def confstr(name: str) -> str | None:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(allocator.os, "confstr", confstr)
    assert not allocator.keep_freed_memory()
