"""TPU slices that are not there, for their compiler, which needs none.

mesh = absent_mesh("v5e:16x16", fsdp_devices=1)
jax.jit(...).lower(...).compile()                # of arguments with shardings over the mesh
"""

import importlib.util
import math
import os
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from convmixer_jax.errors import UserError
from convmixer_jax.training.mesh import mesh_over


def sides_of(topology: str) -> tuple[int, ...]:
    """Returns (2, 4) of "v5e:2x4"; () where it does not end like that."""
    parts = topology.partition(":")[2].split("x")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def absent_devices(topology: str) -> list[jax.Device]:
    """Returns the devices of a topology like "v5e:2x4", which need not be there.

    Raises UserError where the compiler is not installed or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError('the TPU compiler is not installed: pip install "jax[tpu]", which needs no TPU')
    # Otherwise it asks the cloud's metadata server, for minutes, what TPU this machine is a part of, and refuses where
    # another process has loaded it, as if there were a TPU to be shared. The last two are what it would ask there for;
    # it does not use them for a topology, but complains in many lines where they are missing.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    os.environ.update(TPU_ACCELERATOR_TYPE="v5litepod-8", TPU_WORKER_HOSTNAMES="localhost")
    options: dict[str, Any] = {}
    if math.prod(sides_of(topology)) == 1:
        options |= {"chips_per_host_bounds": (1, 1, 1), "num_slices": 1}
    if topology.startswith("v4:"):
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device, as JAX has them there
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"--topology is {topology!r}: {error}; v5e:1x1, v5e:2x2 and v5e:2x4 exist, up to v5e:16x16; v4:2x2x1 does"
        ) from error
    return list(found.devices)


def absent_mesh(topology: str, fsdp_devices: int) -> Mesh:
    """Returns a mesh [data, fsdp] over all devices of a topology; raises UserError as absent_devices and mesh_over."""
    return mesh_over(absent_devices(topology), fsdp_devices)
