"""One run of a study: a process of main in a workdir of its own, begun, watched, stopped and begun again.

    trial = Trial(workdir, arguments)
    while (end := trial.look()) is None:
        curve = trial.curve()               # what it says of the validation split so far
    end.state                               # complete, failed, stopped

The run is a user's: by hand it goes on with the same command, of which the first line of trial.log is a copy.
"""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs.files import read_json
from convmixer_jax.studying.folder import FAILED, RESULT_FILE, TRIAL_FILE
from convmixer_jax.studying.storage import is_held

PACKAGE_FOLDER = Path(__file__).parents[2]
LOG_FILE = "trial.log"
MAIN: tuple[str, ...] = (sys.executable, "-m", "convmixer_jax.main")
MOST_STARTS = 20  # of a run that ends each time with the request to be begun again
IN_USE = " is in use by "  # by what main says where another process trains in the workdir
AGAIN = (ExitCode.STOPPED, ExitCode.STUCK)
COMPLETE, STOPPED = "complete", "stopped"  # and FAILED: how a run ends


@dataclasses.dataclass(frozen=True)
class End:
    """How a run ended. why: of a failed one, in a line. result: the object of result.json, of a complete one."""

    state: str
    why: str = ""
    result: dict[str, Any] | None = None


def environment() -> dict[str, str]:
    """Returns the variables of a process that imports this package, whether it is installed or not."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_FOLDER), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}


class Trial:
    """Not begun yet. arguments: of main, all but --workdir."""

    def __init__(self, workdir: Path, arguments: Sequence[str]):
        self.workdir = workdir
        self._command = [*MAIN, *arguments, f"--workdir={workdir}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._starts, self._stopping = 0, False
        self._seen: tuple[int, int] | None = None  # size and time of the metrics that the curve is of
        self._curve: list[tuple[int, float, float]] = []
        self.began = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def waits(self) -> bool:
        """Whether it waits for another process that trains in its workdir, one of a worker that is gone."""
        return self._process is None

    def look(self) -> End | None:
        """Begins the run where that is due; returns how it ended, None while it goes on."""
        if self._process is None:
            return self._begin()
        code = self._process.poll()
        if code is None:
            return None
        self._process = None
        if code in (ExitCode.DONE, ExitCode.UNSAVED) and (end := self._finished()):
            return end
        if self._stopping:
            return End(STOPPED)
        last = last_line(self.workdir / LOG_FILE)
        if (code in AGAIN or IN_USE in last) and self._starts < MOST_STARTS:
            return self._begin()
        return End(FAILED, f"{told_code(code)}: {last}" if last else told_code(code))

    def _begin(self) -> End | None:
        if end := self._finished():
            return end
        if self._stopping:
            return End(STOPPED)
        if is_held(self.workdir / ".lock"):
            return None
        self.workdir.mkdir(parents=True, exist_ok=True)
        (self.workdir / TRIAL_FILE).unlink(missing_ok=True)
        with (self.workdir / LOG_FILE).open("a") as log:
            log.write(f"$ {shlex.join(self._command)}\n")
            log.flush()
            self._process = subprocess.Popen(
                self._command,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the sweep, which then stops its runs
            )
        self._starts += 1
        return None

    def _finished(self) -> End | None:
        """Returns the end of a run that has its result; whoever made it."""
        try:
            result = read_json(self.workdir / RESULT_FILE)
        except UserError as error:
            return End(FAILED, str(error))
        if result is None or not isinstance(result.get("top1"), float):
            return None
        (self.workdir / TRIAL_FILE).unlink(missing_ok=True)
        return End(COMPLETE, result=result)

    def stop(self) -> None:
        """Has the run save and end; `look` tells when it has."""
        self._stopping = True
        if self.running and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def curve(self) -> list[tuple[int, float, float]]:
        """Returns (step, epoch, top1) of all evaluations on the validation split so far."""
        from convmixer_jax.runs.metrics_log import parse_row  # late: a grid has no use for it

        path = self.workdir / "metrics.jsonl"
        try:
            status = path.stat()
            if self._seen != (status.st_size, status.st_mtime_ns):
                rows = map(parse_row, path.read_text(errors="replace").splitlines())
                self._seen = (status.st_size, status.st_mtime_ns)
                self._curve = [
                    (row["step"], row["epoch"], row["eval/top1"])
                    for row in rows
                    if row and row.get("eval/split") == "val" and isinstance(row.get("eval/top1"), float)
                ]
        except OSError:  # none yet
            return []
        return self._curve


def told_code(code: int) -> str:
    """Returns what an exit code means, in words."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def last_line(file: Path) -> str:
    """Returns the last line of a file that is not empty; "" where there is none."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
