"""One start of a run in processes of its own: what they say, how they end, and what can be done to them from outside.

starts = Starts(nan_step=17, home=folder)
start = starts.begin(setup, workdir, logs=folder / "start-1")
start.send(0, signal.SIGTERM)
start.wait(180)                    # [75, 75]
"""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from convmixer_jax.crashing.setups import ROOT, Setup, command, environment
from convmixer_jax.runs.ledger import ledger_path, read_starts
from convmixer_jax.runs.manifest import MANIFEST_FILE

LOOK_EVERY_S = 0.005


def free_port() -> int:
    """Returns a port of this machine that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OverError(Exception):
    """The crash test is being ended."""


class Start:
    """Begins at once. logs: a folder for what each process says. home: see `environment`.

    began: of the wall clock.
    """

    def __init__(self, setup: Setup, workdir: Path, nan_step: int, logs: Path, home: Path):
        self.workdir, self.setup, self.logs = workdir, setup, logs
        address = f"127.0.0.1:{free_port()}" if setup.processes > 1 else ""
        logs.mkdir(parents=True)
        self.began = time.time()
        self.ended: dict[int, float] = {}  # by process, when it ended, of the monotonic clock
        self.processes = [
            subprocess.Popen(
                command(setup, workdir, nan_step, address, index),
                env=environment(setup, home),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the crash test alone
            )
            for index in range(setup.processes)
        ]
        self._readers = [threading.Thread(target=self._read, args=each) for each in enumerate(self.processes)]
        for reader in self._readers:
            reader.start()

    def _read(self, index: int, process: subprocess.Popen[bytes]) -> None:
        """Copies what a process says: through a pipe, which a limit of the size of its files leaves alone."""
        said: IO[bytes] | None = process.stdout
        assert said is not None
        with said, (self.logs / f"process-{index}.txt").open("wb") as file:
            for line in said:
                file.write(line)
                file.flush()
        process.wait()
        self.ended[index] = time.monotonic()

    def send(self, index: int, number: signal.Signals) -> float:
        """Sends a signal; returns when, of the monotonic clock. A process that has ended gets none."""
        now = time.monotonic()
        self.processes[index].send_signal(number)
        return now

    def limit_files(self, most: int | None) -> None:
        """Has every write beyond so many bytes of a file fail, as on a full disk; None: none any more."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard if most is None else most, hard))

    def wait(self, seconds: float) -> list[int]:
        """Waits for all processes; returns their exit codes, negative for a signal. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        for process, reader in zip(self.processes, self._readers, strict=True):
            reader.join(max(deadline - time.monotonic(), 0.0))
            if process.poll() is None:
                raise TimeoutError
        return [process.wait() for process in self.processes]

    def wait_until(self, holds: Callable[[], bool]) -> bool:
        """Waits until something holds; returns False where a process ends before."""
        while all(process.poll() is None for process in self.processes):
            if holds():
                return True
            time.sleep(LOOK_EVERY_S)
        return False

    def end(self) -> None:
        """Kills what still runs."""
        for process in self.processes:
            process.kill()  # also a suspended one; no harm to one that has ended
        for reader in self._readers:
            reader.join()

    def said(self) -> str:
        """Returns what all processes said so far."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.logs.iterdir()))

    def listens(self) -> bool:
        """Whether every process handles SIGTERM: before, there is no program yet that could."""
        return all(catches(process.pid, signal.SIGTERM) for process in self.processes)

    def step(self) -> int | None:
        """Returns the last update known to be made in this start, None before there is any."""
        starts = read_starts(ledger_path(self.workdir, 0))
        if not starts or starts[-1].began < self.began:
            return None
        return max((line.step for line in starts[-1].lines if line.step is not None), default=None)

    def is_saving(self) -> bool:
        """Whether a checkpoint is being written: it has a folder, but no manifest yet."""
        return not all(self._manifests())

    def has_saved(self) -> bool:
        """Whether there is a whole checkpoint."""
        return any(self._manifests())

    def _manifests(self) -> list[bool]:
        """Returns of each folder of a checkpoint, finished or not, whether it has a manifest, which is written last."""
        try:
            names = os.listdir(self.workdir / "checkpoints")
        except OSError:
            return []
        folders = [name for name in names if name.split(".")[0].isdecimal()]
        return [(self.workdir / "checkpoints" / name / MANIFEST_FILE).exists() for name in folders]


class Starts:
    """Begins starts, also from several threads. nan_step: the update whose images are NaN. home: see `environment`."""

    def __init__(self, nan_step: int, home: Path):
        self.nan_step, self._home = nan_step, home
        self._begun: list[Start] = []
        self._over = False
        self._lock = threading.Lock()

    def begin(self, setup: Setup, workdir: Path, logs: Path) -> Start:
        """Returns a start that has begun. Raises OverError once all were ended."""
        with self._lock:
            if self._over:
                raise OverError
            self._begun.append(Start(setup, workdir, self.nan_step, logs, self._home))
            return self._begun[-1]

    def end_all(self) -> None:
        """Kills the processes of all starts, and has none begin any more: a trial would go on with the next one."""
        with self._lock:
            self._over = True
        for start in self._begun:
            start.end()


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal of its own."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
