"""Train, evaluate and use ConvMixer models ("Patches Are All You Need?", arXiv 2201.09792) with JAX.

    import convmixer_jax

    model, variables, preprocess = convmixer_jax.load("runs/cifar10")
    logits = model.apply(variables, preprocess(["cat.jpg"]), train=False)

JAX is imported by the first `load`, not by the package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from flax import linen as nn

    from convmixer_jax.inference.preprocess import Preprocess

__version__ = "0.1.0"


def load(path: "str | Path", ops: str | None = None) -> "tuple[nn.Module, dict[str, Any], Preprocess]":
    """Returns (model, variables, preprocess) of trained weights: a run's workdir, a converted directory, or a file.

    preprocess: from a list of paths or PIL images of any size to normalised float32 [N, H, W, C].
    model.apply(variables, images, train=False) returns logits [N, classes], float32. It is compiled at the first call
    for each shape of images, inside of jax.jit and outside; the calls that follow are quick.

    ops: how it is computed, a row of convmixer_jax.ops.choice.OPS; None or "auto" takes the quickest for this machine.
    With "reference" logits can be differentiated with respect to the images, and jax.export takes them; the others have
    no gradient in evaluation, and the quickest on CPUs are calls that jax.export refuses.
    Raises convmixer_jax.errors.UserError where there are no weights, or they do not fit.
    """
    from convmixer_jax.inference.interactive import load as load_compiled

    return load_compiled(path, ops)
