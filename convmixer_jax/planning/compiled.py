"""A config's update, compiled for devices that are here or absent: what it needs and what it does.

    place = absent_place("v5e:2x4", config, dataset)        # or local_place(config, dataset)
    outcome = compile_update(place, config)
    outcome.fits, outcome.need, outcome.work

The program is a run's own dispatch, as many updates in a call as its plan says: what a run compiles is what is told of.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from convmixer_jax.data.datasets import Dataset
from convmixer_jax.errors import UserError
from convmixer_jax.ops.choice import loops_well
from convmixer_jax.planning.absent import absent_mesh
from convmixer_jax.planning.chips import GIB, chip_of
from convmixer_jax.planning.program_text import Collective, read_collectives, read_program, traffic
from convmixer_jax.runs.memory import is_out_of_memory, memory_limit
from convmixer_jax.training.assembly import Experiment, abstract_arguments, assemble, choose_ops, platform_of
from convmixer_jax.training.capacity import Need, Request, program_need
from convmixer_jax.training.program import memory_request
from convmixer_jax.training.update import MOST_UNROLLED

# How XLA says what a program that it refuses would have needed, in units of 2^30 bytes and so on.
REFUSALS = (
    r"total memory required .*?\(([\d.]+)([KMG])\) exceeds available",
    r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm",
)
UNITS = {"K": GIB / 2**20, "M": GIB / 2**10, "G": GIB}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where updates would run: on so many devices. assembled: from a config to its run there.

    limit: bytes of each device, if known.
    """

    assembled: Callable[[ConfigDict], Experiment]
    limit: int | None
    devices: int


@dataclasses.dataclass(frozen=True)
class Work:
    """What one update does on each device; what a loop of the program repeats counts once.

    But micro-batches count as often as they are made, the optimiser with them. flops: by the compiler's count. traffic:
    bytes to and from memory. cycles: that a TPU's compiler estimates, of all but pallas_flops, the operations of Pallas
    calls. sent: what crosses between devices, and how often.
    """

    flops: float
    traffic: float
    cycles: float
    pallas_flops: float
    sent: tuple[tuple[Collective, int], ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a compilation. need: None where nobody tells. work: None where there is no program."""

    experiment: Experiment
    request: Request
    need: Need | None
    fits: bool
    work: Work | None
    compile_seconds: float
    program: jax.stages.Compiled | None

    @property
    def per_device(self) -> int:
        """Examples of a batch on each device."""
        return self.request.per_device


def absent_place(topology: str, config: ConfigDict, dataset: Dataset) -> Place:
    """Returns a TPU slice that need not be there. Raises UserError where there is none such, or no compiler."""
    limit = chip_of(topology).usable_bytes
    mesh = absent_mesh(topology, config.fsdp_devices)
    if config.devices not in (0, mesh.size):
        raise UserError(f"config.devices is {config.devices}: {topology} has {mesh.size}; 0 takes all of them")
    return Place(lambda config: assemble(config, dataset, absent=(mesh, limit)), limit, mesh.size)


def local_place(config: ConfigDict, dataset: Dataset) -> Place:
    """Returns the devices of this machine that a run of the config would take, with what they have left."""
    devices = jax.devices()[: config.devices or None]
    return Place(lambda config: assemble(config, dataset), memory_limit(devices), len(devices))


def held_bytes(experiment: Experiment) -> int:
    """Returns the bytes of a dispatch's arguments that each device holds: state, data and batches."""
    leaves: list[Any] = jax.tree.leaves(abstract_arguments(experiment))
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def refused_need(error: Exception, experiment: Experiment) -> Need | None:
    """Returns what the refused program would have needed; None where the compiler does not tell."""
    for pattern in REFUSALS:
        found = re.search(pattern, str(error))
        if found:
            total, held = int(float(found[1]) * UNITS[found[2]]), held_bytes(experiment)
            return Need(held, total - held)
    return None


def micro_batch_turns(experiment: Experiment) -> int:
    """Returns how often the loop over micro-batches turns, 1 where there is none."""
    parts = experiment.config.accumulate_steps
    ops, _ = choose_ops(experiment.config, experiment.dataset, experiment.mesh)
    at_once = 1 if loops_well(ops, platform_of(experiment.mesh)) else min(parts, MOST_UNROLLED)
    return math.ceil(parts / at_once)


def program_work(program: jax.stages.Compiled, experiment: Experiment) -> Work:
    """Returns what one update of the program does."""
    text, costs, turns = program.as_text() or "", program.cost_analysis() or {}, micro_batch_turns(experiment)
    told, around = read_program(text), int(experiment.plan.looped)
    return Work(
        flops=turns * costs.get("flops", 0.0),
        traffic=turns * traffic(text),
        cycles=turns * told["cycles"],
        pallas_flops=turns * told["pallas_flops"],
        sent=tuple((each, turns if each.loops > around else 1) for each in read_collectives(text)),
    )


def compile_update(place: Place, config: ConfigDict) -> Outcome:
    """Returns what comes of compiling the config's updates. Raises UserError where they cannot be assembled."""
    experiment = place.assembled(config)
    request, began = memory_request(experiment), time.perf_counter()
    lowered = experiment.dispatch.lower(*abstract_arguments(experiment))
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise UserError(f"config.model.ops is {config.model.ops!r}: it cannot be compiled ({error})") from error
        need, seconds = refused_need(error, experiment), time.perf_counter() - began
        return Outcome(experiment, request, need, fits=False, work=None, compile_seconds=seconds, program=None)
    seconds, need = time.perf_counter() - began, program_need(program)
    fits = need is None or place.limit is None or need.total <= place.limit
    work = program_work(program, experiment)
    return Outcome(experiment, request, need, fits, work, seconds, program)
