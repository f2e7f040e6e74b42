"""Runs in processes of their own that are killed, stopped and started again, and what is left of them."""

import concurrent.futures
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from convmixer_jax.config import get_base
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.manifest import MANIFEST_FILE
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.resume import restore_state
from tests.training.steps import bits

ROOT = Path(__file__).parents[2]
# Only what a user has: no virtual devices, which would also change the order of sums.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
DEADLINE = 300  # seconds: a hang fails instead of holding up everything


def command(workdir: Path, settings: dict) -> list[str]:
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    config = ROOT / "configs" / "digits.py"
    return [sys.executable, "-m", "convmixer_jax.main", f"--config={config}", f"--workdir={workdir}", *flags]


def run(workdir: Path, settings: dict) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, settings),
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def start(workdir: Path, settings: dict) -> subprocess.Popen:
    return subprocess.Popen(command(workdir, settings), env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def kill_after_checkpoint(workdir: Path, settings: dict, step: int) -> None:
    """Starts the run and kills it once the checkpoint of `step` is durable, which its manifest makes it."""
    process, manifest = start(workdir, settings), workdir / "checkpoints" / str(step) / MANIFEST_FILE
    give_up = time.monotonic() + DEADLINE
    while not manifest.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up
        time.sleep(0.001)
    process.send_signal(signal.SIGSTOP)
    unfinished = not (workdir / "result.json").exists() and newest(workdir) == step
    process.kill()
    process.communicate(timeout=DEADLINE)
    assert unfinished, "it was stopped too late: nothing would be tested"
    assert process.returncode == -signal.SIGKILL


def stop_by(number: signal.Signals, workdir: Path, settings: dict) -> tuple[int, str]:
    """Starts the run and sends the signal after its first update; returns its exit code and what it said."""
    process, said = start(workdir, settings), []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if line.startswith("start-up: "):
            process.send_signal(number)
            break
    rest = process.communicate(timeout=DEADLINE)[1]
    return process.returncode, "".join(said) + rest


def newest(workdir: Path) -> int:
    # Orbax writes into a folder of another name, with a suffix, until all is there.
    return max(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdigit())


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def rows(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without how fast the machine was."""
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in lines(workdir)]


def result(workdir: Path) -> dict:
    found = json.loads((workdir / "result.json").read_text())
    of_the_machine = ("seconds", "images_per_sec", "peak_")
    return {name: value for name, value in found.items() if not any(part in name for part in of_the_machine)}


def config_of(settings: dict) -> ConfigDict:
    config = get_base()
    for name, value in settings.items():
        config.update_from_flattened_dict({name: value})
    return config


def state_bits(workdir: Path, settings: dict, step: int) -> dict[str, tuple[np.dtype, bytes]]:
    """Every number of a checkpoint: parameters, statistics, optimiser, counts and running sums."""
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state, _ = restore_state(assemble(config_of(settings)), checkpoints, step)
    return bits(state)


def files_of(workdir: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(workdir)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in workdir.rglob("*")
        if path.is_file()
    }


@dataclasses.dataclass
class Runs:
    """One setting: a run that nothing disturbed, and one that was killed after its checkpoint 3."""

    settings: dict
    undisturbed: Path
    killed: Path
    last: int


def make_runs(folder: Path, settings: dict, last: int) -> Runs:
    runs = Runs(settings, folder / "undisturbed", folder / "killed", last)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        whole = pool.submit(run, runs.undisturbed, settings)
        pool.submit(kill_after_checkpoint, runs.killed, settings, 3).result()
        assert whole.result().returncode == 0, whole.result().stderr
    return runs


def assert_same(runs: Runs, workdir: Path) -> None:
    found, wanted = (state_bits(each, runs.settings, runs.last) for each in (workdir, runs.undisturbed))
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert rows(workdir) == rows(runs.undisturbed)
    assert result(workdir) == result(runs.undisturbed)
    assert newest(workdir) == newest(runs.undisturbed) == runs.last
