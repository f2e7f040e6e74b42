"""SIGTERM and SIGINT as a request that the loop looks at between updates.

    with StopRequest() as stop:
        ...                              # start-up: a signal raises Interrupted
        stop.limit(27.0, give_up)        # a thread counts from the first signal on
        stop.defer()
        while not stop.requested: ...    # from here on it is noted

The second signal gets the default handler back, so whoever cannot wait for the save ends the process at once; a
checkpoint is published by a rename, so nothing saved is harmed.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
OVER = 0  # on the pipe, where signals are numbers above it
PATIENCE = 1.0  # seconds that the main thread has to end the process at a second signal


class Interrupted(BaseException):
    """A signal came while there was nothing to save. Not an Exception: nothing on the way should take it for one."""


class StopRequest:
    """Holds the first signal that came while the context was open."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._deferred = False
        self._counting: threading.Thread | None = None

    def defer(self) -> None:
        """From now on a signal is noted instead of raised: whoever calls this looks at `requested` and saves."""
        self._deferred = True

    def limit(self, seconds: float, give_up: Callable[[], None]) -> None:
        """Has a thread call `give_up` so many seconds after the first signal, unless the context is closed by then.

        Python runs a handler only between two lines of Python, and the main thread may be waiting for a device or a
        disk. So the thread learns of signals by itself, through a pipe; at a second one it ends the process where the
        main thread cannot. To be called once, in the main thread.
        """
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._pipe_before = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        arguments = reading, seconds, give_up
        self._counting = threading.Thread(target=_count_down, args=arguments, name="grace after a signal", daemon=True)
        self._counting.start()

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number)
        if not self._deferred:
            raise Interrupted(f"{self.received.name} received: stopped, there was nothing to save")

    def __enter__(self) -> "StopRequest":
        self._previous = {each: signal.signal(each, self._note) for each in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._previous.items():
            signal.signal(each, handler)
        if self._counting is not None:
            signal.set_wakeup_fd(self._pipe_before)
            os.write(self._pipe, bytes([OVER]))
            self._counting.join(PATIENCE)
            os.close(self._pipe)


def _count_down(reading: int, seconds: float, give_up: Callable[[], None]) -> None:
    with open(reading, "rb", buffering=0) as pipe:
        first = _next_signal(pipe.fileno(), None)
        if first == OVER:
            return
        second = _next_signal(pipe.fileno(), seconds)
        if second is None:
            give_up()
            second = _next_signal(pipe.fileno(), None)
        if second:
            time.sleep(PATIENCE)
            os._exit(128 + second)  # as a shell calls an end by this signal


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
