"""A model's logits as one compiled program, for whatever looks at many images.

    program = quickest_program(description)
    logits = program(variables, images)             # normalised float32 [B, H, W, C] to float32 [B, classes]

It is compiled at the first call for each shape of images.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax import linen as nn

from convmixer_jax.errors import UserError
from convmixer_jax.inference.description import Description, build, quickest_ops
from convmixer_jax.ops.choice import compiler_options
from convmixer_jax.runs.memory import is_out_of_memory

Program = Callable[[Mapping[str, Any], Any], jax.Array]


def compile_model(model: nn.Module, ops: str) -> Program:
    """Returns variables and images to logits. ops: the row of OPS that `model` was built with.

    No jax.jit may go round it: JAX refuses compiler options anywhere but in the outermost.
    """
    # The variables are an argument: as constants of the program, those of a large model take minutes to compile.
    return jax.jit(
        lambda variables, images: model.apply(variables, images, train=False),
        compiler_options=compiler_options(ops, jax.default_backend()),
    )


def quickest_program(description: Description) -> Program:
    """Returns the quickest that JAX has on this machine."""
    ops = quickest_ops(description)
    return compile_model(build(description, ops), ops)


@contextlib.contextmanager
def memory_mistakes(batch_size: int, image_shape: tuple[int, int, int]) -> Iterator[None]:
    """Raises UserError in place of what is raised where so many images do not fit into memory at once."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        height, width, channels = image_shape
        raise UserError(
            f"{batch_size} images of {height}x{width}x{channels} at once do not fit into memory: take a smaller batch "
            "size, or a model of smaller images"
        ) from error
