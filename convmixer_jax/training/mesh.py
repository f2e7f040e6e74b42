"""The device mesh and the three ways in which arrays lie on it.

The same program serves one device and many: a batch is split over all devices. Everything else is replicated, but
for parameters, moving averages and optimiser state where `fsdp_devices` above 1 splits each copy of them over so
many devices (fully sharded data parallelism, arXiv 1910.02054 and 2304.11277): a weight is gathered where it is used,
and each device keeps its part of the gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convmixer_jax.errors import UserError

DATA_AXIS, FSDP_AXIS = "data", "fsdp"


def make_mesh(devices: int = 0, fsdp_devices: int = 1) -> Mesh:
    """Returns a mesh [data, fsdp] over the first `devices` devices of all processes; 0 takes all.

    Raises UserError where there are fewer, where a process would be left without a device, and as `mesh_over` does.
    """
    available = jax.device_count()
    if devices > available:
        raise UserError(f"config.devices is {devices}: there are {available}; 0 takes all of them")
    if jax.process_count() > 1 and devices not in (0, available):
        raise UserError(f"config.devices is {devices}: with several processes it must be 0 (all {available})")
    return mesh_over(jax.devices()[: devices or available], fsdp_devices)


def mesh_over(devices: Sequence[jax.Device], fsdp_devices: int) -> Mesh:
    """Returns a mesh [data, fsdp] over these devices; raises UserError where `fsdp_devices` does not divide them."""
    used = len(devices)
    if used % fsdp_devices:
        raise UserError(f"config.fsdp_devices is {fsdp_devices}: it must divide the {used} devices in use; 1 is always")
    # Auto: the compiler places what is not said. The default, Explicit, wants a sharding on every gather.
    return jax.make_mesh(
        (used // fsdp_devices, fsdp_devices),
        (DATA_AXIS, FSDP_AXIS),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def least_of_processes(value: int | None) -> int | None:
    """Returns the least of all processes' values, so that they decide alike; None where one has none. All must call."""
    if jax.process_count() == 1:
        return value
    known = multihost_utils.process_allgather(np.asarray(-1 if value is None else value, np.float64))
    return None if known.min() < 0 else int(known.min())


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array: statistics, counters, resident data."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """The first axis, the batch, is split over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def over_fsdp(mesh: Mesh, tree: Any) -> Any:
    """Returns the layout of each leaf of a tree of parameters: its longest axis that can be is split over `fsdp`.

    Of equally long axes it is the last, the output channels. A leaf with no axis that the devices divide is replicated.
    """
    size = mesh.shape[FSDP_AXIS]

    def layout(leaf: Any) -> NamedSharding:
        axes = [axis for axis, length in enumerate(leaf.shape) if length % size == 0 and length]
        if size == 1 or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: (leaf.shape[axis], axis))
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, FSDP_AXIS))

    return jax.tree.map(layout, tree)


def make_gather(mesh: Mesh, layout: Any) -> Callable[[Any], Any]:
    """Returns the function that makes parameters whole for their use in a forward pass; traced, differentiable.

    layout: of the parameters, from `over_fsdp`. Left to itself the compiler would rather split the activations by
    channels, as the weights are, and send whole batches around.
    """
    if mesh.shape[FSDP_AXIS] == 1:
        return lambda params: params

    @jax.custom_vjp
    def gather(params: Any) -> Any:
        return jax.lax.with_sharding_constraint(params, replicated(mesh))

    def forward(params: Any) -> tuple[Any, None]:
        return gather(params), None

    def backward(_: None, gradients: Any) -> tuple[Any]:
        # The sums over devices are wanted in parts only: a reduce-scatter where the platform has one.
        return (jax.lax.with_sharding_constraint(gradients, layout),)

    gather.defvjp(forward, backward)
    return gather
