"""The table of model variants, and the one place that builds a model from plain settings.

    model = make_model("convmixer", num_classes=10, dtype="bfloat16", dim=256, depth=8, patch_size=2, kernel_size=5,
                       activation="gelu", initializer="pytorch", norm_momentum=0.1, norm_epsilon=1e-5, drop_path=0.0,
                       head_dropout=0.0, remat=False, ops="reference", mesh=None)

To add a variant, add a row to VARIANTS; the parameter-count table in the tests then asks for its count.
"""

from flax import linen as nn
from jax.sharding import Mesh

from convmixer_jax.errors import lookup
from convmixer_jax.models.convmixer import ConvMixer
from convmixer_jax.models.initializers import INITIALIZERS
from convmixer_jax.ops.activations import ACTIVATIONS

VARIANTS: dict[str, type[nn.Module]] = {"convmixer": ConvMixer}


def make_model(
    variant: str,
    *,
    num_classes: int,
    dtype: str,
    dim: int,
    depth: int,
    patch_size: int,
    kernel_size: int,
    activation: str,
    initializer: str,
    norm_momentum: float,
    norm_epsilon: float,
    drop_path: float,
    head_dropout: float,
    remat: bool,
    ops: str,
    mesh: Mesh | None,
) -> nn.Module:
    """Returns the model; raises UserError, naming the config's field, where a choice is not in its table.

    dtype: of the computation ("float32" or "bfloat16"); parameters and statistics are float32 always. ops: a row of
    OPS, see ops/choice.py; mesh: the devices that a batch is split over.
    """
    lookup(ACTIVATIONS, activation, "config.model.activation")
    lookup(INITIALIZERS, initializer, "config.model.initializer")
    return lookup(VARIANTS, variant, "config.model.variant")(
        dim=dim,
        depth=depth,
        patch_size=patch_size,
        kernel_size=kernel_size,
        num_classes=num_classes,
        activation=activation,
        initializer=initializer,
        norm_momentum=norm_momentum,
        norm_epsilon=norm_epsilon,
        drop_path=drop_path,
        head_dropout=head_dropout,
        remat=remat,
        ops=ops,
        mesh=mesh,
        dtype=dtype,
    )
