"""Command lines that several tests start from."""

from pathlib import Path

from convmixer_jax.command_line import parse
from convmixer_jax.config import to_plain
from convmixer_jax.ops.choice import Case, choose

# What `auto` takes on this machine's CPU: native, or, where there is no C++ compiler, channel_major.
CPU_OPS, _ = choose("auto", Case("cpu", "float32", 3, (8, 8)))

ROOT = Path(__file__).parents[1]
DIGITS = ["--config", str(ROOT / "configs/digits.py")]
CIFAR = ["--config", str(ROOT / "configs/cifar10.py"), "--config.batch_size=10", "--config.epochs=1"]
# A model that is quickly traced, on one of the eight virtual devices, without a cache of programs.
SMALL = ["--config.model.dim=4", "--config.model.depth=1", "--config.devices=1", "--config.compilation_cache=False"]
ONE_EPOCH = ["--config.epochs=1", "--config.checkpoint_every_steps=11"]


def record_of(arguments: list[str]) -> dict:
    """The beginning of the config.json that a run with these arguments leaves."""
    return {"config": to_plain(parse(["main", *arguments]).config)}
