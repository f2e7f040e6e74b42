"""One training at a time in a workdir.

    with WorkdirLock(workdir): ...

The lock is the kernel's, on an open file: it goes with the process, however that ends, so it cannot be left behind. A
file server gives up that of a machine which is gone after some minutes at most. The file itself stays: removing it
would let two processes hold two locks of the same name.
"""

import errno
import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from convmixer_jax.errors import RunAgainError, UserError
from convmixer_jax.runs.progress import tell

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of file systems that have none, or a server without them


class WorkdirLock:
    """Holds `workdir`/.lock while the context is open.

    Where another process does, raises an error that names it: UserError if it is on this machine, else RunAgainError.
    """

    def __init__(self, workdir: Path):
        self._workdir, self._host = workdir, socket.gethostname()

    def __enter__(self) -> "WorkdirLock":
        self._file = (self._workdir / ".lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._in_use() from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            tell(f"warning: {self._workdir} cannot be locked ({error.strerror}): see that no second run uses it")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {self._host}\n")
        self._file.flush()
        return self

    def _in_use(self) -> Exception:
        self._file.seek(0)
        holder = self._file.read().strip() or "another process"
        self._file.close()
        told = f"--workdir {self._workdir} is in use by {holder}: wait for it or stop it, or use another --workdir"
        if holder.endswith(f" on {self._host}") or " on " not in holder:
            return UserError(told)
        path = self._workdir / ".lock"
        return RunAgainError(f"{told}; if its machine is gone, run again in some minutes, or remove {path} now")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
