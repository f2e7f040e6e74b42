"""One start of a run: where it goes on from, what it reads, what it leaves; and the evaluation of a checkpoint.

Starting: a finished workdir says so; else the newest checkpoint in the workdir; else the weights that config.init_from
names; else fresh ones.
"""

import contextlib
import dataclasses
import functools
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
from convmixer_jax.runs.ledger import Ledger, start_up_seconds
from convmixer_jax.runs.lock import WorkdirLock
from convmixer_jax.runs.memory import gigabytes, memory_limit
from convmixer_jax.runs.metrics_log import MetricsLog
from convmixer_jax.runs.pictures import image_grid, load_picture, save_picture
from convmixer_jax.runs.progress import Progress, tell
from convmixer_jax.runs.signals import StopRequest
from convmixer_jax.training.agreement import check_workdir
from convmixer_jax.training.assembly import Experiment, assemble
from convmixer_jax.training.capacity import evaluation_mistakes, loading_mistakes, update_mistakes
from convmixer_jax.training.context import Attendants, RunContext, open_watchdog
from convmixer_jax.training.evaluate import evaluate_state
from convmixer_jax.training.given import refuse_converted
from convmixer_jax.training.loop import Loop
from convmixer_jax.training.program import loop_warning, memory_request, name_operations, start_compiling
from convmixer_jax.training.result import make_result
from convmixer_jax.training.resume import (
    check_same_data,
    check_same_run,
    first_state,
    initial_weights,
    recorded_dataset,
    saved_state,
    write_record,
)
from convmixer_jax.training.run_inputs import Inputs, first_images, load_evaluation, load_inputs
from convmixer_jax.training.state import TrainState
from convmixer_jax.training.stopping import AbandonedError
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


def open_log(workdir: Path, seen: np.ndarray | None, step: int, wandb_project: str) -> MetricsLog | None:
    """Returns the log, rewound to `step`, with the picture of training images; None but on the first process.

    seen: the images, None where the picture is there from an earlier start. wandb_project: see `MetricsLog`.
    """
    if not is_lead():
        return None
    log = MetricsLog(workdir, after_step=step, wandb_project=wandb_project)
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


def finish(experiment: Experiment, loop: Loop, workdir: Path) -> ExitCode:
    """Writes result.json and the closing line: always the last step, on the test split.

    Returns DONE; UNSAVED where it could not be written; STOPPED for a signal.
    """
    step, scores = experiment.total_steps, loop.scores
    # A run that was ended between its last checkpoint and its result has made no evaluation in this start.
    for split in loop.evaluations:
        if split not in scores.results:
            try:
                scores.evaluate(step, loop.state, split)
            except AbandonedError:
                say(f"{loop.stopping.reason}: step {step} is saved; run again to evaluate it")
                return ExitCode.STOPPED
    tested = scores.results["test"]
    result = make_result(experiment, loop.meta(), "test", tested, step)
    if "val" in scores.results:
        result["val_top1"] = scores.results["val"]["top1"]
    try:
        if is_lead():
            files.write_json(workdir / RESULT_FILE, result)
    except OSError as error:
        say(f"warning: {workdir / RESULT_FILE} could not be written ({error.strerror}); free its place and run again")
        return ExitCode.UNSAVED
    say(
        f"finished: test top1 {tested['top1']:.4f}, top5 {tested['top5']:.4f}, loss {tested['loss']:.4f} on "
        f"{tested['n']} images after {result['epochs']:g} epochs ({result['images_per_sec']:.0f} images/s; at most "
        f"{gigabytes(result['peak_device_bytes'] or result['peak_host_bytes'])} of memory); "
        f"result, curves and checkpoints are in {workdir}"
    )
    return ExitCode.DONE


def describe_run(experiment: Experiment, start: int) -> str:
    """Returns the lines that open the training."""
    config = experiment.config
    warning = loop_warning(experiment)
    return (
        f"operations: {name_operations(experiment)}\n"
        + (f"{warning}\n" if warning else "")
        + input_line(experiment)
        + f"{config.dataset}: {experiment.sizes['train']} training images, {experiment.total_steps} updates of "
        f"{config.batch_size} on {experiment.mesh.size} x {jax.devices()[0].device_kind}, "
        + (f"going on from step {start}" if start else f"from {config.init_from or 'fresh weights'}")
    )


def input_line(experiment: Experiment) -> str:
    """Returns a line on an input path that is not the one asked for; "" where it is."""
    if experiment.input_told is None:
        return ""
    return f"config.input: {experiment.input_name}, not {experiment.config.input} ({experiment.input_told})\n"


def lacks_picture(workdir: Path) -> bool:
    """Whether the picture of training images is still to be made; all processes get the first one's answer."""
    missing = is_lead() and load_picture(workdir / "augmented.png") is None
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(missing)))


def make_updates(
    experiment: Experiment, workdir: Path, start: Start, checkpoints: Checkpoints, with_it: Attendants
) -> tuple[Loop, ExitCode]:
    """Runs the loop; returns it with what it ended with."""
    step = int(start.state.step)
    say(describe_run(experiment, step))
    with_it.watch.doing("the first images", starting=True)
    seen = first_images(experiment, start.inputs.source) if lacks_picture(workdir) else None
    with contextlib.ExitStack() as cleanup:
        log = open_log(workdir, seen, step, experiment.config.wandb_project)
        if log:
            cleanup.enter_context(contextlib.closing(log))
        size = experiment.config.batch_size
        progress = cleanup.enter_context(Progress(experiment.total_steps, step, size, is_lead()))
        context = RunContext(**vars(with_it), checkpoints=checkpoints, log=log, progress=progress)
        loop = Loop(
            experiment,
            start.program,
            start.state,
            start.inputs.source,
            start.inputs.evaluations,
            context=context,
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
    with loading_mistakes(experiment.input_name):
        inputs = load_inputs(experiment, data_dir)
    cleanup.callback(inputs.source.close)
    check_same_data(workdir, record, inputs.digest)
    timeline.mark("data")
    state, meta = first_state(experiment, checkpoints, initial, say)
    del initial  # the devices have them now; the host's copy can be as large as the model
    write_record(workdir, experiment, record, inputs.digest)
    timeline.mark("weights")
    program, told = compiling.result()
    say(parameter_overview.get_parameter_overview(experiment.abstract_state.params, include_stats=False))
    say(told)
    timeline.mark("compilation")
    return Start(inputs, state, meta, program)


def train(config: ConfigDict, workdir: Path, data_dir: Path, stop: StopRequest, timeline: Timeline) -> ExitCode:
    """Trains to the end, or goes on where the workdir stopped. Returns the exit code; raises UserError."""
    clock, began = RunClock(), time.time() - timeline.seconds
    refuse_converted(workdir)
    record = check_same_run(workdir, config, RESUME_MAY_CHANGE)
    experiment = assemble(config, recorded_dataset(config, workdir, data_dir, record))
    files.make_workdir(workdir)
    with contextlib.ExitStack() as cleanup:
        watch = cleanup.enter_context(open_watchdog(workdir, config.watchdog_seconds, config.watchdog_compile_seconds))
        stop.end = functools.partial(watch.end, code=ExitCode.STOPPED, stacks=False)  # which tells the others
        watch.doing("all processes to find the same workdir", starting=True)
        check_workdir(workdir)
        if is_finished(experiment, workdir):
            return ExitCode.DONE
        if is_lead():
            cleanup.enter_context(WorkdirLock(workdir))
        ledger = cleanup.enter_context(Ledger(workdir, jax.process_index(), began))
        watch.doing("checkpoints, data and the program of the updates", starting=True)
        checkpoints = cleanup.enter_context(
            contextlib.closing(Checkpoints(workdir / "checkpoints", config.keep_checkpoints))
        )
        start = prepare_start(experiment, workdir, data_dir, record, checkpoints, timeline, cleanup)
        clock.add_earlier(start.meta.get("seconds", 0.0), start.meta.get("step_seconds", 0.0))
        ledger.ready(int(start.state.step), start_up_seconds(timeline.parts))
        with_it = Attendants(clock, stop, timeline, watch, ledger)
        loop, code = make_updates(experiment, workdir, start, checkpoints, with_it)
        if loop.done and code != ExitCode.STOPPED:
            finished = finish(experiment, loop, workdir)
            code = code if finished == ExitCode.DONE else finished
        ledger.note("end", loop.step, clock.spent())
    return code


def evaluate_checkpoint(config: ConfigDict, workdir: Path, data_dir: Path, step: int | None) -> ExitCode:
    """Evaluates a saved step on the test split; the last line of standard output is an object as in result.json.

    workdir: may be a converted directory, too. step: None for the newest. Reads no training data, writes nothing, works
    on any number of devices.
    """
    record = None if is_converted(workdir) else check_same_run(workdir, config, EVAL_MAY_CHANGE)
    if record is None and not is_converted(workdir):
        raise UserError(f"--workdir {workdir} holds no run: train first (--mode train), or name the run's folder")
    experiment = assemble(config, recorded_dataset(config, workdir, data_dir, record), training=False)
    saved, size = saved_state(experiment, workdir, step), experiment.sizes["test"]
    with loading_mistakes(experiment.input_name):
        source = load_evaluation(experiment, data_dir, "test")
    about = f"evaluating step {saved.step} of {workdir} on the test split, {size} images"
    say(input_line(experiment) + "\n".join([*saved.told, about]))
    began = time.monotonic()
    with evaluation_mistakes(experiment.eval_batch_size, experiment.input_name):
        evaluated = evaluate_state(experiment.eval_step, saved.state, saved.which, source, size)
    result: dict[str, Any] = make_result(experiment, saved.meta, "test", evaluated, saved.step)
    result["eval_seconds"] = time.monotonic() - began
    if is_lead():
        print(json.dumps(result), flush=True)
    return ExitCode.DONE
