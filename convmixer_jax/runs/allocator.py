"""Memory that a process has used once is kept for its next use.

    keep_freed_memory()          # before threads are started

XLA's CPU backend allocates the temporaries of a dispatch anew, gigabytes in one block. glibc takes such a block from
the system and gives it back each time, and every page of it is zeroed and mapped again: a quarter and more of an
update. What is kept makes the process larger: a block that something small was put into is not whole any more, so
that two of its size may be held.
"""

import ctypes
import os

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

    Nor does it where the environment has settings for malloc: whoever made those has decided.
    """
    if not is_glibc() or any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    answers = [libc.mallopt(name, value) for name, value in SETTINGS.items()]
    return all(answers)
