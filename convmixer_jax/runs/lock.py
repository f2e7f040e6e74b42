"""One training at a time in a workdir.

    with WorkdirLock(workdir): ...

The lock is the kernel's, on an open file: it goes with the process, however that ends, so it cannot be left behind.
The file itself stays: removing it would let two processes hold two locks of the same name.
"""

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from convmixer_jax.errors import UserError


class WorkdirLock:
    """Holds `workdir`/.lock while the context is open. Raises UserError, naming the holder, where another does."""

    def __init__(self, workdir: Path):
        self._workdir = workdir

    def __enter__(self) -> "WorkdirLock":
        self._file = (self._workdir / ".lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"--workdir {self._workdir} is in use by {holder}: wait for it or stop it, or use another --workdir"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
