"""An abort is exit code 76 where another process is gone, 75 where a signal came, and an abort otherwise."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from convmixer_jax.runs.aborts import answers
from convmixer_jax.runs.rendezvous import Place
from tests.runs.test_rendezvous import HOST, free_port

ROOT = Path(__file__).parents[2]
ABORTS = """
import ctypes, faulthandler, sys, threading, time
from convmixer_jax.runs.aborts import aborts_explained
faulthandler.enable()
with aborts_explained(lambda: sys.argv[1] or None, lambda: sys.argv[2] or None):
    if sys.argv[3] == "inside":
        threading.Thread(target=ctypes.CDLL(None).abort).start()  # as JAX does it, in a thread of its own
        time.sleep(60)
ctypes.CDLL(None).abort()
"""


@pytest.mark.parametrize("reason, signalled, where, code, said", [
    ("process 0 was lost", "", "inside", 76, "error: process 0 was lost; run again\n"),
    ("process 0 was lost", "SIGTERM received", "inside", 75, "SIGTERM received\n"),
    ("", "SIGTERM received", "inside", 75, "SIGTERM received\n"),
    ("", "", "inside", -6, "Fatal Python error: Aborted"),
    ("process 0 was lost", "SIGTERM received", "after", -6, "Fatal Python error: Aborted"),
])  # fmt: skip
def test_an_abort(reason, signalled, where, code, said):
    command = [sys.executable, "-c", ABORTS, reason, signalled, where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)


def test_whether_process_0_answers():
    with socket.create_server((HOST, 0)) as server:
        assert answers(Place(HOST, server.getsockname()[1], 2, 1))
    assert not answers(Place(HOST, free_port(), 2, 1))
