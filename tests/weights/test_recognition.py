"""The architecture follows from the shapes, and a tensor that is odd is named as the file names it."""

from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.presets import PRESETS
from convmixer_jax.weights.names import STYLES, Style
from convmixer_jax.weights.reading import TorchFile
from convmixer_jax.weights.recognition import Architecture, check_tensors, read_counters, recognise
from tests.weights.models import SMALL, random_images, random_model, torch_file


def file_of(architecture: Architecture) -> TorchFile:
    """A file of these shapes that takes no memory."""
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in architecture.tensor_shapes().items()}
    return TorchFile(Path("x.pth"), tensors, prefix="", metadata={}, has_ema=False)


def architecture_of(preset: str, style: Style, classes: int) -> Architecture:
    fields = PRESETS[preset]
    return Architecture(
        style, fields["dim"], fields["depth"], fields["patch_size"], fields["kernel_size"], classes, channels=3
    )


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_named_model_is_recognised(preset, style):
    expected = architecture_of(preset, STYLES[style], 1000)
    found = recognise(file_of(expected))
    assert found == expected
    check_tensors(file_of(expected), found)
    assert found.model_fields() | {"activation": found.activation} == {
        name: PRESETS[preset][name] for name in ("variant", "dim", "depth", "patch_size", "kernel_size", "activation")
    }


def test_the_released_model_alone_has_relu():
    assert architecture_of("convmixer_768_32", STYLES["timm"], 10).activation == "gelu"


@pytest.fixture
def whole() -> TorchFile:
    file = torch_file(random_model(SMALL, 10, random_images(SMALL, 3)).state_dict())
    return TorchFile(file.path, file.tensors, prefix="module.", metadata={}, has_ema=False)


def test_the_counters_are_read(whole):
    assert read_counters(whole, recognise(whole)) == {
        "stem_norm": 3,
        **{f"block_{i}_{part}_norm": 3 for i in range(2) for part in ("depthwise", "pointwise")},
    }


def test_files_of_before_there_were_counters(whole):
    tensors = {name: tensor for name, tensor in whole.tensors.items() if "num_batches" not in name}
    old = TorchFile(whole.path, tensors, prefix="", metadata={}, has_ema=False)
    check_tensors(old, recognise(old))
    assert read_counters(old, recognise(old)) == {}


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


# Tensors that are put in, or None for those that are taken out, and what is told.
ODD = {
    "missing": ({"blocks.1.3.running_var": None},
                r"has nothing for module.blocks.1.3.running_var, a ConvMixer-8/2 .* wants \(8,\)"),
    "extra": ({"head.2.weight": zeros(3, 4)}, r"has \(3, 4\) for module.head.2.weight, .* wants nothing"),
    "extra after the last": ({"zz": zeros(2)}, r"has \(2,\) for module.zz, .* wants nothing"),
    "wrong": ({"blocks.1.0.fn.0.weight": zeros(8, 1, 3, 3)},
              r"has \(8, 1, 3, 3\) for module.blocks.1.0.fn.0.weight, .* wants \(8, 1, 4, 4\)"),
    "no rectangle": ({"stem.0.weight": zeros(8, 3, 2, 3)},
                     r"has \(8, 3, 2, 3\) for module.stem.0.weight, .* wants \(8, 3, 2, 2\)"),
    "a counter of another shape": ({"stem.2.num_batches_tracked": zeros(8)},
                                   r"has \(8,\) for module.stem.2.num_batches_tracked, .* wants \(\)"),
    "another kind of stem": ({"stem.0.weight": zeros(8, 3)},
                             r"has \(8, 3\) for module.stem.0.weight, .* wants \[dim, channels, patch, patch\]"),
    "no classifier": ({"head.weight": None, "head.bias": None},
                      r"has nothing for module.head.weight, a ConvMixer wants \[classes, dim\]"),
    "no stem": ({"stem.0.weight": None}, r"holds no ConvMixer: neither stem.0.weight \(timm's names\) nor 0.weight"),
    "a hole": ({"blocks.5.1.bias": zeros(8)}, r"has no tensors module.blocks.2.\*: it has blocks up to 5"),
    "a far hole": ({"blocks.99999999999.1.bias": zeros(8)}, r"has no tensors module.blocks.2.\*"),
}  # fmt: skip


@pytest.mark.parametrize("change, words", ODD.values(), ids=ODD)
def test_an_odd_tensor_is_named_with_both_shapes(whole, change, words):
    tensors = {name: tensor for name, tensor in (whole.tensors | change).items() if tensor is not None}
    file = TorchFile(whole.path, tensors, whole.prefix, {}, has_ema=False)
    with pytest.raises(UserError, match=f"weights.pth {words}"):
        check_tensors(file, recognise(file))


def test_no_blocks_at_all():
    tensors = {"0.weight": zeros(8, 3, 2, 2), "2.weight": zeros(8)}
    with pytest.raises(UserError, match=r"has no tensors 3.\*: it has no blocks at all"):
        recognise(TorchFile(Path("x.pth"), tensors, "", {}, has_ema=False))
