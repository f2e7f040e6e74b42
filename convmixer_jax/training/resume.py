"""Whether a workdir belongs to this run, and the state that it goes on from."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from convmixer_jax.config import to_plain
from convmixer_jax.config_record import differences, digest
from convmixer_jax.errors import UserError
from convmixer_jax.runs import files
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.provenance import describe
from convmixer_jax.training.assembly import Experiment
from convmixer_jax.training.state import TrainState, from_tree, to_tree

CONFIG_FILE = "config.json"


def check_same_run(workdir: Path, config: ConfigDict, may_change: frozenset[str]) -> dict[str, Any] | None:
    """Returns the workdir's config.json, None where it is new. Raises UserError where it is another run's.

    may_change: fields in which the two configs may differ.
    """
    record = files.read_json(workdir / CONFIG_FILE)
    if record is None:
        return None
    if not isinstance(record.get("config"), dict):
        raise UserError(f"{workdir / CONFIG_FILE} names no config: {files.NOT_OURS}")
    changed = differences(record["config"], config, may_change)
    if changed:
        raise UserError(
            f"--workdir {workdir} holds another run ({'; '.join(changed)}): use another --workdir, or the values "
            f"in its {CONFIG_FILE}"
        )
    return record


def check_same_data(workdir: Path, record: dict[str, Any] | None, data_digest: str) -> None:
    """Raises UserError where the training data are not those that the run began with.

    record: what `check_same_run` returned.
    """
    began_with = record.get("data_digest", "unknown") if record else data_digest
    if began_with != data_digest:
        raise UserError(
            f"--workdir {workdir} was trained on other data (SHA-256 {began_with[:12]}..., now {data_digest[:12]}...): "
            "give the --data_dir it began with, or use another --workdir"
        )


def write_record(workdir: Path, config: ConfigDict, record: dict[str, Any] | None, data_digest: str) -> None:
    """Writes config.json: the resolved config, the digest of the training data, this start and the earlier ones.

    To be called once all checks have passed: a refused start leaves the record as it was.
    """
    start = describe()
    earlier = [*record.get("earlier_starts", []), {name: record.get(name) for name in start}] if record else []
    if jax.process_index() == 0:
        values = {"config": to_plain(config), "data_digest": data_digest, **start, "earlier_starts": earlier}
        files.write_json(workdir / CONFIG_FILE, values)


def choose_step(checkpoints: Checkpoints, workdir: Path, step: int | None) -> int:
    """Returns `step`, or the newest one where it is None. Raises UserError where there is none such."""
    saved = checkpoints.steps()
    if not saved:
        raise UserError(f"--workdir {workdir} has no checkpoint: train first (--mode train)")
    if step is not None and step not in saved:
        raise UserError(f"--step is {step}: {workdir} has checkpoints of steps {', '.join(map(str, saved))}")
    return saved[-1] if step is None else step


def restore_state(experiment: Experiment, checkpoints: Checkpoints, step: int) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, meta) of a saved step, laid out for this run's devices.

    Raises UserError where the checkpoint is of another run than its workdir's config.json says, or does not fit.
    """
    tree, meta = checkpoints.restore(step, to_tree(experiment.abstract_state))
    if meta["config_digest"] != digest(experiment.config):
        raise UserError(
            f"checkpoint {step} in {checkpoints.directory} was made with another config than the one asked for: "
            "use that one, or another --workdir"
        )
    return from_tree(experiment.abstract_state, tree), meta


def first_state(experiment: Experiment, checkpoints: Checkpoints) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, meta) of the newest checkpoint, or fresh weights and an empty meta where there is none."""
    if checkpoints.saved is not None:
        return restore_state(experiment, checkpoints, checkpoints.saved)
    return experiment.init_state(np.uint32(experiment.config.seed)), {}
