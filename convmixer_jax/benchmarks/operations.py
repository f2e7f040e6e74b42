"""Every implementation of the operations beside the reference, over dtypes and kernel sizes; the table that auto reads.

    measured = measure_operations(config, settings, dtypes=["float32"], kernel_sizes=[3, 5, 7, 9])
    print("\n".join(operations_table(measured)))
    write_choices(measured, CHOICES)

Timed is the update of config's model on a fixed batch, compiled and dispatched as in a run.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.benchmarks.ours import build_step
from convmixer_jax.benchmarks.speed import Settings, Sides
from convmixer_jax.config import to_plain
from convmixer_jax.config_rules import COMPUTE_DTYPES, check
from convmixer_jax.data.datasets import Dataset, named_dataset
from convmixer_jax.errors import UserError
from convmixer_jax.measuring.machine import describe_processor
from convmixer_jax.models.variants import beyond_fast_ops
from convmixer_jax.ops.choice import OPS, REFERENCE, lacks, ops_case
from convmixer_jax.training.checks import check_against_dataset

# Times as long as the quickest that an implementation may take to be timed more than once. The CPU's grouped
# convolutions take twenty times as long, and nobody needs to know better than that.
FAR = 3.0


def fixed_dataset(config: ConfigDict, settings: Settings) -> Dataset:
    """Returns the data set with the images that are measured."""
    return settings.fixed.of(named_dataset(config.dataset, "config.dataset"))


def note_of(name: str, config: ConfigDict, settings: Settings, platform: str | None) -> str | None:
    """Returns what keeps an implementation from the config's case, or None; platform: None where not known yet."""
    beyond = name != REFERENCE and beyond_fast_ops(config.model)
    if beyond or not platform:
        return beyond or None
    sizes = {field: config.model[field] for field in ("kernel_size", "patch_size")}
    image_shape = fixed_dataset(config, settings).image_shape
    return lacks(name, ops_case(platform, config.dtype, **sizes, image_shape=image_shape))


def drop_far_ones(sides: Sides) -> None:
    """Times one call of each side, and ends those that are far behind the quickest: that time is all they get."""
    seconds = {}
    for name, worker in list(sides.workers.items()):
        began = time.perf_counter()
        sides.ask(name, lambda worker: worker.call())
        if name in sides.workers:
            seconds[name] = (time.perf_counter() - began) / worker.images
    for name, each in seconds.items():
        if each > FAR * min(seconds.values()):
            worker = sides.workers.pop(name)
            worker.close()
            sides.rows[name] |= {"images_per_sec": 1 / each, "quartiles": (1 / each, 1 / each), **worker.facts}


def measure_case(config: ConfigDict, settings: Settings) -> list[dict[str, Any]]:
    """Returns a row for each implementation with config's dtype and kernel size, the reference first.

    {name, milliseconds, quartiles, ratio, platform, provenance}: of an update, and the reference's over it, None where
    that was not ready in time; or {name, note} of one that is not available.
    """
    platform = None
    with Sides(settings) as sides:
        for name in OPS:
            missing = note_of(name, config, settings, platform)
            if missing:
                sides.rows[name] = {"name": name, "note": missing}
                continue
            changed = config.copy_and_resolve_references()
            changed.model.ops = name
            facts = sides.add(name, build_step, changed, settings.fixed, required=False)
            platform = platform or facts.get("platform")
        drop_far_ones(sides)
        if sides.workers:
            sides.measure()
        rows = list(sides.rows.values())
    reference = next((row["images_per_sec"] for row in rows if row["name"] == REFERENCE and "note" not in row), None)
    return [row if "note" in row else summary(row, config.batch_size, reference) for row in rows]


def summary(row: dict[str, Any], batch_size: int, reference: float | None) -> dict[str, Any]:
    """Returns a side's row as `measure_case` has it; reference: images per second."""
    low, high = row["quartiles"]
    return {
        "name": row["name"],
        "milliseconds": 1000 * batch_size / row["images_per_sec"],
        "quartiles": (1000 * batch_size / high, 1000 * batch_size / low),
        "ratio": reference and row["images_per_sec"] / reference,
        "platform": row["platform"],
        "provenance": row["provenance"],
    }


def checked_cases(
    config: ConfigDict, settings: Settings, dtypes: Sequence[str], kernel_sizes: Sequence[int]
) -> list[ConfigDict]:
    """Returns the config with each dtype and kernel size; raises UserError where one does not fit the images."""
    cases = []
    for dtype in dtypes:
        for kernel_size in kernel_sizes:
            case = config.copy_and_resolve_references()
            case.dtype, case.model.kernel_size = dtype, kernel_size
            check(case)
            check_against_dataset(case, fixed_dataset(case, settings))
            cases.append(case)
    return cases


def reasons(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the notes of all rows, each once, with the names that it keeps from being measured."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row["note"], {})[row["name"]] = None
    return "; ".join(f"{', '.join(found)}: {note}" for note, found in names.items())


def measure_operations(
    config: ConfigDict, settings: Settings, dtypes: Sequence[str], kernel_sizes: Sequence[int]
) -> dict[str, Any]:
    """Returns {rows: those of `measure_case` with dtype and kernel_size, choices: {platform: {dtype: {k: quickest}}}}.

    Raises UserError where nothing could be measured, and before anything is where a case does not fit the images.
    """
    rows: list[dict[str, Any]] = []
    choices: dict[str, dict[str, dict[str, str]]] = {}
    machine = describe_processor()
    for case in checked_cases(config, settings, dtypes, kernel_sizes):
        dtype, kernel_size = case.dtype, case.model.kernel_size
        found = measure_case(case, settings)
        available = [row for row in found if "note" not in row]
        for row in available:
            machine |= row.pop("provenance")
        if available:
            quickest = min(available, key=lambda row: row["milliseconds"])
            by_size = choices.setdefault(quickest["platform"], {}).setdefault(dtype, {})
            by_size[str(kernel_size)] = quickest["name"]
        rows += [{"dtype": dtype, "kernel_size": kernel_size} | row for row in found]
    if not choices:
        raise UserError(f"no implementation could be measured; {reasons(rows)}")
    return {
        "benchmark": "ops",
        "choices": choices,
        "rows": rows,
        "config": to_plain(config),
        "machine": machine,
    }


def operations_table(measured: dict[str, Any]) -> list[str]:
    """Returns one line per implementation, kernel size and dtype; a star stands beside the quickest."""
    lines = [f"{'dtype':<9} {'k':>2}  {'ops':<14}  {'ms':>9}  {'quartiles':>19}  {'over reference':>14}"]
    for row in measured["rows"]:
        line = f"{row['dtype']:<9} {row['kernel_size']:>2}  {row['name']:<14}  "
        if "note" in row:
            lines.append(f"{line}not measured: {row['note']}")
            continue
        between = "{:,.1f} - {:,.1f}".format(*row["quartiles"])
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        best = measured["choices"][row["platform"]][row["dtype"]][str(row["kernel_size"])]
        star = " *" if row["name"] == best else ""
        lines.append(f"{line}{row['milliseconds']:>9,.1f}  {between:>19}  {ratio:>14}{star}")
    machine, batch_size = measured["machine"], measured["config"]["batch_size"]
    return [*lines, f"an update of {batch_size}; {machine['processor']}, {machine['cores']} cores"]


def formatted(table: dict[str, Any]) -> str:
    """Returns the text of choices.json: platforms, dtypes and kernel sizes in order, a line per dtype."""
    platforms = []
    for platform, by_dtype in sorted(table["choices"].items()):
        lines = []
        for dtype in sorted(by_dtype, key=COMPUTE_DTYPES.index):
            by_size = {size: by_dtype[dtype][size] for size in sorted(by_dtype[dtype], key=int)}
            lines.append(f"      {json.dumps(dtype)}: {json.dumps(by_size)}")
        platforms.append(f"    {json.dumps(platform)}: {{\n" + ",\n".join(lines) + "\n    }")
    note = f'  "note": {json.dumps(table["note"])},\n'
    return "{\n" + note + '  "choices": {\n' + ",\n".join(platforms) + "\n  }\n}\n"


def write_choices(measured: dict[str, Any], path: Path) -> None:
    """Puts the quickest into the table at `path`; what was not measured stays. Raises UserError where it cannot."""
    try:
        table = json.loads(path.read_text())
        for platform, by_dtype in measured["choices"].items():
            for dtype, by_size in by_dtype.items():
                table["choices"].setdefault(platform, {}).setdefault(dtype, {}).update(by_size)
        path.write_text(formatted(table))
    except OSError as error:
        raise UserError(
            f"--write: {path} could not be written ({error.strerror}); the choices are in what --json prints, too"
        ) from error
