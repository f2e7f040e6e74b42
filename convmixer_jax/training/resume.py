"""Whether a workdir belongs to this run, the state that it goes on from, and the one that is evaluated."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from convmixer_jax.config import to_plain
from convmixer_jax.config_record import CONFIG_FILE, differences, digest, read_record
from convmixer_jax.errors import UserError
from convmixer_jax.runs import files
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.provenance import describe
from convmixer_jax.training.assembly import Experiment
from convmixer_jax.training.given import Given, begin_with, converted_state, read_initial
from convmixer_jax.training.state import TrainState, from_tree, to_tree
from convmixer_jax.weights.converted import is_converted

# What a checkpoint tells of its training (see `Loop.meta`), for weights of which that is not known.
UNKNOWN_META = {"train_top1": None, "seconds": None, "step_seconds": None, "best": None}


def check_same_run(workdir: Path, config: ConfigDict, may_change: frozenset[str]) -> dict[str, Any] | None:
    """Returns the workdir's config.json, None where it is new. Raises UserError where it is another run's.

    may_change: fields in which the two configs may differ.
    """
    record = read_record(workdir)
    if record is None:
        return None
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


def initial_weights(experiment: Experiment, checkpoints: Checkpoints, say: Callable[[str], None]) -> Given | None:
    """Returns what config.init_from names, where it names something and there is no checkpoint; says what is odd.

    Raises UserError where it does not fit.
    """
    given = read_initial(experiment) if checkpoints.saved is None else None
    for line in given.told if given else ():
        say(line)
    return given


def first_state(
    experiment: Experiment, checkpoints: Checkpoints, given: Given | None
) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, meta) of the newest checkpoint; where there is none, fresh weights and an empty meta.

    given: what `initial_weights` returned, taken instead of fresh weights.
    """
    if checkpoints.saved is not None:
        return restore_state(experiment, checkpoints, checkpoints.saved)
    fresh = experiment.init_state(np.uint32(experiment.config.seed))
    return (begin_with(experiment, fresh, given) if given else fresh), {}


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A state to evaluate. which: its variables, "raw" or "ema". told: lines for a person."""

    state: TrainState
    meta: dict[str, Any]
    step: int
    which: str
    told: list[str]


def saved_state(experiment: Experiment, workdir: Path, step: int | None) -> Evaluated:
    """Returns a workdir's checkpoint of `step`, None for the newest, or a converted directory's weights, step 0.

    Raises UserError where there is none, or it does not fit.
    """
    if is_converted(workdir):
        state, told = converted_state(experiment, workdir, step)
        return Evaluated(state, UNKNOWN_META, 0, "raw", told)
    with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        chosen = choose_step(checkpoints, workdir, step)
        state, meta = restore_state(experiment, checkpoints, chosen)
    return Evaluated(state, meta, chosen, experiment.config.eval_params, [])
