"""Metrics as sums and counts that are divided once, at the end.

    sums = sums.add(loss=..., top1=..., ...)         # on the devices, in every step
    row = sums.means()                               # on the host, late

Averages of averages would weigh a short batch too much, and a sum can be carried in a checkpoint.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


class TrainSums(struct.PyTreeNode):
    """What was summed over the updates since the last reset; scalars. Skipped updates add to `skipped` alone."""

    loss: jax.Array  # float32: sum over examples
    top1: jax.Array  # int32: examples whose largest logit is the label's
    examples: jax.Array  # int32
    grad_norm: jax.Array  # float32: sum over updates, before clipping
    updates: jax.Array  # int32
    skipped: jax.Array  # int32: updates left out for a non-finite loss or gradient

    @classmethod
    def zeros(cls) -> "TrainSums":
        """Nothing summed yet."""
        whole = ("top1", "examples", "updates", "skipped")
        # Each field an array of its own: a donated state must not name one buffer twice.
        return cls(
            loss=jnp.zeros((), jnp.float32),
            grad_norm=jnp.zeros((), jnp.float32),
            **{name: jnp.zeros((), jnp.int32) for name in whole},
        )

    def add(
        self, loss: jax.Array, top1: jax.Array, examples: int, grad_norm: jax.Array, finite: jax.Array
    ) -> "TrainSums":
        """Adds one update: mean loss, correct examples, batch size, gradient norm, and whether all was finite."""

        def counted(value: jax.Array | int, dtype: str) -> jax.Array:
            return jnp.where(finite, value, 0).astype(dtype)

        return TrainSums(
            loss=self.loss + counted(loss * examples, "float32"),
            top1=self.top1 + counted(top1, "int32"),
            examples=self.examples + counted(examples, "int32"),
            grad_norm=self.grad_norm + counted(grad_norm, "float32"),
            updates=self.updates + counted(1, "int32"),
            skipped=self.skipped + (~finite).astype("int32"),
        )

    def means(self) -> dict[str, float]:
        """Returns train/loss, train/top1 (a fraction), norm/grad and train/skipped_updates; waits for the device.

        Where every update was skipped the means are NaN.
        """
        sums = jax.device_get(self)
        examples, updates = float(sums.examples) or np.nan, float(sums.updates) or np.nan
        return {
            "train/loss": float(sums.loss) / examples,
            "train/top1": float(sums.top1) / examples,
            "norm/grad": float(sums.grad_norm) / updates,
            "train/skipped_updates": int(sums.skipped),
        }


class EvalSums(struct.PyTreeNode):
    """What one evaluation batch adds up to; padding counts for nothing."""

    loss: jax.Array  # float32: sum over examples
    top5: jax.Array  # int32: examples whose label is among the five largest logits
    correct: jax.Array  # int32 [classes]: examples of each class whose largest logit is the label's
    examples: jax.Array  # int32 [classes]
    correct_flip: jax.Array | None = None  # int32: right by the mean of image and mirror image; None = not asked for


def summarise_evaluation(batches: list[EvalSums]) -> dict[str, float | int | list[float]]:
    """Returns n, top1, top5, loss and per_class (all fractions) over all batches; waits for the device.

    And top1_flip where the mirror images were looked at, too. Sums over batches are made in float64. A class without
    examples has NaN.
    """
    total = jax.tree.map(lambda *leaves: np.sum(np.asarray(leaves, np.float64), axis=0), *jax.device_get(batches))
    n = total.examples.sum()
    with np.errstate(invalid="ignore"):
        per_class = total.correct / total.examples
    flipped = {} if total.correct_flip is None else {"top1_flip": float(total.correct_flip / n)}
    return {
        "n": int(n),
        "top1": float(total.correct.sum() / n),
        **flipped,
        "top5": float(total.top5 / n),
        "loss": float(total.loss / n),
        "per_class": [float(fraction) for fraction in per_class],
    }
