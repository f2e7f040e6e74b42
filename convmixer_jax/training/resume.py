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
from convmixer_jax.data.datasets import Dataset, find_dataset, from_record, to_record
from convmixer_jax.errors import UserError
from convmixer_jax.runs import files
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.provenance import describe
from convmixer_jax.runs.reading import not_verified
from convmixer_jax.runs.steps import DamagedError
from convmixer_jax.training.assembly import Experiment
from convmixer_jax.training.given import Given, begin_with, converted_state, read_initial
from convmixer_jax.training.program import name_operations
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


def recorded_dataset(config: ConfigDict, workdir: Path, data_dir: Path, record: dict[str, Any] | None) -> Dataset:
    """Returns what config.dataset names, with the classes that the run began with.

    record: what `check_same_run` returned. Raises UserError where there is no such data set, or it has other classes.
    """
    known = from_record(record.get("dataset") if record else None, str(workdir / CONFIG_FILE))
    return find_dataset(config.dataset, data_dir, known=known, image_size=config.image_size, crop_pct=config.crop_pct)


def write_record(workdir: Path, experiment: Experiment, record: dict[str, Any] | None, data_digest: str) -> None:
    """Writes config.json: the resolved config, the digest of the training data, this start and the earlier ones.

    Where the data set is no row of DATASETS, its classes and sizes, too.

    To be called once all checks have passed: a refused start leaves the record as it was.
    """
    start = describe() | {"operations": name_operations(experiment)}
    earlier = [*record.get("earlier_starts", []), {name: record.get(name) for name in start}] if record else []
    if jax.process_index() == 0:
        config, known = experiment.config, to_record(experiment.config.dataset, experiment.dataset)
        found = {"dataset": known} if known else {}
        values = {"config": to_plain(config), "data_digest": data_digest, **found, **start, "earlier_starts": earlier}
        files.write_json(workdir / CONFIG_FILE, values)


def restore_state(experiment: Experiment, checkpoints: Checkpoints, step: int) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, meta) of a saved step, laid out for this run's devices.

    Raises UserError where the checkpoint is of another run than its workdir's config.json says, or does not fit;
    DamagedError where it is not what was saved.
    """
    tree, meta = checkpoints.restore(step, to_tree(experiment.abstract_state))
    if meta.get("config_digest") != digest(experiment.config):
        raise UserError(
            f"checkpoint {step} in {checkpoints.directory} was made with another config than the one asked for: "
            "use that one, or another --workdir"
        )
    return from_tree(experiment.abstract_state, tree), meta


def initial_weights(experiment: Experiment, checkpoints: Checkpoints, say: Callable[[str], None]) -> Given | None:
    """Returns what config.init_from names, where it names something and there is no checkpoint; says what is odd.

    Raises UserError where it does not fit, and where all checkpoints that there were are damaged.
    """
    check_not_lost(checkpoints)
    given = read_initial(experiment) if checkpoints.saved is None else None
    for line in given.told if given else ():
        say(line)
    return given


def check_not_lost(checkpoints: Checkpoints) -> None:
    """Raises UserError where there were checkpoints and none is good: a run is not begun again without a word."""
    lost = checkpoints.lost()
    if lost and checkpoints.saved is None:
        raise UserError(
            f"no checkpoint in {checkpoints.directory} is good: put a copy of one there, or use another --workdir; to "
            f"begin again in this one remove {lost[0].parent}, which holds {', '.join(path.name for path in lost)}"
        )


def first_state(
    experiment: Experiment, checkpoints: Checkpoints, given: Given | None, say: Callable[[str], None]
) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, meta) of the newest good checkpoint; where there is none, fresh weights and an empty meta.

    Sets those aside that are damaged, and says so. given: what `initial_weights` returned, taken instead of fresh
    weights. Raises UserError where all checkpoints are damaged, or one does not fit.
    """

    restored = None
    while checkpoints.saved is not None and restored is None:
        # By its number, whether its folder is there or not: the first process may have set it aside already, and all
        # must agree on what to do next.
        try:
            restored = restore_state(experiment, checkpoints, checkpoints.saved)
        except DamagedError as damage:
            checkpoints.set_aside(damage, checkpoints.saved)
    for line in checkpoints.told:
        say(line)
    if restored and checkpoints.saved is not None:
        if checkpoints.unverified(checkpoints.saved):
            say(not_verified(checkpoints.saved))
        return restored
    check_not_lost(checkpoints)
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
    """Returns a workdir's checkpoint of `step`, or a converted directory's weights, step 0.

    step: None for the newest good one. Raises UserError where there is none, or it does not fit.
    """
    if is_converted(workdir):
        state, told = converted_state(experiment, workdir, step)
        return Evaluated(state, UNKNOWN_META, 0, "raw", told)
    with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        found = checkpoints.read_newest(lambda number: restore_state(experiment, checkpoints, number), step)
        saved = ", ".join(map(str, checkpoints.steps()))
    if found is None and not saved:
        raise UserError(f"--workdir {workdir} has no checkpoint: train first (--mode train)")
    if found is None:
        raise UserError(f"--step is {step}: {workdir} has checkpoints of steps {saved}")
    number, (state, meta), told = found
    return Evaluated(state, meta, number, experiment.config.eval_params, told)
