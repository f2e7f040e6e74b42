"""Which examples have BatchNorm's statistics in common, on one device of several.

    sharing = share(examples=64, group_size=16, mesh=mesh)
    own = sharing.sums([x, x * x], layout)
    mean, square = (total / sharing.count(x, layout) for total in sharing.total(own))

Groups are of consecutive examples of the batch: all of them, some of a device's, or those of several devices. Only the
last, and all of them over several devices, make sums over devices.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from convmixer_jax.ops.layout import Layout


@dataclasses.dataclass(frozen=True)
class Sharing:
    """A frozen, hashable object: it is part of a static argument of operations.

    axes: the mesh axes, within `jax.shard_map`, that split the batch; () where it is whole. devices: in all. together:
    devices, one after the other, that share statistics. groups: of one device's examples; above 1 only where `together`
    is 1.
    """

    axes: tuple[str, ...] = ()
    devices: int = 1
    together: int = 1
    groups: int = 1

    def sums(self, values: list[jax.Array], layout: Layout) -> list[jax.Array]:
        """Returns this device's sum of each map, [C], or, where it has several groups, one for each example, [C, B]."""
        return layout.sums(values, each_example=self.groups > 1)

    def total(self, own: list[jax.Array]) -> list[jax.Array]:
        """Returns what `sums` gave, summed over all that share statistics: [C], or [C, B], the same within a group."""
        if self.groups > 1:
            return [self.over_groups(each) for each in own]
        if self.together == 1:
            return own
        return jax.lax.psum(own, self.axes, axis_index_groups=self.device_groups())

    def device_groups(self) -> list[list[int]] | None:
        """Returns the numbers of the devices in each group; None where all are one."""
        if self.together == self.devices:
            return None
        return [list(range(first, first + self.together)) for first in range(0, self.devices, self.together)]

    def over_groups(self, own: jax.Array) -> jax.Array:
        """Returns [C, B] with the sum over its group in the place of each example."""
        channels, examples = own.shape
        sums = own.reshape(channels, self.groups, -1).sum(2)
        return jnp.repeat(sums, examples // self.groups, axis=1)

    def over_examples(self, own: jax.Array) -> jax.Array:
        """Returns [C], the sum over this device's examples of what has the shape of `sums`."""
        return own.sum(1) if self.groups > 1 else own

    def count(self, x: jax.Array, layout: Layout) -> int:
        """Returns how many values of a map share statistics."""
        return layout.size(x) // self.groups * self.together

    def average(self, moments: Any) -> Any:
        """Returns the mean over all groups of the batch, [C], of each leaf that belongs to this device's groups."""
        if self.groups > 1:
            moments = jax.tree.map(lambda leaf: leaf.mean(1), moments)
        return moments if self.together == self.devices else jax.lax.pmean(moments, self.axes)


def share(examples: int, group_size: int, mesh: Mesh | None) -> Sharing:
    """Returns who shares statistics in a batch of so many examples, in groups of `group_size`; 0: in one.

    mesh: over all of whose axes the batch is split; None: one device. Raises ValueError where groups are not whole, on
    each device or over several.
    """
    devices = mesh.size if mesh else 1
    axes = mesh.axis_names if mesh and devices > 1 else ()
    size, part = group_size or examples, examples // devices
    if examples % size or (size % part and part % size):
        raise ValueError(f"groups of {size}: they do not divide {examples} examples on {devices} devices evenly")
    return Sharing(axes, devices, together=max(1, size // part), groups=max(1, part // size))
