"""Memory that a process has used once is kept for its next use.

    keep_freed_memory()                      # before threads are started
    kept = KeptMemory(allowed=9_000_000_000)
    kept.give_back()                         # now and then

XLA's CPU backend allocates the temporaries of a dispatch anew, gigabytes in one block. glibc takes such a block from
the system and gives it back each time, and every page of it is zeroed and mapped again: a quarter and more of an
update. What is kept makes the process larger: a block that something small was put into is not whole any more, and
until glibc 2.38 an aligned block, as XLA asks for, does not even fit where one like it was (glibc bug 14581). A run
that needs 5 GB held 20 after some minutes. So what is held too much is given back.
"""

import ctypes
import os

from convmixer_jax.runs.memory import host_resident_bytes

# From glibc's malloc.h, with values that only one thread's heap can follow: blocks of other threads' heaps are at most
# 64 MiB, larger ones are mapped whatever M_MMAP_MAX says, so all threads share the first heap.
SETTINGS = {
    -8: 1,  # M_ARENA_MAX: heaps
    -4: 0,  # M_MMAP_MAX: blocks that may be mapped on their own
    -1: -1,  # M_TRIM_THRESHOLD: free bytes at the end of the heap from which they are given back; -1 never
}
# The same for a process that is yet to be started, as variables of its environment.
VARIABLES = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**63 - 1)}


def is_glibc() -> bool:
    """Whether the C library of this process is glibc."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):  # another system; musl
        return False


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory; returns whether it does. Does nothing elsewhere.

    Nor does it where the environment has settings for malloc: whoever made those has decided. To be called before there
    is a second thread: how many heaps there may be is fixed when the first one asks for memory.
    """
    if not is_glibc() or any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    answers = [libc.mallopt(name, value) for name, value in SETTINGS.items()]
    return all(answers)


class KeptMemory:
    """Gives freed memory back to the system where more than `allowed` bytes of this process lie in memory.

    The pages that are used again are mapped anew, once: that costs less than an update, and is rare.
    """

    def __init__(self, allowed: int):
        self._allowed = allowed
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if is_glibc() else None

    def give_back(self) -> bool:
        """Gives back what is free where that is too much; returns whether it did. Takes 10 us where it is not."""
        if self._trim is None or host_resident_bytes() <= self._allowed:
            return False
        self._trim(0)
        # What is still there is in use: data that were read, an evaluation. More than that much again is too much.
        self._allowed = max(self._allowed, host_resident_bytes() + self._allowed // 2)
        return True
