"""A process of a run that the crash test disturbs: `main`, but for two faults that cannot be done from outside.

    python -m convmixer_jax.crashing.worker NAN_STEP FLAGS_OF_MAIN...

The images of update NAN_STEP (counted from 0) are NaN. SIGUSR1 makes the main thread wait for ever, as it would for a
lost network disk.
"""

import functools
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from convmixer_jax import main


def wait_for_ever(number: int, frame: FrameType | None) -> None:
    """Handles SIGUSR1."""
    threading.Event().wait()


def spoilt(prepare: Callable[..., Any], nan_step: int, seed: Any, step: Any, examples: Any) -> Any:
    """Prepares a batch as `prepare` does, see training/prepare.py, but for the one update."""
    import jax.numpy as jnp

    images, targets = prepare(seed, step, examples)
    return jnp.where(step == nan_step, jnp.nan, images), targets


def spoil(nan_step: int) -> None:
    """Has every run that this process assembles from now on prepare the NaN batch."""
    from convmixer_jax.training import assembly

    make_prepare = assembly.make_prepare

    def make_spoilt(*arguments: Any, **more: Any) -> Callable[..., Any]:
        return functools.partial(spoilt, make_prepare(*arguments, **more), nan_step)

    assembly.make_prepare = make_spoilt


def begin(nan_step: int) -> None:
    """Prepares both faults. The second patch comes after `main` has started JAX: what it imports late stays late."""
    signal.signal(signal.SIGUSR1, wait_for_ever)
    start_jax = main.start_jax

    def start_then_spoil(*arguments: Any, **more: Any) -> None:
        start_jax(*arguments, **more)
        spoil(nan_step)

    main.start_jax = start_then_spoil


if __name__ == "__main__":
    begin(int(sys.argv[1]))
    main.end_process(main.main(["main", *sys.argv[2:]]))
