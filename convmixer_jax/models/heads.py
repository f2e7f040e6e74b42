"""The table of heads: from pooled features to logits.

    logits = HEADS["representation"](layers, features, train, num_classes=10)     # inside of a compact method

The last layer of each is called `head`: what is replaced where the classes change. To add one, write a function of
these arguments and give it a row in HEADS.
"""

from collections.abc import Callable

import jax

from convmixer_jax.models.layers import Layers

Head = Callable[..., jax.Array]
REPRESENTATION = 256  # features of the representation, report B's
BN_DROPOUT = 0.2  # share of features that report B's LinearClassifier drops


def linear(layers: Layers, x: jax.Array, train: bool, *, num_classes: int) -> jax.Array:
    """The published head: [B, C] to [B, num_classes]."""
    del train  # it is the same
    return layers.dense(x, num_classes, name="head")


def representation(layers: Layers, x: jax.Array, train: bool, *, num_classes: int) -> jax.Array:
    """LayerNorm, two layers of 256 with the activation between, LayerNorm, classifier: report B's."""
    x = layers.normalise(x, train, "head_norm", norm="layer")
    x = layers.activate(layers.dense(x, REPRESENTATION, name="head_hidden"))
    x = layers.dense(x, REPRESENTATION, name="head_representation")
    x = layers.normalise(x, train, "head_representation_norm", norm="layer")
    return layers.dense(x, num_classes, name="head")


def bn_dropout(layers: Layers, x: jax.Array, train: bool, *, num_classes: int) -> jax.Array:
    """BatchNorm, dropout of a fifth, classifier: report B's LinearClassifier."""
    x = layers.normalise(x, train, "head_norm", norm="batch")
    x = layers.drop(x, BN_DROPOUT, train, axes=(), name="head_norm_drop")
    return layers.dense(x, num_classes, name="head")


HEADS: dict[str, Head] = {"linear": linear, "representation": representation, "bn_dropout": bn_dropout}
