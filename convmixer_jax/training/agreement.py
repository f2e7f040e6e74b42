"""Whether all processes of a run were started alike: what is compared before they join, and what can be only after.

    join(place, facts(config), seconds)          # differences end all of them, see runs/rendezvous.py
    check_devices(device.process_index for device in jax.devices())
    check_workdir(workdir)

Processes that differ would wait for each other for ever, or write two halves of a run to two places.
"""

import collections
import importlib.metadata
import os
import secrets
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import convmixer_jax
from convmixer_jax.config import flatten, to_plain
from convmixer_jax.errors import UserError
from convmixer_jax.runs.provenance import git_revision

TOKEN = ".same_workdir"  # in the workdir, while it is looked for
PATIENCE = 10.0  # seconds until a file that another machine wrote is seen; network file systems remember for some
BYTES = 16  # of the token
PLACE_BYTES = 1024  # of a path with its host, for a person


def facts(config: ConfigDict) -> dict[str, object]:
    """Returns what must be the same on all processes, by its name for a person. Touches no device."""
    fields = {f"config.{name}": value for name, value in flatten(to_plain(config))}
    versions = {f"the version of {name}": importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    code = {
        "the version of convmixer_jax": convmixer_jax.__version__,
        "the code's git revision": git_revision(),
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", ""),
    }
    return fields | versions | code


def check_devices(owners: Iterable[int]) -> None:
    """Raises UserError unless all processes have as many devices. owners: each device's process; the same on all."""
    counts = collections.Counter(owners)
    for process, count in sorted(counts.items()):
        if count != counts[0]:
            raise UserError(
                f"the number of devices is {counts[0]} on process 0, but {count} on process {process}: the batch is "
                "split evenly, so give all as many"
            )


def check_workdir(workdir: Path) -> None:
    """Raises UserError, on all processes, where one does not find in `workdir` what process 0 has put there."""
    if jax.process_count() == 1:
        return
    path, lead = workdir / TOKEN, jax.process_index() == 0
    token = secrets.token_bytes(BYTES) if lead else bytes(BYTES)
    if lead:
        path.write_bytes(token)
    token = multihost_utils.broadcast_one_to_all(np.frombuffer(token, np.uint8)).tobytes()
    sees = lead or finds(path, token)
    place = f"{workdir.absolute()} ({socket.gethostname()})".encode()[:PLACE_BYTES].ljust(PLACE_BYTES)
    answers = multihost_utils.process_allgather(np.frombuffer(bytes([sees]) + place, np.uint8))
    if lead:
        path.unlink()
    for process, answer in enumerate(answers):
        if not answer[0]:
            first, other = (bytes(each[1:]).decode(errors="replace").strip() for each in (answers[0], answer))
            raise UserError(
                f"--workdir of process 0, {first}, is not that of process {process}, {other}: name a folder that all "
                "of them share"
            )


def finds(path: Path, token: bytes) -> bool:
    """Whether the file holds the token, or does so soon."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if path.read_bytes() == token:
                return True
        except OSError:
            pass
        time.sleep(0.2)
    return False
