"""The rows of a run as a run of Weights & Biases, which is an optional package: `pip install wandb`.

    writer = WandbWriter(workdir, "convmixer")
    writer.write({"train/loss": 1.2}, step=50)

A workdir is one run there, over all its starts: wandb.json remembers which. Rows that a restart repeats are dropped
there, since they are the same. No trouble with that service stops a training that has begun.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path

from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import read_json, write_json
from convmixer_jax.runs.progress import tell

IDENTITY_FILE = "wandb.json"
CONFIG_FILE = "config.json"  # what is sent of it is shown beside the curves


class WandbWriter:
    """Sends numbers. fresh: whether no earlier start has sent any."""

    def __init__(self, workdir: Path, project: str):
        """Begins the run, or goes on with it. Raises UserError where that cannot be done."""
        field = f"config.wandb_project is {project!r}"
        try:
            import wandb  # type: ignore[import-not-found]
        except ImportError as error:
            raise UserError(
                f"{field}, but the package wandb is not there ({error}): install it, `pip install wandb`, or leave the "
                "field empty, ''"
            ) from error
        self._error: type[Exception] = wandb.Error
        identity = read_json(workdir / IDENTITY_FILE) or {}
        self.fresh = identity.get("project") != project
        if self.fresh:
            identity = {"id": secrets.token_hex(4), "project": project}
        try:
            self._run = wandb.init(
                project=project,
                id=str(identity["id"]),
                name=workdir.resolve().name,
                dir=str(workdir),
                config=(read_json(workdir / CONFIG_FILE) or {}).get("config", {}),
                resume="allow",
            )
        except (wandb.Error, OSError, ValueError) as error:
            raise UserError(
                f"{field}, but Weights & Biases cannot be used ({error}): `wandb login`, or WANDB_MODE=offline to send "
                "it later, or leave the field empty, ''"
            ) from error
        write_json(workdir / IDENTITY_FILE, identity)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Sends the numbers of a row. The first trouble is told, and nothing is sent after it."""
        if self._run is None:
            return
        try:
            self._run.log(dict(numbers), step=step)
        except (self._error, OSError) as error:
            tell(f"warning: Weights & Biases fails ({error}): the run goes on without it, metrics.jsonl has all rows")
            self._run = None

    def close(self) -> None:
        """Returns when all is sent, or kept for later."""
        if self._run is not None:
            self._run.finish()
