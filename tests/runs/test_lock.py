"""One run holds a workdir; who comes second is told who does, and whether to come again. (tests/test_bad_workdirs.py
does it with a whole run.)"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convmixer_jax.errors import RunAgainError, UserError
from convmixer_jax.runs import lock
from convmixer_jax.runs.lock import WorkdirLock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from convmixer_jax.runs.lock import WorkdirLock
with WorkdirLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_leaves_nothing_to_wait_for(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match=f"is in use by process {holder.pid} on "):
            WorkdirLock(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)
    with WorkdirLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_holder_on_another_machine_may_be_gone(tmp_path, monkeypatch):
    """Its lock is given up by the file server, in a while; so this is nothing to give up for."""
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "other")
    with WorkdirLock(tmp_path):
        monkeypatch.setattr(lock.socket, "gethostname", lambda: "this")
        with pytest.raises(RunAgainError, match=r"is in use by process \d+ on other: .*run again in some minutes, or"):
            WorkdirLock(tmp_path).__enter__()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with WorkdirLock(tmp_path):
        assert "cannot be locked (No locks available): see that no second run uses it" in capsys.readouterr().err
