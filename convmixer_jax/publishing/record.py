"""A result: one config, its seeds, and what each gave at the last epoch, with all that is needed to believe it.

    record = make_record("cifar10_fast", runs, Published(0.926, "github.com/locuslab/convmixer-cifar10"), note="")
    save(record, runs, Path("results"))

Writes NAME.json, and each seed's metrics.jsonl, compressed, beside it.
"""

import dataclasses
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convmixer_jax.config import flatten, get_base
from convmixer_jax.config_record import RESUME_MAY_CHANGE
from convmixer_jax.errors import UserError
from convmixer_jax.reporting.summaries import mean_and_spread, number
from convmixer_jax.reporting.workdirs import DONE, METRICS_FILE, Run
from convmixer_jax.runs.files import read_json, write_bytes, write_json
from convmixer_jax.runs.ledger import DOWN, INPUT, STEP

# May differ between the seeds of a result: what decides where a run is computed and how often it tells, not what.
NOT_THE_RECIPE = RESUME_MAY_CHANGE | {"seed"}


@dataclasses.dataclass(frozen=True)
class Published:
    """What others got. top1: from 0 to 1. source: where it stands."""

    top1: float
    source: str


def check_runs(runs: Sequence[Run]) -> None:
    """Raises UserError where a run is not finished, or the runs do not differ in their seed alone."""
    for run in runs:
        for warning in run.warnings:
            raise UserError(f"{run.folder}: {warning}; a result is made of whole runs alone")
        if run.state != DONE:
            raise UserError(f"{run.folder} is {run.state} ({run.why}): finish it first, main resumes it")
        if run.result is None or run.result.get("split") != "test":
            raise UserError(f"{run.folder} has no score of the test split")
        if not run.curves.get("test"):
            raise UserError(f"{run.folder}: {METRICS_FILE} has no evaluation of the test split: restore it")
    first = runs[0]
    for run in runs[1:]:
        fields = sorted({*first.config, *run.config} - NOT_THE_RECIPE)
        for name in fields:
            if first.config.get(name) != run.config.get(name):
                told = f"config.{name} is {run.config.get(name)!r}, of {first.folder} {first.config.get(name)!r}"
                raise UserError(f"{run.folder}: {told}; the runs of a result differ in their seed alone")
        if run.record.get("data_digest") != first.record.get("data_digest"):
            raise UserError(f"{run.folder} was trained on other data than {first.folder}: their digests differ")
    seeds = [run.config["seed"] for run in runs]
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UserError(
                f"seed {seed} is there {seeds.count(seed)} times: name a run once, and each with its own seed"
            )


def hardware_of(start: Mapping[str, Any]) -> str:
    """Returns what a start of a run was made on, as `provenance.describe` told."""
    devices = [str(device) for device in start.get("devices", [])]
    counted = ", ".join(f"{devices.count(kind)} x {kind}" for kind in dict.fromkeys(devices))
    processor, cores = start.get("processor"), start.get("cores")
    return f"{counted} ({processor}, {cores} cores)" if processor else counted


def computing_seconds(run: Run) -> float | None:
    """Returns the seconds of the wall clock over all starts, without the time between them; None without a ledger."""
    account = run.accounts.get(0)
    return account.wall - account.seconds[DOWN] if account else None


def update_seconds(run: Run) -> float | None:
    """Returns the seconds in which updates were made that count, or waited for input; None without a ledger."""
    account = run.accounts.get(0)
    return account.seconds[STEP] + account.seconds[INPUT] if account else None


def make_record(name: str, runs: Sequence[Run], published: Published | None, note: str) -> dict[str, Any]:
    """Returns what NAME.json holds. Raises UserError as `check_runs`.

    Accuracies are from 0 to 1, of the test split after the last update; spread is their sample standard deviation,
    None for one seed. seconds_per_seed: see `computing_seconds`; update_seconds_per_seed, `update_seconds`: without
    start-up, compiling, evaluations and saves. Lists are in the order of `seeds`. config: of the first of them.
    """
    check_runs(runs)
    runs = sorted(runs, key=lambda run: run.config["seed"])
    first = runs[0]
    results = [run.result or {} for run in runs]
    starts = [start for run in runs for start in run.starts]
    mean, spread = mean_and_spread([float(result["top1"]) for result in results])
    return {
        "name": name,
        "note": note,
        "published": published and dataclasses.asdict(published),
        "seeds": [run.config["seed"] for run in runs],
        "top1_per_seed": [result["top1"] for result in results],
        "top1_mean": mean,
        "top1_spread": spread,
        "top5_per_seed": [result.get("top5") for result in results],
        "loss_per_seed": [result.get("loss") for result in results],
        "test_images": results[0].get("n"),
        "epochs": results[0].get("epochs"),
        "updates": results[0].get("step"),
        "params": results[0].get("params"),
        "seconds_per_seed": [computing_seconds(run) for run in runs],
        "update_seconds_per_seed": [update_seconds(run) for run in runs],
        "starts_per_seed": [len(run.starts) for run in runs],
        "images_per_sec_per_seed": [result.get("images_per_sec") for result in results],
        "hardware": list(dict.fromkeys(hardware_of(start) for start in starts)),
        "operations": list(dict.fromkeys(start.get("operations") for start in starts)),
        "revisions": list(dict.fromkeys(start.get("git_revision") for start in starts)),
        "versions": list({json.dumps(start["versions"]): start["versions"] for start in starts}.values()),
        "data_digest": first.record.get("data_digest"),
        "metrics": [f"{name}.seed-{run.config['seed']}.metrics.jsonl.gz" for run in runs],
        "config": {name: value for name, value in first.record["config"].items() if name != "seed"},
    }


def save(record: Mapping[str, Any], runs: Sequence[Run], folder: Path) -> Path:
    """Writes the record and the runs' metrics into the folder; returns the record's file. Raises OSError.

    What the result that it replaces has left beside them goes, once the new one is there.
    """
    by_seed = {run.config["seed"]: run for run in runs}
    metrics = [(by_seed[seed].folder / METRICS_FILE).read_bytes() for seed in record["seeds"]]
    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in zip(record["metrics"], metrics, strict=True):
        write_bytes(folder / file, gzip.compress(rows, mtime=0))  # the same rows are the same file
    path = folder / f"{record['name']}.json"
    write_json(path, dict(record))
    stale = {path.name for path in folder.glob(f"{record['name']}.seed-*.metrics.jsonl.gz")} - set(record["metrics"])
    for name in (*stale, f"{record['name']}.png"):
        (folder / name).unlink(missing_ok=True)
    return path


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Returns the results in a folder by name. Raises UserError for a file that is none, and where there are none."""
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not paths:
        raise UserError(f"{folder} holds no results: `results add` makes them of finished runs")
    return [check_record(path, read_json(path) or {}) for path in paths]


def check_record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Returns the record; raises UserError where the file is not as `make_record` made it."""
    scores, seeds = record.get("top1_per_seed"), record.get("seeds")
    lists = isinstance(scores, list) and isinstance(seeds, list) and len(scores) == len(seeds) > 0
    if not lists or any(number(score) is None or not 0 <= score <= 1 for score in scores or []):
        raise UserError(f"{path} is no result: its top1_per_seed and seeds are not as `results add` wrote them")
    if record.get("name") != path.stem or not (isinstance(record.get("config"), dict) and record["config"]):
        raise UserError(f"{path} is no result: it has no config, or another name than its file")
    if (record.get("top1_mean"), record.get("top1_spread")) != mean_and_spread(scores or []):
        raise UserError(f"{path} is no result: its top1_mean or top1_spread is not that of its top1_per_seed")
    if not isinstance(record.get("note", ""), str):
        raise UserError(f"{path} is no result: its note is no text")
    published = record.get("published")
    if published is not None and not is_published(published):
        raise UserError(f"{path} is no result: its published is {published!r}, not a top1 from 0 to 1 and its source")
    metrics = record.get("metrics")
    if not isinstance(metrics, list) or len(metrics) != len(scores or []):
        raise UserError(f"{path} is no result: its metrics are not one file for each seed")
    missing = [name for name in metrics if not (path.parent / str(name)).is_file()]
    if missing:
        raise UserError(f"{path} names {missing[0]}, which is not there: restore it")
    return record


def is_published(value: Any) -> bool:
    """Whether a value is what `dataclasses.asdict` makes of a Published."""
    if not isinstance(value, dict) or not isinstance(value.get("source"), str):
        return False
    top1 = number(value.get("top1"))
    return top1 is not None and 0 <= top1 <= 1


def fields_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record's config by dotted names; a field younger than the record has its default."""
    return dict(flatten(get_base())) | dict(flatten(record["config"]))
