"""The sweep with little patience: `python -m tests.studying.stand_in_sweep [--real] --study FILE ...`.

Without --real, its runs are those of `stand_in.py`.
"""

import sys
from pathlib import Path

from convmixer_jax import sweep
from convmixer_jax.commands import end_process
from convmixer_jax.studying import storage, trial, worker

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


def begin(arguments: list[str]) -> None:
    """Runs the sweep and ends the process."""
    storage.BEAT_SECONDS = worker.BEAT_SECONDS = 1
    storage.GRACE_SECONDS = 5
    worker.ASK_SECONDS = 0.3
    if "--real" not in arguments:
        trial.MAIN = STAND_IN
    end_process(sweep.main([argument for argument in arguments if argument != "--real"]))


if __name__ == "__main__":
    begin(sys.argv[1:])
