"""A ConvMixer from its images to the pooled features, on any mesh: all of it but the classifier.

    trunk = Trunk(layout, Settings(ACTIVATIONS["gelu"], 1e-5), jnp.float32, remat=False, mesh=mesh)
    features, moments = trunk(params, images, None, None)       # training
    features, _ = trunk(params, images, moments, None)          # evaluation

Over several devices it runs under `jax.shard_map`: the compiler's own partitioner cannot split an axis that is merged
of examples and positions, nor a Pallas call, and would gather the whole batch on each device. Sums over examples,
those of BatchNorm and of gradients, are all that crosses between devices; where groups of examples within a device
have their own statistics, BatchNorm sends their averages alone, once and after everything else.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
from flax.typing import Dtype
from jax.sharding import Mesh, PartitionSpec

from convmixer_jax.ops.layout import Layout
from convmixer_jax.ops.sharing import share
from convmixer_jax.ops.spatial import Moments, Norm, Settings, SpatialParams, pooled_features, product, spatial


class Block(NamedTuple):
    """Parameters of a block. kernel: [k, k, 1, C] of the depthwise, product: [1, 1, C, C] of the pointwise."""

    kernel: jax.Array
    norm: Norm
    product: jax.Array


class TrunkParams(NamedTuple):
    """stem: [p, p, c, C]. entries: what comes after the stem and after each block's product: one more than blocks."""

    stem: jax.Array
    entries: list[Norm]
    blocks: list[Block]


@dataclasses.dataclass(frozen=True)
class Trunk:
    """How to compute it.

    dtype: of maps. remat: keep one map per block for the backward pass and compute the others again. mesh: over all
    of whose axes the batch is split; None: one device. group_size: consecutive examples of a training batch that share
    statistics; 0: all.
    """

    layout: Layout
    settings: Settings
    dtype: Dtype
    remat: bool
    mesh: Mesh | None
    group_size: int = 0

    def __call__(
        self, params: TrunkParams, images: jax.Array, given: list[Moments] | None, keep: jax.Array | None
    ) -> tuple[jax.Array, list[Moments]]:
        """Returns features [B, C], float32, and the moments [C] of every norm in the order of the network.

        images: [B, H, W, c]. given: moments to normalise with, an evaluation's, which has no gradient; None: the
        batch's own, of which the mean over groups comes back. keep: [depth, B], what each example's residual branch is
        multiplied with; None: 1.
        """
        sharing = share(len(images), 0 if given else self.group_size, self.mesh)
        local = dataclasses.replace(self, settings=dataclasses.replace(self.settings, sharing=sharing))
        if self.mesh is None or self.mesh.size == 1:
            return local.on_device(params, images, given, keep)
        axes = self.mesh.axis_names
        if sharing.together > 1:
            local = dataclasses.replace(local, layout=self.layout.across_devices())
        whole, split = PartitionSpec(), PartitionSpec(axes)
        over_devices = jax.shard_map(
            local.on_device,
            mesh=self.mesh,
            in_specs=(whole, split, whole, PartitionSpec(None, axes)),
            out_specs=(split, whole),
            # The operations make their own sums over devices, which a check of types cannot follow.
            check_vma=False,
        )
        return over_devices(params, images, given, keep)

    def on_device(
        self,
        params: TrunkParams,
        images: jax.Array,
        given: list[Moments] | None,
        keep: jax.Array | None,
    ) -> tuple[jax.Array, list[Moments]]:
        """Computes one device's part of the batch; see `__call__`."""

        def block(v: jax.Array, parameters: SpatialParams, kernel: jax.Array, *rest: Any) -> Any:
            y, moments = spatial(v, parameters, *rest, self.layout, self.settings)
            return product(y, kernel, self.layout), moments

        block = jax.checkpoint(block) if self.remat else block
        v = self.layout.embed(images.astype(self.dtype), params.stem)
        moments = []
        for i, (kernel, norm, weights) in enumerate(params.blocks):
            parameters = SpatialParams(params.entries[i], self.layout.kernel(kernel), norm)
            two = (given[2 * i], given[2 * i + 1]) if given else None
            v, of_block = block(v, parameters, weights[0, 0], two, None if keep is None else keep[i])
            moments += of_block
        last = given[-1] if given else None
        features, of_last = pooled_features(v, params.entries[-1], last, self.layout, self.settings)
        moments = [*moments, of_last]
        return self.layout.examples_first(features), moments if given else self.settings.sharing.average(moments)
