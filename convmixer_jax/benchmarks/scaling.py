"""Cost against work: images per second of the update over batch size, depth and kernel size, drawn if asked for.

    measured = measure_scaling(config, settings, {"batch_size": [16, 64], "depth": [4, 8], "kernel_size": [3, 5]})
    draw(measured, Path("scaling.png"))

Each axis is walked alone, from the config's own values.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.benchmarks.ours import build_step
from convmixer_jax.benchmarks.report import significant
from convmixer_jax.benchmarks.speed import Settings, Sides
from convmixer_jax.config import to_plain
from convmixer_jax.errors import UserError
from convmixer_jax.measuring.machine import describe_processor

# What the flags of the command walk over: names of the axes, and where they are set in the config.
AXES = {"batch_size": "batch_size", "depth": "model.depth", "kernel_size": "model.kernel_size"}
FORMATS = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Raises UserError where no picture could be written to `path`; said before hours of measuring. Leaves no trace."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--plot: matplotlib is not installed; pip install -r requirements.txt brings it")
    if path.suffix not in FORMATS:
        raise UserError(f"--plot {path}: the name must end in one of {', '.join(FORMATS)}")
    with picture_mistakes(path):
        if not path.parent.is_dir():
            raise UserError(f"--plot {path}: there is no folder {path.parent}; make it first")
        target = Path(os.path.realpath(path))  # of a link it is the file behind it that comes and goes
        there = target.exists()
        with target.open("ab"):
            pass
        if not there:
            target.unlink()


@contextlib.contextmanager
def picture_mistakes(path: Path) -> Iterator[None]:
    """Turns an error of the system, about the picture at `path`, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--plot {path}: it cannot be written ({error.strerror}); name a new file in a folder that is yours"
        ) from error


def measure_point(config: ConfigDict, settings: Settings) -> dict[str, Any]:
    """Returns the row of one config, with a note where it cannot run here or is not ready in time."""
    with Sides(settings) as sides:
        try:
            if sides.add("ours", build_step, config, settings.fixed, required=False):
                sides.measure()
        except UserError as error:  # a kernel larger than the map, say: the other points may do
            sides.rows["ours"]["note"] = str(error)
        return sides.rows["ours"]


def measure_scaling(config: ConfigDict, settings: Settings, axes: dict[str, Sequence[int]]) -> dict[str, Any]:
    """Returns {rows: one for each axis and value, with images_per_sec or a note, base: the config's own values}.

    axes: rows of AXES with their values. Raises UserError where no point can be measured.
    """
    rows: list[dict[str, Any]] = []
    known: dict[tuple[int, ...], dict[str, Any]] = {}
    machine = describe_processor()
    for axis, values in axes.items():
        for value in values:
            changed = config.copy_and_resolve_references()
            changed.update_from_flattened_dict({AXES[axis]: value})
            key = (changed.batch_size, changed.model.depth, changed.model.kernel_size)
            if key not in known:  # the config's own values lie on every axis
                known[key] = measure_point(changed, settings)
                machine |= known[key].pop("provenance", {})
            rows.append({"axis": axis, "value": value} | known[key])
    if all("note" in row for row in rows):
        raise UserError(f"no point could be measured; the first: {rows[0]['note']}")
    base = {"batch_size": config.batch_size, "depth": config.model.depth, "kernel_size": config.model.kernel_size}
    return {"benchmark": "scaling", "base": base, "rows": rows, "config": to_plain(config), "machine": machine}


def scaling_table(measured: dict[str, Any]) -> list[str]:
    """Returns one line per point."""
    lines = [f"{'axis':<12} {'value':>5}  {'images/s':>9}  {'quartiles':>17}  {'GFLOP/s':>8}"]
    for row in measured["rows"]:
        line = f"{row['axis']:<12} {row['value']:>5}  "
        if "note" in row:
            lines.append(f"{line}not measured: {row['note']}")
            continue
        between = " - ".join(map(significant, row["quartiles"]))
        reached = row["images_per_sec"] * row["flops_per_image"] / 1e9
        lines.append(f"{line}{significant(row['images_per_sec']):>9}  {between:>17}  {reached:>8,.0f}")
    machine = measured["machine"]
    return [*lines, f"{machine['processor']}, {machine['cores']} cores; GFLOP are counted by hand"]


def draw(measured: dict[str, Any], path: Path) -> None:
    """Writes a picture with a panel per axis: medians and quartiles, and what constant FLOP/s would give, dashed.

    Raises UserError where it cannot.
    """
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(row["axis"] for row in measured["rows"]))
    figure = Figure(figsize=(4 * len(axes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        found = [row for row in measured["rows"] if row["axis"] == axis and "note" not in row]
        panel.set_xlabel(axis.replace("_", " "))
        if not found:
            continue
        values, rates = [row["value"] for row in found], [row["images_per_sec"] for row in found]
        beside = [[abs(row["quartiles"][end] - row["images_per_sec"]) for row in found] for end in (0, 1)]
        panel.errorbar(values, rates, yerr=beside, marker="o", capsize=3, label="measured")
        own = measured["base"][axis]
        start = next((row for row in found if row["value"] == own), found[0])
        reached = start["images_per_sec"] * start["flops_per_image"]
        ideal = [reached / row["flops_per_image"] for row in found]
        panel.plot(values, ideal, "--", color="grey", label=f"the FLOP/s of {start['value']} kept")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(values, labels=[str(value) for value in values])
        panel.set_xticks([], minor=True)
        panel.set_xlim(min(values) / 1.2, max(values) * 1.2)  # a single value would have no extent
        panel.legend()
    panels[0].set_ylabel("images/s of the update")
    figure.suptitle(measured["machine"]["processor"])
    with picture_mistakes(path):
        figure.savefig(path)
