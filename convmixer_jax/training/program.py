"""The program that makes the updates, compiled before the first of them, and what it needs.

warning = loop_warning(experiment)
request = memory_request(experiment)
with start_compiling(experiment, limit, request) as compiling:
    ...                                  # data are read meanwhile
    program, told = compiling.result()
"""

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from convmixer_jax.models.variants import find_variant
from convmixer_jax.ops.choice import AUTO, computes_as, loops_well
from convmixer_jax.ops.sharing import share
from convmixer_jax.runs.allocator import KeptMemory
from convmixer_jax.runs.memory import gigabytes, host_available_bytes, host_resident_bytes
from convmixer_jax.runs.programs import Origin
from convmixer_jax.training.assembly import Experiment, abstract_arguments, abstract_inputs, choose_ops, platform_of
from convmixer_jax.training.capacity import Request, check_fits, program_need
from convmixer_jax.training.stopping import IN_FLIGHT

# Dispatches whose temporaries a run may hold: those under way, and as many blocks that small things lie in, so that
# they do not fit any more.
TEMPORARIES = 2 * IN_FLIGHT
MOST_OF_AVAILABLE = 0.75  # of the machine's free memory, that may be held at most
SMALL_BYTES = 500_000_000  # that a run may grow by beside its updates: an evaluation, a checkpoint


def bytes_of(tree: Any) -> int:
    """Returns the bytes of all leaves, arrays or their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def operations_of(experiment: Experiment) -> tuple[str, str | None]:
    """Returns the row of OPS that updates are made with, and why not, or not wholly, with the one wanted, or None."""
    config, mesh = experiment.config, experiment.mesh
    ops, why = choose_ops(config, experiment.dataset, mesh)
    examples = config.batch_size // config.accumulate_steps
    return ops, why or computes_as(ops, examples // mesh.size, share(examples, config.model.bn_group_size, mesh))


def name_operations(experiment: Experiment) -> str:
    """Returns `operations_of` for a person: "native", or "channel_major (native: ...)"."""
    ops, why = operations_of(experiment)
    return f"{ops} ({why})" if why else ops


def loop_warning(experiment: Experiment) -> str | None:
    """Returns a line on updates that their loop slows down, which config.steps_per_dispatch asked for, or None."""
    config, platform = experiment.config.copy_and_resolve_references(), platform_of(experiment.mesh)
    ops, _ = choose_ops(config, experiment.dataset, experiment.mesh)
    if not experiment.plan.looped or loops_well(ops, platform):
        return None
    config.model.ops = AUTO
    quickest, _ = choose_ops(config, experiment.dataset, experiment.mesh)
    other = f", or take config.model.ops={AUTO}" if loops_well(quickest, platform) else ""
    return (
        f"warning: config.steps_per_dispatch is {config.steps_per_dispatch}: on a {platform} the operations {ops!r} "
        f"are many times slower inside of a loop of updates; set config.steps_per_dispatch=0{other}"
    )


def memory_request(experiment: Experiment) -> Request:
    """Returns what decides on the memory of the experiment's updates."""
    config, model = experiment.config, experiment.config.model
    height, width, _ = experiment.dataset.image_shape
    _, data, _ = abstract_inputs(experiment)
    maps = find_variant(model.variant).maps(model, height, width)
    return Request(
        batch_size=config.batch_size,
        accumulate_steps=config.accumulate_steps,
        per_device=config.batch_size // experiment.mesh.size,
        data_bytes=bytes_of(data),
        depth=len(maps),
        params_bytes=bytes_of(experiment.abstract_state.params),
        map_bytes=sum(maps) // max(len(maps), 1) * jnp.dtype(config.dtype).itemsize,
        # XLA's CPU backend keeps what it is told to compute again: measured, not a byte less.
        remat=None if platform_of(experiment.mesh) == "cpu" or not maps else model.remat,
    )


def compile_updates(
    experiment: Experiment, limit: int | None, request: Request, abandoned: threading.Event
) -> tuple[jax.stages.Compiled, str]:
    """Returns the compiled dispatch, and a line on where it comes from and what it needs.

    limit: bytes that there are on each device, None for unknown. Raises UserError where it needs more, CancelledError
    where nobody waits for the program any more before XLA begins, which cannot be interrupted then.
    """
    with Origin() as origin:
        lowered = experiment.dispatch.lower(*abstract_arguments(experiment))
        if abandoned.is_set():
            raise concurrent.futures.CancelledError
        program = lowered.compile()
    need = program_need(program)
    if need is None:
        return program, f"program of the updates: {origin}"
    check_fits(need, limit, request)
    there = "" if limit is None else f" of {gigabytes(limit)}"
    return program, (
        f"program of the updates: {origin}; memory on each device: {gigabytes(need.total)}{there}, "
        f"{gigabytes(need.held)} state and data, {gigabytes(need.temporary)} temporaries"
    )


def kept_memory(experiment: Experiment, program: jax.stages.Compiled) -> KeptMemory | None:
    """Returns what bounds the freed memory that is kept; None on accelerators.

    To be called when data and state are there: beside them, four dispatches' temporaries of all of this process's
    devices may be held, but no more than MOST_OF_AVAILABLE.
    """
    need = program_need(program)
    if need is None or platform_of(experiment.mesh) != "cpu":
        return None
    more = TEMPORARIES * need.temporary * len(experiment.mesh.local_devices) + SMALL_BYTES
    available = host_available_bytes()
    if available is not None:
        more = min(more, int(MOST_OF_AVAILABLE * available))
    return KeptMemory(host_resident_bytes() + more)


@contextlib.contextmanager
def start_compiling(
    experiment: Experiment, limit: int | None, request: Request
) -> Iterator[concurrent.futures.Future[tuple[jax.stages.Compiled, str]]]:
    """Gives the future of `compile_updates` in a thread; an error inside does not wait for it."""
    thread, abandoned = concurrent.futures.ThreadPoolExecutor(1), threading.Event()
    try:
        yield thread.submit(compile_updates, experiment, limit, request, abandoned)
    finally:
        abandoned.set()
        thread.shutdown(wait=False)
