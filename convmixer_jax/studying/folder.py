"""What lies where in the folder of a study, for those who write it and those who read it.

    run = workdir(folder, "kernel_size=3", seed=0)                       # folder/kernel_size=3/seed-0
    write_trial(run, FAILED, "ended with code 1: killed", curve=[])

The folder has study.json, see record.py. Each run has its workdir in it; there the file trial.json, beside config.json,
tells how the run ended where that was not well.
"""

from collections.abc import Iterable
from pathlib import Path

from convmixer_jax.runs.files import write_json

STUDY_FILE, TRIAL_FILE, RESULT_FILE = "study.json", "trial.json", "result.json"
FAILED, PRUNED = "failed", "pruned"  # the states of trial.json


def workdir(folder: Path, point: str, seed: int) -> Path:
    """Returns the workdir of a run. folder: of the study."""
    return folder / point / f"seed-{seed}"


def write_trial(run: Path, state: str, why: str, curve: Iterable[tuple[int, float]]) -> None:
    """Writes trial.json. state: FAILED or PRUNED. curve: (step, top1 of the validation split) of all evaluations."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / TRIAL_FILE, {"state": state, "why": why, "points": [list(each) for each in curve]})
