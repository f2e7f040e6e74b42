"""The trainings that are disturbed: small, on the bundled digits, with all that a run's state can hold.

setup = SETUPS["pair"]
command(setup, workdir, nan_step=17, address="127.0.0.1:1234", index=0)
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Of the environment nothing that would change the devices, or the order of sums; nor what has coverage measure these
# processes, too: a thread of theirs that is to end one at once would wait for it, until JAX aborts the process.
NOT_THEIRS = ("JAX_", "XLA_", "COVERAGE_")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(NOT_THEIRS)}
JOIN_SECONDS = 60  # for the processes to find each other; a lost one is missed for so long
GRACE_SECONDS = 30.0

# Moving averages, a validation split with its best checkpoint, mixing and dropout: all of it must come back.
SETTINGS: dict[str, Any] = {
    "model.dim": 16,
    "model.depth": 2,
    "model.head_dropout": 0.1,
    "mixing.mixup_alpha": 0.2,
    "ema_decay": 0.98,
    "val_fraction": 0.1,
    "keep_checkpoints": 3,
    "stop_grace_seconds": GRACE_SECONDS,
    # Long for what is done, and for a machine that does four times as much besides; a hang takes no less.
    "watchdog_seconds": 20.0,
    "watchdog_compile_seconds": 240.0,
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """So many processes with so many devices each. settings: fields of the config, beside SETTINGS."""

    processes: int
    devices: int
    epochs: int
    checkpoint_every_steps: int
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Updates of the whole run: of 64 of 1,293 images."""
        return self.epochs * 20


# Some seconds of updates each, with some ten checkpoints.
SETUPS = {
    "alone": Setup(1, 1, epochs=24, checkpoint_every_steps=40),
    "pair": Setup(2, 2, epochs=4, checkpoint_every_steps=8, settings={"fsdp_devices": 2}),
}


def flags(setup: Setup) -> list[str]:
    """Returns the flags of the training's fields."""
    fields = SETTINGS | {
        "epochs": setup.epochs,
        "checkpoint_every_steps": setup.checkpoint_every_steps,
        "report_every_steps": setup.checkpoint_every_steps // 4,
        "eval_every_epochs": 2,
        **setup.settings,
    }
    return [f"--config.{name}={value}" for name, value in fields.items()]


def command(setup: Setup, workdir: Path, nan_step: int, address: str, index: int) -> list[str]:
    """Returns the command line of process `index`. nan_step: the update whose images are NaN."""
    worker = [sys.executable, "-m", "convmixer_jax.crashing.worker", str(nan_step)]
    cluster = [f"--coordinator={address}", f"--num_processes={setup.processes}", f"--process_id={index}"]
    several = [*cluster, f"--initialization_timeout={JOIN_SECONDS}"] if setup.processes > 1 else []
    return [*worker, f"--config={ROOT / 'configs/digits.py'}", f"--workdir={workdir}", *flags(setup), *several]


def environment(setup: Setup, home: Path) -> dict[str, str]:
    """Returns the variables of a process. home: where compiled programs are kept, which nobody needs later."""
    path = os.pathsep.join(filter(None, [str(ROOT), ENVIRONMENT.get("PYTHONPATH")]))
    own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(setup.devices), "PYTHONPATH": path}
    return ENVIRONMENT | own | {"HOME": str(home)}
