"""SIGTERM and SIGINT as a request that the loop looks at between updates.

    with StopRequest() as stop:
        ...                              # start-up: a signal raises Interrupted
        stop.limit(27.0, give_up)        # counts from the first signal on
        stop.defer()
        while not stop.requested: ...    # from here on it is noted

The second signal gets the default handler back, so whoever cannot wait for the save ends the process at once; a
checkpoint is published by a rename, so nothing saved is harmed.

What is raised can be lost: in a callback of a weak reference or in C it is swallowed or made another exception, and
where a module is being initialised it crashes. Python besides runs a handler only between two lines of Python, and the
main thread may be waiting for a device or a disk. So a thread learns of signals by itself, through a pipe, and sees to
it that they end the process.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from convmixer_jax.errors import ExitCode

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN = signal.SIGURG  # from the thread to the main thread; whoever has no handler for it ignores it
OVER = 0  # on the pipe, where signals are numbers above it
PAUSE = 0.1  # seconds between two looks of the thread after a signal
PATIENCE = 1.0  # seconds that the main thread has to end the process at a second signal
UNWINDING = 10.0  # seconds that it has after a signal of which nothing is to be saved
IMPORTING = "<frozen importlib._bootstrap>"


class Interrupted(BaseException):
    """A signal came while there was nothing to save. Not an Exception: nothing on the way should take it for one."""


class StopRequest:
    """Holds the first signal that came while the context was open; what ends it before `defer` is Interrupted then.

    left: what to tell of a signal that is not deferred, after "SIGTERM received: ". end: called with that line where
    the main thread does not end the process; must do so.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.left = "stopped, there was nothing to save"
        self.end: Callable[[str], None] = _end
        self._deferred = False
        self._limit: tuple[float, Callable[[], None]] | None = None
        self._raised: Callable[[], Interrupted | None] = lambda: None

    def defer(self) -> None:
        """From now on a signal is noted instead of raised: whoever calls this looks at `requested` and saves."""
        self._deferred = True

    def limit(self, seconds: float, give_up: Callable[[], None]) -> None:
        """Has a thread call `give_up` so many seconds after the first signal, once it is deferred.

        At a second signal the thread ends the process where the main thread cannot.
        """
        self._limit = seconds, give_up

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    @property
    def ending(self) -> str | None:
        """What to tell of a signal that ends the process with nothing saved; None where there is none such."""
        return self._words() if self.requested and not self._deferred else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number)
        self._raise(frame)

    def _once_more(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._raise(frame)

    def _raise(self, frame: FrameType | None) -> None:
        """Raises Interrupted, unless it is on its way already, or must wait: then the thread asks again."""
        if self._deferred or self._raised() is not None or _imports(frame):
            return
        error = Interrupted(self._words())
        self._raised = weakref.ref(error)
        try:
            raise error
        finally:
            del error  # or this frame, which the traceback holds, would keep what was swallowed

    def _words(self) -> str:
        return f"{self.received.name if self.received else 'a signal'} received: {self.left}"

    def _tell_swallowed(self, ignored: Any) -> None:
        if not isinstance(ignored.exc_value, Interrupted):  # which comes once more
            self._hook(ignored)

    def __enter__(self) -> "StopRequest":
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._attend, args=(reading,), name="signals", daemon=True)
        self._thread.start()
        self._hook, sys.unraisablehook = sys.unraisablehook, self._tell_swallowed
        self._pipe_before = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        self._previous = {AGAIN: signal.signal(AGAIN, self._once_more)}
        self._previous |= {each: signal.signal(each, self._note) for each in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended_by_it = self.requested and not self._deferred
        self._deferred = True  # too late to raise anything
        signal.set_wakeup_fd(self._pipe_before)
        os.write(self._pipe, bytes([OVER]))
        self._thread.join(PATIENCE)
        os.close(self._pipe)
        sys.unraisablehook = self._hook
        for each, handler in self._previous.items():
            signal.signal(each, handler)
        if ended_by_it and kind is not None and not issubclass(kind, Interrupted):
            raise Interrupted(self._words()) from error  # what C made of it on the way

    def _attend(self, reading: int) -> None:
        """Waits for the first signal, then until the context is closed, and ends the process where that takes long."""
        with open(reading, "rb", buffering=0) as pipe:
            first = _next_signal(pipe.fileno(), None)
            began, gave_up = time.monotonic(), False
            while first != OVER:
                number = _next_signal(pipe.fileno(), PAUSE)
                if number == OVER:
                    return
                if number:
                    time.sleep(PATIENCE)
                    os._exit(128 + number)  # as a shell calls an end by this signal
                waited = time.monotonic() - began
                if not self._deferred:
                    self._insist(waited)
                elif self._limit is not None and waited > self._limit[0] and not gave_up:
                    gave_up = True
                    self._limit[1]()

    def _insist(self, waited: float) -> None:
        if waited > UNWINDING:
            self.end(self._words())
        if self._raised() is None:
            signal.pthread_kill(self._main, AGAIN)


def _end(words: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # whoever read it may have gone
        print(words, file=sys.stderr, flush=True)
    os._exit(ExitCode.STOPPED)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported there: one in C may crash at an exception, or make another one of it."""
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            return True
        frame = frame.f_back
    return False


def _next_signal(reading: int, seconds: float | None) -> int | None:
    """Returns the next of SIGNALS, OVER, or None where nothing came in so many seconds (None: however many)."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not select.select([reading], [], [], left)[0]:
            return None
        number = os.read(reading, 1)[0]
        if number == OVER or number in SIGNALS:
            return number
