"""Sides that a worker's process builds in tests, and the smallest config that programs are built of."""

import os
import signal
import time

from ml_collections import ConfigDict

from convmixer_jax.benchmarks.workers import UnavailableError
from convmixer_jax.config import get_base
from convmixer_jax.errors import UserError


class Sleeper:
    """Three images in 20 ms each time. facts tell what its process was started with."""

    def __init__(self) -> None:
        self.images = 3
        self.facts = {"tunables": os.environ.get("GLIBC_TUNABLES"), "process": os.getpid()}

    def run(self, count: int) -> None:
        time.sleep(0.02 * count)

    def device_peak_bytes(self) -> int:
        return 77


def build_mistake() -> Sleeper:
    raise UserError("config.x is 1: take 2")


def build_unavailable() -> Sleeper:
    raise UnavailableError("no compiler")


def build_broken() -> Sleeper:
    raise ZeroDivisionError("planted")


def build_killed() -> Sleeper:
    os.kill(os.getpid(), signal.SIGKILL)
    return Sleeper()


def build_slow() -> Sleeper:
    time.sleep(60)
    return Sleeper()


def small_config() -> ConfigDict:
    config = get_base()
    config.dataset, config.batch_size, config.devices, config.train_examples = "cifar10", 6, 1, 60
    config.model.dim, config.model.depth, config.model.patch_size, config.model.kernel_size = 8, 1, 4, 3
    config.augment.order = ("horizontal_flip",)
    config.schedule.name, config.schedule.learning_rate = "constant", 0.01
    # A gradient's rounding error then moves a weight by no more than rate / eps = 1 times itself.
    config.optimizer.eps = 1e-2
    return config


def squeezed(line: str) -> str:
    """Returns a line of a table with single spaces between its words."""
    return " ".join(line.split())
