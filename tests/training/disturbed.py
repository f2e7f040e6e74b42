"""Runs that something happens to at a moment that is told exactly, in processes of their own.

Each run says what it is doing to its watchdog; the worker listens, and at the words asked for does what is asked for.
"""

import concurrent.futures
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from convmixer_jax.crashing.starts import free_port

ROOT = Path(__file__).parents[2]
DEADLINE = 240  # seconds: a hang fails instead of holding up everything
# Without LLVM's optimisations, which take longer than what is tested.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))} | {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
# Argument 1: the words that begin the moment, "" for never; 2: the name of a signal to itself; or "hang": then the main
# thread waits in C for ever; or "block": so it does, and SIGTERM comes half a second later; or "mistake", of the user.
WORKER = """
import ctypes, faulthandler, os, signal, sys, threading, time
faulthandler.enable()
from convmixer_jax import main
from convmixer_jax.errors import UserError
from convmixer_jax.runs.watchdog import Watchdog

moment, action = sys.argv[1:3]
before = Watchdog.doing
happened = []

def block():
    mutex = ctypes.create_string_buffer(64)
    while True:
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def happen():
    happened.append(time.monotonic())
    print("happened", time.monotonic(), file=sys.stderr, flush=True)
    if action == "mistake":
        raise UserError("images/7.jpg cannot be read")
    if action != "hang":
        number = getattr(signal, "SIGTERM" if action == "block" else action)
        delay = 0.5 if action == "block" else 0.0
        threading.Timer(delay, os.kill, (os.getpid(), number)).start()
    if action in ("block", "hang"):
        block()

def doing(watch, what, **more):
    before(watch, what, **more)
    if moment and what.startswith(moment) and not happened:
        happen()

Watchdog.doing = doing
if moment == "compile":
    from convmixer_jax.training import program
    compile_updates = program.compile_updates

    def noted(*arguments):
        happen()
        return compile_updates(*arguments)

    program.compile_updates = noted
main.end_process(main.main(["main", *sys.argv[3:]]))
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that ended at `at`, of the monotonic clock. seconds: since the moment, None where it had none."""

    code: int
    said: str
    seconds: float | None
    at: float


def _wait(process: subprocess.Popen) -> Ended:
    said = process.communicate(timeout=DEADLINE)[1]
    now = time.monotonic()
    moments = [float(line.split()[1]) for line in said.splitlines() if line.startswith("happened ")]
    return Ended(process.returncode, said, now - moments[0] if moments else None, now)


def disturb(
    workdir: Path, settings: dict, moment: str = "", action: str = "SIGTERM", processes: int = 1, which: int = 0
) -> list[Ended]:
    """Trains by so many processes; at the moment, the action happens to process `which`. Returns how each ended.

    A process that is left suspended is killed when the others have ended.
    """
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    cluster = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={processes}"] if processes > 1 else []
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WORKER, moment if index == which else "", action),
                *("--config=configs/digits.py", f"--workdir={workdir}", *flags),
                *(cluster and [*cluster, f"--process_id={index}"]),
            ],
            env=ENVIRONMENT,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        ends = [pool.submit(_wait, process) for process in started]
        if action == "SIGSTOP":
            concurrent.futures.wait([end for index, end in enumerate(ends) if index != which])
            started[which].send_signal(signal.SIGKILL)
        return [end.result() for end in ends]
