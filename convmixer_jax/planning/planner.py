"""The whole plan of a config, as one object for --json; report.py makes lines of it.

plan = plan_absent(config, dataset, "v5e:4x4", efficiency=0.5, keep_batch=False, tell=print)
plan = plan_local(config, dataset, measure=True, tell=print)
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax
from ml_collections import ConfigDict

from convmixer_jax.config import to_plain
from convmixer_jax.data.datasets import Dataset, split_sizes
from convmixer_jax.planning.absent import sides_of
from convmixer_jax.planning.chips import chip_of
from convmixer_jax.planning.compiled import Outcome, Place, Work, absent_place, compile_update, local_place
from convmixer_jax.planning.estimate import update_times
from convmixer_jax.planning.measured import update_seconds
from convmixer_jax.planning.slices import Recipe, common_config, constant_batch, constant_share, refusal
from convmixer_jax.planning.ways import Way, verified_ways
from convmixer_jax.training.program import operations_of

Plan = dict[str, Any]
Tell = Callable[[str], None]


def sent_of(work: Work) -> dict[str, dict[str, int]]:
    """Returns {kind: {number, bytes}} of what crosses between devices in an update."""
    numbers: Counter[str] = Counter()
    payloads: Counter[str] = Counter()
    for each, times in work.sent:
        numbers[each.kind] += times
        payloads[each.kind] += times * each.payload
    return {kind: {"number": numbers[kind], "bytes": payloads[kind]} for kind in numbers}


def outcome_record(outcome: Outcome) -> Plan:
    """Returns an outcome as plain values."""
    need, work, config = outcome.need, outcome.work, outcome.experiment.config
    memory = None if need is None else {"total": need.total, "held": need.held, "temporary": need.temporary}
    record: Plan = {
        "batch_size": config.batch_size,
        "per_device": outcome.per_device,
        "fits": outcome.fits,
        "memory": memory,
        "compile_seconds": outcome.compile_seconds,
    }
    if work:
        record |= {"flops": work.flops, "traffic": work.traffic, "sent": sent_of(work)}
    return record


def run_record(outcome: Outcome, limit: int | None) -> Plan:
    """Returns what holds for the run, whether it fits or not."""
    experiment = outcome.experiment
    config = experiment.config
    ops, why = operations_of(experiment)
    return {
        "devices": experiment.mesh.size,
        "device_kind": experiment.mesh.devices.flat[0].device_kind,
        "limit": limit,
        "parameters": experiment.num_params,
        "ops": ops,
        "ops_told": why,
        "input": experiment.input_name,
        "epochs": config.epochs,
        "train_examples": experiment.sizes["train"],
        "updates": experiment.total_steps,
        "config": to_plain(config),
    }


def timed(record: Plan, outcome: Outcome, recipe: Recipe, sides: tuple[int, ...]) -> Plan:
    """Returns the record with the estimates of an update, if there is a program."""
    if outcome.work is None:
        return record
    times = update_times(outcome.work, recipe.chip, sides)
    seconds = times.bound / recipe.efficiency
    return record | {
        "times": dataclasses.asdict(times) | {"bound": times.bound},
        "seconds": seconds,
        "images_per_sec": record["batch_size"] / seconds,
        "hours": recipe.hours(record["batch_size"], seconds),
    }


def ways_of(place: Place, config: ConfigDict, outcome: Outcome, tell: Tell) -> list[Way]:
    """Returns what fits instead, compiled; nothing where the config fits."""
    return [] if outcome.fits else verified_ways(place, config, outcome, tell)


def quickest_first(records: Iterable[Plan]) -> list[Plan]:
    """Returns the records of ways: those that fit, the most images/s first, then the others."""
    return sorted(records, key=lambda record: (not record["fits"], -record.get("images_per_sec", 0.0)))


def same_but_batch(way: Way) -> bool:
    """Whether a way changes the batch size alone."""
    return way.flags.startswith("config.batch_size=") and " with " not in way.flags


def share_record(recipe: Recipe, outcome: Outcome, flags: str | None) -> Plan:
    """Returns the table with as many examples on each device as in an outcome that fits. flags: how it came by more."""
    return {"flags": flags, "per_device": outcome.per_device, "rows": constant_share(recipe, outcome)}


def batch_for(config: ConfigDict, place: Place, chips: int, train_examples: int) -> ConfigDict:
    """Returns the config, with another batch where the devices cannot share its own and can share that."""
    if refusal(config, place.devices) is None:
        return config
    return common_config(config, place.devices // chips, place.devices, train_examples) or config


def plan_absent(
    config: ConfigDict, dataset: Dataset, topology: str, efficiency: float, keep_batch: bool, tell: Tell
) -> Plan:
    """Returns the plan for a TPU slice that need not be there. Raises UserError.

    efficiency: share of the bound that updates are taken to reach. keep_batch: whether a batch that the slice cannot
    share is a mistake; otherwise another is planned for it. tell: takes lines on what is going on.
    """
    chip, place, sides = chip_of(topology), absent_place(topology, config, dataset), sides_of(topology)
    chips, cores = math.prod(sides), place.devices // math.prod(sides)
    train_examples = split_sizes(dataset, config.val_fraction, config.train_examples)["train"]
    asked = config if keep_batch else batch_for(config, place, chips, train_examples)
    tell(f"compiling {asked.batch_size} images for {topology}")
    outcome = compile_update(place, asked)
    recipe = Recipe(chip, cores, config.epochs, train_examples, efficiency)
    ways = ways_of(place, asked, outcome, tell)
    plan = run_record(outcome, place.limit) | {"topology": topology, "chips": chips, "efficiency": efficiency}
    plan |= {"batch_size": config.batch_size, "published_bytes": chip.hbm_bytes}
    plan |= {"request": timed(outcome_record(outcome), outcome, recipe, sides)}
    plan["ways"] = quickest_first(
        {"flags": way.flags} | timed(outcome_record(way.outcome), way.outcome, recipe, sides) for way in ways
    )
    if config.fsdp_devices > 1:
        return plan
    made = [(None, outcome), *((None if same_but_batch(way) else way.flags, way.outcome) for way in ways)]
    plan["constant_share"] = [share_record(recipe, each, flags) for flags, each in made if each.fits and each.work]
    known = [outcome, *(way.outcome for way in ways if same_but_batch(way))]
    plan["constant_batch"] = constant_batch(recipe, place, config, known, tell)
    return plan


def plan_local(config: ConfigDict, dataset: Dataset, measure: bool, tell: Tell) -> Plan:
    """Returns the plan for this machine's devices. Raises UserError.

    measure: run some updates of what fits first, the config or a way, and take their time.
    """
    place = local_place(config, dataset)
    tell(f"compiling {config.batch_size} images for {len(jax.devices())} x {jax.devices()[0].device_kind}")
    outcome = compile_update(place, config)
    ways = ways_of(place, config, outcome, tell)
    plan = run_record(outcome, place.limit) | {"request": outcome_record(outcome)}
    plan["ways"] = [{"flags": way.flags} | outcome_record(way.outcome) for way in ways]
    records = [plan["request"], *plan["ways"]]
    outcomes = [outcome, *(way.outcome for way in ways)]
    first = next((pair for pair in zip(records, outcomes, strict=True) if pair[1].fits and pair[1].program), None)
    if measure and first:
        record, fitting = first
        tell("measuring updates")
        record["seconds"] = update_seconds(fitting)
        record["images_per_sec"] = record["batch_size"] / record["seconds"]
        record["hours"] = fitting.experiment.total_steps * record["seconds"] / 3600
    return plan
