"""Ends a process with exit code 76 where JAX aborts it, which is 134, because another process is gone.

    with aborts_explained(lambda: None if answers(place) else "process 0 was lost", lambda: stop.ending):
        ...

JAX's client aborts at once when its connection to process 0 breaks, sooner than any watchdog can look.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

from convmixer_jax.errors import ExitCode
from convmixer_jax.runs.rendezvous import Place

SECONDS = 2.0  # for process 0 to answer


def answers(place: Place) -> bool:
    """Whether there is somebody at the address of process 0."""
    try:
        socket.create_connection((place.host, place.port), timeout=SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def aborts_explained(why: Callable[[], str | None], ending: Callable[[], str | None]) -> Iterator[None]:
    """While the context is open, an abort asks `why`; where that is None, it is for another reason and goes on.

    ending: returns what to tell where a signal is about to end this process, and has ended the other one sooner: then
    the exit code is that of a signal, 75. None where there was none.
    """
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)

    # A handler of Python's own runs later, which after an abort is never. This one runs in the thread that aborts.
    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def explain(number: int) -> None:
        signalled = ending()
        reason = None if signalled else why()
        if signalled is None and reason is None:
            libc.signal(number, before)
            signal.raise_signal(number)  # for the handler of before, or the end of the process
            return
        with contextlib.suppress(OSError, ValueError):  # whoever read it may have gone
            print(signalled or f"error: {reason}; run again", file=sys.stderr, flush=True)
        os._exit(ExitCode.STUCK if signalled is None else ExitCode.STOPPED)

    before = libc.signal(signal.SIGABRT, ctypes.cast(explain, ctypes.c_void_p))
    try:
        yield
    finally:
        libc.signal(signal.SIGABRT, before)
