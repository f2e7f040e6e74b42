"""A result's learning curve: test top-1 by epoch for each seed, with the published score as a line.

draw(record, folder, folder / "cifar10_fast.png")
"""

import gzip
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convmixer_jax.publishing.table import percent
from convmixer_jax.reporting.looks import DPI, LIGHT, legend_below, new_chart
from convmixer_jax.reporting.shown import scale_epochs
from convmixer_jax.reporting.summaries import number
from convmixer_jax.runs.metrics_log import parse_row


def curve_of(file: Path) -> list[tuple[float, float]]:
    """Returns (epoch, top-1 from 0 to 1) of each evaluation of the test split in a compressed metrics.jsonl."""
    rows = [parse_row(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    points = []
    for row in rows:
        if row is not None and row.get("eval/split") == "test":
            epoch, top1 = number(row.get("epoch")), number(row.get("eval/top1"))
            if epoch is not None and top1 is not None:
                points.append((epoch, top1))
    return points


def draw(record: Mapping[str, Any], folder: Path, file: Path) -> bool:
    """Writes the picture; returns whether there is one: a curve takes two evaluations. Raises OSError."""
    curves = {seed: curve_of(folder / name) for seed, name in zip(record["seeds"], record["metrics"], strict=True)}
    if min(map(len, curves.values())) < 2:
        return False
    with LIGHT.applied():
        figure = new_chart()
        axes = figure.subplots()
        for colour, (seed, points) in zip(itertools.cycle(LIGHT.colours), curves.items(), strict=False):
            epochs, scores = zip(*points, strict=True)
            axes.plot(epochs, [100 * score for score in scores], color=colour, linewidth=1.4, label=f"seed {seed}")
        published = record.get("published")
        if published:
            label = f"published: {percent(published['top1'])}"
            axes.axhline(100 * published["top1"], color=LIGHT.ink, linestyle=":", linewidth=1.2, label=label)
        scale_epochs(axes, max(epoch for points in curves.values() for epoch, _ in points))
        axes.set_ylabel("test top-1 accuracy (%)")
        axes.set_title(record["name"])
        legend_below(figure, len(curves) + bool(published))
        figure.savefig(file, dpi=DPI, metadata={"Software": None})
    return True
