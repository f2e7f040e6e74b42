"""Batches on the devices: what every input path hands to the compiled step, and how an array gets there."""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

Batch = dict[str, jax.Array]
Shapes = dict[str, jax.ShapeDtypeStruct]


def stacked(sharding: NamedSharding) -> NamedSharding:
    """Returns the layout of arrays laid out by `sharding` one after the other on a new first axis."""
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))


def put(array: np.ndarray, sharding: Sharding) -> jax.Array:
    """Returns `array` laid out by `sharding`; every process holds the whole array and gives its own part."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
