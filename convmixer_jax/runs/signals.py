"""SIGTERM and SIGINT as a request that the loop looks at between updates.

    with StopRequest() as stop:
        ...                              # start-up: a signal raises Interrupted
        stop.defer()
        while not stop.requested: ...    # from here on it is noted

The second signal gets the default handler back, so whoever cannot wait for the save ends the process at once; a
checkpoint is published by a rename, so nothing saved is harmed.
"""

import os
import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """A signal came while there was nothing to save. Not an Exception: nothing on the way should take it for one."""


class StopRequest:
    """Holds the first signal that came while the context was open."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._deferred = False

    def defer(self) -> None:
        """From now on a signal is noted instead of raised: whoever calls this looks at `requested` and saves."""
        self._deferred = True

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
