"""The first signal is a request, the second one ends the process."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from convmixer_jax.runs.signals import Interrupted, StopRequest

ROOT = Path(__file__).parents[2]
BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_a_request(number):
    before = [signal.getsignal(each) for each in BOTH]
    with StopRequest() as stop:
        stop.defer()
        assert (stop.requested, stop.received) == (False, None)
        os.kill(os.getpid(), number)
        assert (stop.requested, stop.received, stop.ending) == (True, number, None)
    assert [signal.getsignal(each) for each in BOTH] == before


@pytest.mark.parametrize("number", BOTH)
def test_before_there_is_anything_to_save_a_signal_is_raised(number):
    told = []

    def work() -> None:
        with StopRequest() as stop:
            told.append(stop.ending)
            try:
                os.kill(os.getpid(), number)
            finally:
                told.append(stop.ending)

    with pytest.raises(Interrupted, match=f"{number.name} received"):
        work()
    assert told == [None, f"{number.name} received: stopped, there was nothing to save"]


def test_the_handlers_before_come_back_without_a_signal_and_after_an_error():
    before = [signal.getsignal(each) for each in BOTH]
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(each) for each in BOTH] == before
    with pytest.raises(RuntimeError, match="diverged"), StopRequest():
        raise RuntimeError("diverged")
    assert [signal.getsignal(each) for each in BOTH] == before


LOSES = """
import os, signal, sys, threading, time, weakref
from convmixer_jax.commands import end_process, run_command
from convmixer_jax.errors import ExitCode
from convmixer_jax.runs import signals

class Thing: ...

def signalled(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)

def in_a_callback():
    thing = Thing()
    kept = weakref.ref(thing, signalled)
    del thing

def caught_and_kept():
    global kept
    try:
        signalled()
    except BaseException as error:
        kept = error

def made_another():
    try:
        signalled()
    except BaseException as error:
        raise ImportError("initialization failed") from error

def in_an_import():
    os.mkdir("imported")
    with open("imported/it.py", "w") as file:
        file.write("import os, sys; os.kill(os.getpid(), 15); sys.modules['__main__'].passed = True")
    sys.path.insert(0, "imported")
    import it
    assert passed, "nothing was raised while it was imported"

def run(stop):
    globals()[sys.argv[1]]()
    threading.Lock().acquire() and threading.Event().wait(60)  # a lock, as of a result that a thread makes
    return ExitCode.DONE

signals.UNWINDING = float(sys.argv[2])
end_process(run_command(run))
"""


@pytest.mark.parametrize("way, seconds", [
    ("in_a_callback", 60), ("made_another", 60), ("in_an_import", 60), ("caught_and_kept", 0.5)
])  # fmt: skip
def test_a_signal_is_not_lost(way, seconds, tmp_path):
    """Whatever becomes of the exception that it raises."""
    done = subprocess.run(
        [sys.executable, "-c", LOSES, way, str(seconds)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (75, "SIGTERM received: stopped, there was nothing to save\n")


TWO_SIGNALS = """
import os, signal, sys
from convmixer_jax.runs.signals import StopRequest
first, second = (signal.Signals(int(number)) for number in sys.argv[1:])
with StopRequest() as stop:
    stop.defer()
    os.kill(os.getpid(), first)
    print(stop.received.name, flush=True)
    os.kill(os.getpid(), second)
    print("still here")
"""


@pytest.mark.parametrize("first, second", [(a, b) for a in BOTH for b in BOTH])
def test_the_second_signal_ends_the_process(first, second):
    command = [sys.executable, "-c", TWO_SIGNALS, str(int(first)), str(int(second))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-second, f"{first.name}\n")


IN_C = """
import ctypes, os, sys, threading, time
from convmixer_jax.runs.signals import StopRequest

def give_up():
    print("gave up", stop.received, flush=True)
    if sys.argv[2] == "ends":
        os._exit(75)

def send():
    for number in sys.argv[3:]:
        time.sleep(0.3)
        os.kill(os.getpid(), int(number))

with StopRequest() as stop:
    stop.limit(float(sys.argv[1]), give_up)
    stop.defer()
    threading.Thread(target=send).start()
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)  # waits for ever: no handler of Python's runs
"""


@pytest.mark.parametrize("seconds, then, numbers, code, said", [
    (0.5, "ends", [signal.SIGTERM], 75, "gave up None\n"),
    (60.0, "ends", [signal.SIGINT, signal.SIGTERM], 143, ""),
    (0.1, "waits", [signal.SIGTERM, signal.SIGINT], 130, "gave up None\n"),
])  # fmt: skip
def test_a_process_that_hangs_outside_of_python_ends_too(seconds, then, numbers, code, said):
    command = [sys.executable, "-c", IN_C, str(seconds), then, *(str(int(number)) for number in numbers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (code, said), done.stderr


def test_a_limit_that_is_not_reached_leaves_nothing_behind():
    before = threading.active_count()
    with StopRequest() as stop:
        stop.limit(60.0, lambda: pytest.fail("nobody should give up"))
        stop.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert threading.active_count() == before
    assert signal.set_wakeup_fd(-1) == -1
