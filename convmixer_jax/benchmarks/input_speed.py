"""Images per second of a run's input, whole and by its parts, beside a PyTorch DataLoader where asked for.

    measured = measure_input(config, settings, data_dir, workers=2, batches=0)
    print("\n".join(input_table(measured)))

Every part has a process of its own, and all are timed in turn. The parts work as in a run, with the same threads.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.benchmarks.input_sides import (
    build_augmented,
    build_crop,
    build_decode,
    build_input,
    build_memory,
    build_prepared,
    build_read,
    build_updates,
)
from convmixer_jax.benchmarks.loader_side import build_loader, loader_steps
from convmixer_jax.benchmarks.made_up import write_photographs
from convmixer_jax.benchmarks.report import machine_lines, side_lines
from convmixer_jax.benchmarks.speed import Settings, Sides, finished
from convmixer_jax.benchmarks.workers import Build
from convmixer_jax.runs.memory import gigabytes

AUGMENTED, UPDATES = "input, augmented", "updates with it"
# What is put beside the input as a whole.
PARTS: dict[str, Build] = {
    "  read": build_read,
    "  read, decoded": build_decode,
    "  read, decoded, cropped": build_crop,
    "input, prepared": build_prepared,
    UPDATES: build_updates,
}


@contextlib.contextmanager
def photographs(config: ConfigDict, count: int) -> Iterator[ConfigDict]:
    """Yields the config with `count` photographs, which are there meanwhile, as its data set; as it is for 0."""
    if not count:
        yield config
        return
    with TemporaryDirectory(prefix="photographs_") as folder:
        write_photographs(Path(folder), count)
        config = config.copy_and_resolve_references()
        config.dataset, config.val_fraction, config.train_examples = f"folder:{folder}", 0.0, 0
        yield config


def measure_input(
    config: ConfigDict, settings: Settings, data_dir: Path, *, workers: int, batches: int
) -> dict[str, Any]:
    """Returns images per second of config.input on the data in data_dir, of its parts, and of updates with it.

    workers: of PyTorch's DataLoader, where settings.against says so. batches: how many are streamed to see whether
    memory grows, 0 for none.
    """
    if settings.against:
        loader_steps(config)  # a mistake is told before anything is built
    with Sides(settings) as sides:
        sides.add("input", build_input, config, data_dir)
        for name, build in PARTS.items():
            sides.add(name, build, config, data_dir, required=False)
        loader = f"DataLoader x{workers}"
        if settings.against:
            sides.add(AUGMENTED, build_augmented, config, data_dir)
            sides.add(loader, build_loader, config, data_dir, workers, required=False)
        sides.measure()
        theirs = sides.rows.get(loader, {})
        if "images_per_sec" in theirs:
            theirs["ratio"] = sides.rows[AUGMENTED]["images_per_sec"] / theirs["images_per_sec"]
        waits = sides.rows[UPDATES].get("input_wait")
        more: dict[str, Any] = {"input_wait": waits, "over_loader": theirs.get("ratio")}
        if batches:
            facts = sides.add("memory", build_memory, config, data_dir, batches)
            del sides.rows["memory"]
            more["memory"] = facts["memory"]
        return finished("input", config, sides, **more)


def input_table(measured: dict[str, Any]) -> list[str]:
    """Returns the lines for what `measure_input` returns."""
    lines, ours = side_lines(measured), measured["rows"][0]
    crop = "random_resized_crop on the host" if ours["crop_on_host"] else "all augmentation on the devices"
    lines.append(f"config.input is {ours['path']}, {crop}; batches of {measured['config']['batch_size']}")
    if measured["input_wait"] is not None:
        lines.append(f"updates wait for their input {measured['input_wait']:.1%} of the time")
    if measured["over_loader"] is not None:
        lines.append(f"{AUGMENTED}, over PyTorch's DataLoader with Pillow: {measured['over_loader']:.2f}")
    if "memory" in measured:
        memory = measured["memory"]
        lines.append(
            f"host memory: slope {memory['bytes_per_batch']:+,.0f} bytes a batch over {memory['batches']:,} batches; "
            f"{gigabytes(memory['resident_bytes'])} in the end"
        )
    return lines + machine_lines(measured)
