"""One start of a run: where it goes on from, what it reads, what it leaves; and the evaluation of a checkpoint.

Starting: a finished workdir says so; else the newest checkpoint in the workdir; else fresh weights.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from flax import serialization
from ml_collections import ConfigDict

from convmixer_jax.config import differences, to_plain
from convmixer_jax.data.datasets import load_split
from convmixer_jax.data.order import batch_indices
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs import files
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.clock import RunClock, Timeline
from convmixer_jax.runs.metrics_log import MetricsLog
from convmixer_jax.runs.pictures import image_grid, load_picture, save_picture
from convmixer_jax.runs.progress import Progress
from convmixer_jax.runs.provenance import describe
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.training.assembly import Experiment, abstract_inputs, assemble
from convmixer_jax.training.evaluate import evaluate
from convmixer_jax.training.loop import Loop
from convmixer_jax.training.mesh import over_data, replicated
from convmixer_jax.training.state import TrainState, stream_key

GRID_IMAGES = 64


def is_lead() -> bool:
    """Whether this process is the one that writes and talks."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line for a person on standard error; standard output is for results."""
    if is_lead():
        print(line, file=sys.stderr, flush=True)


def check_same_run(workdir: Path, config: ConfigDict) -> dict[str, Any] | None:
    """Returns the workdir's config.json, None where it is new. Raises UserError where it is another run's."""
    record = files.read_json(workdir / "config.json")
    if record is None:
        return None
    changed = differences(record.get("config", {}), config)
    if changed:
        raise UserError(
            f"--workdir {workdir} holds another run ({'; '.join(changed)}): use another --workdir, or the config "
            f"that its config.json holds"
        )
    return record


def write_record(workdir: Path, config: ConfigDict, record: dict[str, Any] | None, data_digest: str) -> None:
    """Writes config.json: the resolved config, the digest of the training data, and one entry for each start.

    Raises UserError where the data are not those that the run began with.
    """
    record = record or {"data_digest": data_digest, "starts": []}
    if record["data_digest"] != data_digest:
        raise UserError(
            f"--workdir {workdir} was trained on other data (SHA-256 {record['data_digest'][:12]}..., now "
            f"{data_digest[:12]}...): give the --data_dir it began with, or use another --workdir"
        )
    record = {"config": to_plain(config)} | record | {"config": to_plain(config)}
    record["starts"].append(describe())
    if is_lead():
        files.write_json(workdir / "config.json", record)


def restore_state(
    experiment: Experiment, checkpoints: Checkpoints, step: int
) -> tuple[TrainState, dict[str, Any]]:
    """Returns (state, meta) of a saved step, laid out for this run's devices."""
    abstract = serialization.to_state_dict(experiment.abstract_state)
    tree, meta = checkpoints.restore(step, abstract)
    return serialization.from_state_dict(experiment.abstract_state, tree), meta


def load_evaluations(experiment: Experiment, data_dir: Path, splits: list[str]) -> dict[str, ResidentEvaluation]:
    """Returns each split on the devices, in batches for evaluation."""
    config, mesh = experiment.config, experiment.mesh
    return {
        split: ResidentEvaluation(
            load_split(experiment.dataset, split, data_dir, config.val_fraction, config.train_examples),
            replicated(mesh),
            over_data(mesh),
            experiment.eval_batch_size,
        )
        for split in splits
    }


def augmented_grid(experiment: Experiment, images: np.ndarray) -> np.ndarray:
    """Returns the first training batch as the first update sees it, before normalisation, as one picture.

    images: the training split, uint8 [N, H, W, C].
    """
    config = experiment.config
    batch = images[batch_indices(config.seed, 0, config.batch_size, len(images))]
    key = jax.random.fold_in(stream_key(config.seed, "augment"), 0)
    augmented = jax.device_get(jax.jit(experiment.augment)(key, batch))[:GRID_IMAGES]
    return image_grid(np.round(augmented).astype(np.uint8))


def show_picture(experiment: Experiment, workdir: Path, images: np.ndarray, log: MetricsLog) -> None:
    """Leaves augmented.png in the workdir, once, and shows it in the events of every start."""
    path = workdir / "augmented.png"
    if not path.exists():
        save_picture(path, augmented_grid(experiment, images))
    log.write_image("train/augmented", load_picture(path), 0)


def make_result(experiment: Experiment, meta: dict[str, Any], step: int, evaluated: dict[str, Any]) -> dict[str, Any]:
    """Returns the object of result.json for an evaluation of `step`.

    evaluated: split, n, top1, top5, loss and per_class. `seconds` are wall seconds of all starts, `seconds_per_epoch`
    and `images_per_sec` are of the updates alone, without compilation, evaluation and saving.
    """
    epochs = step / experiment.steps_per_epoch
    names = experiment.dataset.class_names
    per_class = dict(zip(names, evaluated["per_class"], strict=True))
    images = step * experiment.config.batch_size
    result = {name: evaluated[name] for name in ("split", "n", "top1", "top5", "loss")}
    result |= {
        "train_top1": meta["train_top1"],
        "step": step,
        "epochs": epochs,
        "params": experiment.num_params,
        "seconds": meta["seconds"],
        "seconds_per_epoch": meta["step_seconds"] / epochs,
        "images_per_sec": images / meta["step_seconds"],
        "per_class_top1": per_class,
    }
    if meta["best"] is not None:
        result |= {"best_val_top1": meta["best"]["val_top1"], "best_val_step": meta["best"]["step"]}
    return files.to_json(result)


def finish(experiment: Experiment, loop: Loop, workdir: Path) -> None:
    """Writes result.json and the closing line: always the last step, on the test split."""
    result = make_result(
        experiment, loop.meta(experiment.total_steps), experiment.total_steps, {"split": "test", **loop.results["test"]}
    )
    if "val" in loop.results:
        result["val_top1"] = loop.results["val"]["top1"]
    if is_lead():
        files.write_json(workdir / "result.json", result)
    say(
        f"finished: test top1 {result['top1']:.4f}, top5 {result['top5']:.4f}, loss {result['loss']:.4f} on "
        f"{result['n']} images after {result['epochs']:g} epochs ({result['images_per_sec']:.0f} images/s); "
        f"result, curves and checkpoints are in {workdir}"
    )


def train(config: ConfigDict, workdir: Path, data_dir: Path, stop: StopRequest, timeline: Timeline) -> ExitCode:
    """Trains to the end, or goes on where the workdir stopped. Returns the exit code; raises UserError."""
    experiment = assemble(config)
    files.make_workdir(workdir)
    record = check_same_run(workdir, config)
    checkpoints = Checkpoints(workdir / "checkpoints", config.keep_checkpoints)
    result = files.read_json(workdir / "result.json")
    if result is not None and checkpoints.saved == experiment.total_steps:
        say(f"{workdir} is finished: step {result['step']}, {result['split']} top1 {result['top1']:.4f}; nothing to do")
        return ExitCode.DONE
    say(parameter_overview.get_parameter_overview(experiment.abstract_state.params, include_stats=False))
    timeline.mark("import")

    examples = load_split(experiment.dataset, "train", data_dir, config.val_fraction, config.train_examples)
    evaluations = load_evaluations(experiment, data_dir, sorted({experiment.eval_split, "test"}, reverse=True))
    write_record(workdir, config, record, examples.digest())
    shardings = replicated(experiment.mesh), over_data(experiment.mesh)
    source = ResidentInput(examples, *shardings, config.seed, config.batch_size)
    timeline.mark("data")

    train_step = experiment.train_step.lower(experiment.abstract_state, *abstract_inputs(experiment)).compile()
    meta: dict[str, Any] = {}
    if checkpoints.saved is None:
        state = experiment.init_state(np.uint32(config.seed))
    else:
        state, meta = restore_state(experiment, checkpoints, checkpoints.saved)
    timeline.mark("compile")
    start = int(state.step)
    say(
        f"{config.dataset}: {len(examples)} training images, {experiment.total_steps} updates of {config.batch_size} "
        f"on {experiment.mesh.size} x {jax.devices()[0].device_kind}, "
        + (f"going on from step {start}" if start else "from the start")
    )
    log = MetricsLog(workdir, start) if is_lead() else None
    if log:
        show_picture(experiment, workdir, examples.image, log)
    with Progress(experiment.total_steps, start, config.batch_size, is_lead()) as progress:
        loop = Loop(
            experiment,
            train_step,
            state,
            source,
            evaluations,
            checkpoints=checkpoints,
            log=log,
            progress=progress,
            clock=RunClock(meta.get("seconds", 0.0), meta.get("step_seconds", 0.0)),
            stop=stop,
            timeline=timeline,
            history=meta,
        )
        code = loop.run()
    if code is not ExitCode.STOPPED and loop.results:
        finish(experiment, loop, workdir)
    return code


def choose_step(checkpoints: Checkpoints, workdir: Path, step: int | None) -> int:
    """Returns `step`, or the newest one where it is None. Raises UserError where there is none such."""
    saved = checkpoints.steps()
    if not saved:
        raise UserError(f"--workdir {workdir} has no checkpoint: train first (--mode train)")
    if step is not None and step not in saved:
        raise UserError(f"--step is {step}: {workdir} has checkpoints of steps {', '.join(map(str, saved))}")
    return saved[-1] if step is None else step


def evaluate_checkpoint(config: ConfigDict, workdir: Path, data_dir: Path, step: int | None) -> ExitCode:
    """Evaluates a saved step on the test split; the last line of standard output is an object as in result.json.

    step: None for the newest. Reads no training data, writes nothing, works on any number of devices.
    """
    experiment = assemble(config)
    if check_same_run(workdir, config) is None:
        raise UserError(f"--workdir {workdir} holds no run: train first (--mode train), or name the run's folder")
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    step = choose_step(checkpoints, workdir, step)
    say(f"evaluating step {step} of {workdir} on the test split, {experiment.sizes['test']} images")
    evaluations = load_evaluations(experiment, data_dir, ["test"])
    state, meta = restore_state(experiment, checkpoints, step)
    began = time.monotonic()
    evaluated = evaluate(
        experiment.eval_step, state.params, state.batch_stats, evaluations["test"], experiment.sizes["test"]
    )
    result = make_result(experiment, meta, step, {"split": "test", **evaluated})
    result["eval_seconds"] = time.monotonic() - began
    if is_lead():
        print(json.dumps(result), flush=True)
    return ExitCode.DONE
