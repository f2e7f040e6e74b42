"""One start of a run: where it goes on from, what it reads, what it leaves; and the evaluation of a checkpoint.

Starting: a finished workdir says so; else the newest checkpoint in the workdir; else the weights that config.init_from
names; else fresh ones.
"""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from convmixer_jax.config_record import EVAL_MAY_CHANGE, RESUME_MAY_CHANGE
from convmixer_jax.errors import ExitCode, UserError
from convmixer_jax.runs import files
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.clock import RunClock, Timeline
from convmixer_jax.runs.lock import WorkdirLock
from convmixer_jax.runs.memory import gigabytes, memory_limit
from convmixer_jax.runs.metrics_log import MetricsLog
from convmixer_jax.runs.pictures import image_grid, load_picture, save_picture
from convmixer_jax.runs.progress import Progress, tell
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.training.assembly import Experiment, assemble, choose_ops
from convmixer_jax.training.capacity import evaluation_mistakes, loading_mistakes, update_mistakes
from convmixer_jax.training.evaluate import evaluate_state
from convmixer_jax.training.given import refuse_converted
from convmixer_jax.training.loop import Loop
from convmixer_jax.training.program import loop_warning, memory_request, start_compiling
from convmixer_jax.training.result import make_result
from convmixer_jax.training.resume import (
    check_same_data,
    check_same_run,
    first_state,
    initial_weights,
    saved_state,
    write_record,
)
from convmixer_jax.training.run_inputs import Inputs, first_images, load_evaluation, load_inputs
from convmixer_jax.training.state import TrainState
from convmixer_jax.weights.converted import is_converted

RESULT_FILE = "result.json"


def is_lead() -> bool:
    """Whether this process is the one that writes and talks."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """Prints a line for a person on standard error; standard output is for results."""
    if is_lead():
        tell(line)


@dataclasses.dataclass(frozen=True)
class Start:
    """What the updates begin with. meta: of the checkpoint that the state is from, see `Loop.meta`, or empty."""

    inputs: Inputs
    state: TrainState
    meta: dict[str, Any]
    program: jax.stages.Compiled


def open_log(workdir: Path, seen: np.ndarray | None, step: int) -> MetricsLog | None:
    """Returns the log, rewound to `step`, with the picture of training images; None but on the first process.

    seen: the images, None where the picture is there from an earlier start.
    """
    if not is_lead():
        return None
    log = MetricsLog(workdir, after_step=step)
    path = workdir / "augmented.png"
    if seen is not None:
        save_picture(path, image_grid(seen))
    picture = load_picture(path)
    if picture is not None:
        log.write_image("train/augmented", picture, 0)
    return log


def is_finished(experiment: Experiment, workdir: Path) -> bool:
    """Whether the run has its result and its last checkpoint; says so. Changes nothing."""
    result = files.read_json(workdir / RESULT_FILE)
    if result is None or not {"step", "split", "top1"} <= result.keys():
        return False
    with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        if checkpoints.saved != experiment.total_steps:
            return False
    say(f"{workdir} is finished: step {result['step']}, {result['split']} top1 {result['top1']:.4f}; nothing to do")
    return True


def finish(experiment: Experiment, loop: Loop, workdir: Path) -> bool:
    """Writes result.json and the closing line: always the last step, on the test split. Returns whether it could."""
    step = experiment.total_steps
    # A run that was ended between its last checkpoint and its result has made no evaluation in this start.
    for split in loop.evaluations:
        if split not in loop.results:
            loop.evaluate(split)
    tested = loop.results["test"]
    result = make_result(experiment, loop.meta(), "test", tested, step)
    if "val" in loop.results:
        result["val_top1"] = loop.results["val"]["top1"]
    try:
        if is_lead():
            files.write_json(workdir / RESULT_FILE, result)
    except OSError as error:
        say(f"warning: {workdir / RESULT_FILE} could not be written ({error.strerror}); free its place and run again")
        return False
    say(
        f"finished: test top1 {tested['top1']:.4f}, top5 {tested['top5']:.4f}, loss {tested['loss']:.4f} on "
        f"{tested['n']} images after {result['epochs']:g} epochs ({result['images_per_sec']:.0f} images/s; at most "
        f"{gigabytes(result['peak_device_bytes'] or result['peak_host_bytes'])} of memory); "
        f"result, curves and checkpoints are in {workdir}"
    )
    return True


def describe_run(experiment: Experiment, start: int) -> str:
    """Returns the lines that open the training."""
    config = experiment.config
    ops, why = choose_ops(config, experiment.dataset, experiment.mesh)
    warning = loop_warning(experiment)
    return (
        f"operations: {ops}{f' ({why})' if why else ''}\n"
        + (f"{warning}\n" if warning else "")
        + f"{config.dataset}: {experiment.sizes['train']} training images, {experiment.total_steps} updates of "
        f"{config.batch_size} on {experiment.mesh.size} x {jax.devices()[0].device_kind}, "
        + (f"going on from step {start}" if start else f"from {config.init_from or 'fresh weights'}")
    )


def lacks_picture(workdir: Path) -> bool:
    """Whether the picture of training images is still to be made; all processes get the first one's answer."""
    missing = is_lead() and load_picture(workdir / "augmented.png") is None
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(missing)))


def make_updates(
    experiment: Experiment,
    workdir: Path,
    start: Start,
    *,
    checkpoints: Checkpoints,
    clock: RunClock,
    stop: StopRequest,
    timeline: Timeline,
) -> tuple[Loop, ExitCode]:
    """Runs the loop; returns it with what it ended with."""
    step = int(start.state.step)
    say(describe_run(experiment, step))
    seen = first_images(experiment, start.inputs.source) if lacks_picture(workdir) else None
    with contextlib.ExitStack() as cleanup:
        log = open_log(workdir, seen, step)
        if log:
            cleanup.enter_context(contextlib.closing(log))
        size = experiment.config.batch_size
        progress = cleanup.enter_context(Progress(experiment.total_steps, step, size, is_lead()))
        loop = Loop(
            experiment,
            start.program,
            start.state,
            start.inputs.source,
            start.inputs.evaluations,
            checkpoints=checkpoints,
            log=log,
            progress=progress,
            clock=clock,
            stop=stop,
            timeline=timeline,
            history=start.meta,
        )
        return loop, loop.run()


def prepare_start(
    experiment: Experiment,
    workdir: Path,
    data_dir: Path,
    record: dict[str, Any] | None,
    checkpoints: Checkpoints,
    timeline: Timeline,
    cleanup: contextlib.ExitStack,
) -> Start:
    """Reads weights and data while the program is compiled, and closes by `cleanup` what it opens. Raises UserError.

    record: what `check_same_run` returned.
    """
    # Of the host's memory it is what is left now, before data and state, which the program counts as its own.
    limit, request = memory_limit(list(experiment.mesh.devices.flat)), memory_request(experiment)
    cleanup.enter_context(update_mistakes(request))
    initial = initial_weights(experiment, checkpoints, say)
    timeline.mark("assembly")
    compiling = cleanup.enter_context(start_compiling(experiment, limit, request))
    with loading_mistakes(experiment.config.input):
        inputs = load_inputs(experiment, data_dir)
    cleanup.callback(inputs.source.close)
    check_same_data(workdir, record, inputs.digest)
    timeline.mark("data")
    state, meta = first_state(experiment, checkpoints, initial)
    del initial  # the devices have them now; the host's copy can be as large as the model
    write_record(workdir, experiment.config, record, inputs.digest)
    timeline.mark("weights")
    program, told = compiling.result()
    say(parameter_overview.get_parameter_overview(experiment.abstract_state.params, include_stats=False))
    say(told)
    timeline.mark("compilation")
    return Start(inputs, state, meta, program)


def train(config: ConfigDict, workdir: Path, data_dir: Path, stop: StopRequest, timeline: Timeline) -> ExitCode:
    """Trains to the end, or goes on where the workdir stopped. Returns the exit code; raises UserError."""
    clock = RunClock()
    experiment = assemble(config)
    refuse_converted(workdir)
    files.make_workdir(workdir)
    record = check_same_run(workdir, config, RESUME_MAY_CHANGE)
    if is_finished(experiment, workdir):
        return ExitCode.DONE
    with contextlib.ExitStack() as cleanup:
        if is_lead():
            cleanup.enter_context(WorkdirLock(workdir))
        checkpoints = cleanup.enter_context(
            contextlib.closing(Checkpoints(workdir / "checkpoints", config.keep_checkpoints))
        )
        start = prepare_start(experiment, workdir, data_dir, record, checkpoints, timeline, cleanup)
        clock.add_earlier(start.meta.get("seconds", 0.0), start.meta.get("step_seconds", 0.0))
        loop, code = make_updates(
            experiment,
            workdir,
            start,
            checkpoints=checkpoints,
            clock=clock,
            stop=stop,
            timeline=timeline,
        )
        if loop.done and not finish(experiment, loop, workdir):
            return ExitCode.UNSAVED
    return code


def evaluate_checkpoint(config: ConfigDict, workdir: Path, data_dir: Path, step: int | None) -> ExitCode:
    """Evaluates a saved step on the test split; the last line of standard output is an object as in result.json.

    workdir: may be a converted directory, too. step: None for the newest. Reads no training data, writes nothing, works
    on any number of devices.
    """
    if not is_converted(workdir) and check_same_run(workdir, config, EVAL_MAY_CHANGE) is None:
        raise UserError(f"--workdir {workdir} holds no run: train first (--mode train), or name the run's folder")
    experiment = assemble(config, training=False)
    saved, size = saved_state(experiment, workdir, step), experiment.sizes["test"]
    with loading_mistakes(config.input):
        source = load_evaluation(experiment, data_dir, "test")
    say("\n".join([*saved.told, f"evaluating step {saved.step} of {workdir} on the test split, {size} images"]))
    began = time.monotonic()
    with evaluation_mistakes(experiment.eval_batch_size, config.input):
        evaluated = evaluate_state(experiment.eval_step, saved.state, saved.which, source, size)
    result: dict[str, Any] = make_result(experiment, saved.meta, "test", evaluated, saved.step)
    result["eval_seconds"] = time.monotonic() - began
    if is_lead():
        print(json.dumps(result), flush=True)
    return ExitCode.DONE
