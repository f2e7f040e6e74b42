"""The device mesh and the two ways in which arrays lie on it.

The same program serves one device and many: a batch is split over the axis `data`, everything else is replicated.
"""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convmixer_jax.errors import UserError

DATA_AXIS = "data"


def make_mesh(devices: int = 0) -> Mesh:
    """Returns a mesh with the one axis `data` over the first `devices` devices of all processes; 0 takes all.

    Raises UserError where there are fewer, or where a process would be left without a device.
    """
    available = jax.device_count()
    if devices > available:
        raise UserError(f"config.devices is {devices}: there are {available}; 0 takes all of them")
    if jax.process_count() > 1 and devices not in (0, available):
        raise UserError(f"config.devices is {devices}: with several processes it must be 0 (all {available})")
    # Auto: the compiler places what is not said. The default, Explicit, wants a sharding on every gather.
    return jax.make_mesh(
        (devices or available,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[: devices or None]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array: parameters, statistics, optimiser, resident data."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """The first axis, the batch, is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))
