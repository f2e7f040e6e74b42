"""Where a result comes from: versions, devices and git revision, recorded in config.json at every start."""

import datetime
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import convmixer_jax
from convmixer_jax.measuring.machine import describe_processor

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections", "clu")


def git_revision() -> str | None:
    """Returns the commit of this checkout, with "-dirty" where files differ from it; None outside of git."""
    folder = Path(convmixer_jax.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def now() -> str:
    """Returns the time (UTC) to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Returns the versions of this package, of Python and of PACKAGES."""
    installed = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"convmixer_jax": convmixer_jax.__version__, "python": platform.python_version()} | installed


def describe() -> dict[str, Any]:
    """Returns time (UTC), versions, devices, processor, cores, processes and git revision, as plain values."""
    return {
        "time": now(),
        "versions": versions(),
        "devices": [device.device_kind for device in jax.devices()],
        **describe_processor(),
        "processes": jax.process_count(),
        "platform": platform.platform(),
        "git_revision": git_revision(),
    }
