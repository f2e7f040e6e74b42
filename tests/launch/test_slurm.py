"""The batch script for SLURM: what it asks for, what srun is called with, and when the job is queued again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.standins import ROOT, Programs, run_script

ARGUMENTS = ("slurm.sh", "--nodes", "2", "--gpus", "8", "--python", "my python")
ODD = ["--config", "configs/a b.py", "--workdir", "/shared/$HOME;x*", "--config.a=('x', \"y\")"]
FLAGS = ("--", *ODD)


def script_of(*arguments: str) -> str:
    done = run_script(*ARGUMENTS, *arguments, *FLAGS)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def asked(script: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")}


def test_what_is_asked_for():
    more = ("--time", "12:00:00", "--partition", "gpu", "--account", "a", "--name", "mine")
    assert asked(script_of(*more)) == {
        "--job-name=mine", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--signal=TERM@60", "--requeue",
        "--open-mode=append", "--output=%x-%j.log", "--time=12:00:00", "--partition=gpu", "--account=a",
    }  # fmt: skip
    assert {"--ntasks-per-node=8", "--gpus-per-node=8"} < asked(script_of("--per", "gpu"))


def test_shellcheck_finds_nothing_in_it(tmp_path):
    path = tmp_path / "job.sh"
    path.write_text(script_of())
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([str(shellcheck), str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


CODES = {0: False, 1: False, 2: False, 74: False, 75: True, 76: True, 134: True, 137: True}


@pytest.mark.parametrize("code", CODES)
def test_which_ends_queue_it_again(code, tmp_path):
    programs = Programs(tmp_path, "srun", "scontrol")
    programs.answer("srun", code)
    (tmp_path / "job.sh").write_text(script_of())
    (tmp_path / "job.sh").chmod(0o755)
    done = run_script("job.sh", folder=tmp_path, programs=programs, SLURM_JOB_ID="17")
    assert (done.returncode, done.stderr) == (code, "")
    srun, *requeued = programs.calls()
    assert srun == ["srun", "--label", "--kill-on-bad-exit=0", "my python", "-m", "convmixer_jax.main", *ODD]
    assert requeued == ([["scontrol", "requeue", "17"]] if CODES[code] else [])


def test_it_is_not_queued_for_ever(tmp_path):
    programs = Programs(tmp_path, "srun", "scontrol")
    programs.answer("srun", 75)
    (tmp_path / "job.sh").write_text(script_of("--restarts", "3"))
    (tmp_path / "job.sh").chmod(0o755)
    for count in ("2", "3"):
        run_script("job.sh", folder=tmp_path, programs=programs, SLURM_JOB_ID="17", SLURM_RESTART_COUNT=count)
    assert len(programs.calls("srun")) == 1


def test_submit(tmp_path):
    programs = Programs(tmp_path, "sbatch")
    script = script_of()
    shown = run_script(*ARGUMENTS, "--submit", "--dry-run", *FLAGS, programs=programs).stdout
    assert programs.calls() == []
    assert shown == f"sbatch <<'SCRIPT'\n{script}SCRIPT\n"
    assert run_script(*ARGUMENTS, "--submit", *FLAGS, programs=programs).returncode == 0
    assert (programs.calls(), programs.given()) == ([["sbatch"]], [script])


def test_the_job_runs_in_this_checkout():
    assert f"cd {ROOT}\n" in script_of()
