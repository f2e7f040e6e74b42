"""The arithmetic of a ConvMixer, counted by hand: what an image must cost, whatever the implementation.

flops = 2 * multiply_adds(model, image_shape, num_classes)["training"]
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Of a model: h, d, p, k, classes; and of its images: height, width, channels."""

    dim: int
    depth: int
    patch_size: int
    kernel_size: int
    num_classes: int
    image_shape: tuple[int, int, int]


def multiply_adds(shape: Shape) -> dict[str, int]:
    """Returns the multiply-adds of one image, {inference, training}, of the convolutions and the classifier alone.

    With H' x W' patches: H'W'p²ch of the stem, d H'W'(k²h + h²) of the blocks, hn of the classifier. Taps that fall on
    the padding count as if they were computed. Training is three times that, for the gradients by the inputs and by
    the weights cost what the forward pass costs, less the stem's gradient by the image, which nobody needs.
    Activations, BatchNorm and the optimiser are left out: they are of lower order in h and bound by memory.
    """
    height, width, channels = shape.image_shape
    patches = (height // shape.patch_size) * (width // shape.patch_size)
    stem = patches * shape.patch_size**2 * channels * shape.dim
    block = patches * (shape.kernel_size**2 * shape.dim + shape.dim**2)
    inference = stem + shape.depth * block + shape.dim * shape.num_classes
    return {"inference": inference, "training": 3 * inference - stem}
