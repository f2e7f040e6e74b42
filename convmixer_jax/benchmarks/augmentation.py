"""Images per second of a recipe's augmentation, whole and by parts, beside Pillow in a pool of processes.

Ours runs as one compiled program on the first device that JAX finds; images are cut out of the two photographs that
scikit-learn bundles.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from convmixer_jax.augment.operations import OPERATIONS, apply
from convmixer_jax.augment.pipeline import make_augment
from convmixer_jax.benchmarks.pillow_ops import torchvision_value
from convmixer_jax.benchmarks.pillow_pool import PillowPool, Step, has_counterpart
from convmixer_jax.errors import UserError
from convmixer_jax.measuring.timing import measure_together
from convmixer_jax.training.assembly import (
    Experiment,
    assemble,
    assemble_images,
    augment_settings,
    channel_statistics,
)

Call = Callable[[], Any]

# The strength at which single operations are timed: the bin of torchvision's tables that the authors' script uses.
MAGNITUDE = 12
# What torchvision's tables lack, at values of timm's and imgaug's of about that strength.
OTHER_VALUES = {"invert": 0.0, "solarize_add": 44.0, "cutout": 0.25, "blur": 0.0, "smooth": 0.0}


def photographs(count: int, height: int, width: int) -> np.ndarray:
    """Returns tiles of two photographs, uint8 [count, height, width, 3]; where there are too few they repeat."""
    import sklearn.datasets

    tiles = []
    for name in ("china.jpg", "flower.jpg"):
        pixels = sklearn.datasets.load_sample_image(name)
        rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
        pixels = pixels[: rows * height, : columns * width].reshape(rows, height, columns, width, 3)
        tiles.append(pixels.swapaxes(1, 2).reshape(-1, height, width, 3))
    found = np.concatenate(tiles)
    return found[np.arange(count) % len(found)]


def on_device(function: Callable[..., Any], *arguments: Any) -> Call:
    """Returns a call of the compiled function that waits for its result; its arguments lie on the device.

    All that changes from batch to batch must be an argument: what the function closes over is a constant, and what
    follows from constants alone is worked out by the compiler and costs nothing when it is timed.
    """
    compiled, placed = jax.jit(function), jax.device_put(arguments)
    return lambda: jax.block_until_ready(compiled(*placed))


def one_operation(name: str, images: jax.Array, kind: jax.Array, value: jax.Array) -> jax.Array:
    """Applies one operation of RandAugment to uint8 images; kind int32 [B], zeros, and value float32 [B] of `apply`."""
    levels = images.astype(jnp.float32)
    return apply(levels, kind, value, names=(name,), interpolation="nearest", fill=(0.0, 0.0, 0.0))


def operation_values(height: int, width: int) -> dict[str, float]:
    """Returns a value for every operation of RandAugment, as `apply` understands it."""
    named = [name for name in OPERATIONS if name not in OTHER_VALUES]
    return {name: torchvision_value(name, MAGNITUDE, 1, width, height) for name in named} | OTHER_VALUES


def rows_of(experiment: Experiment, images: np.ndarray, pool: PillowPool) -> dict[str, tuple[Call, Call | None]]:
    """Returns by row: our call and Pillow's, None where that has no counterpart."""
    config, batch = experiment.config, len(images)
    statistics = channel_statistics(config, experiment.dataset)
    settings = augment_settings(config, statistics[0])
    steps: list[Step] = [(name, settings[name]) for name in config.augment.order]
    _, to_input = assemble_images(config, experiment.dataset)
    key = jax.random.key(0)

    whole = on_device(make_augment(config.augment.order, settings, to_input), key, images)
    comparable = all(has_counterpart(*step) for step in steps)
    theirs = functools.partial(pool.run, steps, statistics=statistics) if comparable else None
    rows: dict[str, tuple[Call, Call | None]] = {"all, normalised": (whole, theirs)}
    if config.mixing.mixup_alpha or config.mixing.cutmix_alpha:
        examples = {"image": images, "label": np.arange(batch, dtype=np.int32) % experiment.dataset.num_classes}
        rows["all, normalised and mixed"] = on_device(experiment.prepare, np.uint32(0), np.int32(0), examples), None
    for name, its in steps:
        ours = on_device(make_augment([name], settings, lambda levels: levels), key, images)
        rows[name] = ours, functools.partial(pool.run, [(name, its)]) if has_counterpart(name, its) else None
    for name, value in operation_values(*images.shape[1:3]).items():
        drawn = np.zeros(batch, np.int32), np.full(batch, value, np.float32)
        ours = on_device(functools.partial(one_operation, name), images, *drawn)
        rows[f"  {name}"] = ours, functools.partial(pool.run, [(f"op:{name}", {"value": value})])
    return rows


def measure_augmentation(config: ConfigDict, batch: int, workers: int) -> list[dict[str, Any]]:
    """Returns one row per part: name, ours and pillow, ratio of their medians.

    ours, pillow: images per second, {median, quartiles: [lower, upper]}; pillow and ratio are None where Pillow has no
    counterpart. batch: images in one call. Raises UserError for data sets without colour.
    """
    experiment = assemble(config)
    height, width, channels = experiment.dataset.image_shape
    if channels != 3:
        raise UserError(f"config.dataset is {config.dataset!r}: the benchmark wants 3 channels, cifar10 say")
    images = photographs(batch, height, width)
    table = []
    with PillowPool(images, workers) as pool:
        for name, (ours, theirs) in rows_of(experiment, images, pool).items():
            timings = measure_together({"ours": ours} | ({"pillow": theirs} if theirs else {}))
            rates = {
                who: {"median": timing.rate(batch), "quartiles": timing.rate_quartiles(batch)}
                for who, timing in timings.items()
            }
            ratio = timings["pillow"].median / timings["ours"].median if theirs else None
            table.append({"name": name, "ours": rates["ours"], "pillow": rates.get("pillow"), "ratio": ratio})
    return table
