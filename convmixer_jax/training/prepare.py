"""From raw training examples to what an update gets: augmented, normalised, mixed, with soft targets.

prepare = make_prepare(augment, mix, num_classes=10, label_smoothing=0.1)
images, targets = prepare(seed, step, {"image": uint8 [B, H, W, C], "label": int32 [B]})
"""

from collections.abc import Callable

import jax
import optax

from convmixer_jax.training.state import step_key

Batch = dict[str, jax.Array]
Augment = Callable[[jax.Array, jax.Array], jax.Array]
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
Prepare = Callable[[jax.Array | int, jax.Array | int, Batch], tuple[jax.Array, jax.Array]]


def smooth_targets(label: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Returns soft targets, float32 [B, classes]: `smoothing` spread over all classes, the rest on the label."""
    return optax.smooth_labels(jax.nn.one_hot(label, num_classes), smoothing)


def make_prepare(augment: Augment, mix: Mix | None, *, num_classes: int, label_smoothing: float) -> Prepare:
    """Returns (seed, step, examples) to (images, targets); every draw is keyed by seed and step.

    augment: (key, uint8 images) to normalised images. mix: (key, images, targets) to the same, None for no mixing.
    images: [B, H, W, C]; targets: float32 [B, classes], which sum to one.
    """

    def prepare(seed: jax.Array | int, step: jax.Array | int, examples: Batch) -> tuple[jax.Array, jax.Array]:
        images = augment(step_key(seed, "augment", step), examples["image"])
        targets = smooth_targets(examples["label"], num_classes, label_smoothing)
        return mix(step_key(seed, "mix", step), images, targets) if mix else (images, targets)

    return prepare
