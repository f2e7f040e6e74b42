"""Which implementation of the operations runs: the table of them, and what `auto` takes.

    case = ops_case("cpu", "float32", kernel_size=5, patch_size=2, image_shape=(32, 32, 3))
    implementation, why = choose("auto", case)

choices.json holds what was measured to be the quickest, by platform, dtype and kernel size;
`python -m convmixer_jax.benchmark ops --write` measures again on the machine at hand. To add an implementation, add a
row to OPS; the tests compare every row with the reference.
"""

import dataclasses
import functools
import json
from pathlib import Path

from convmixer_jax.errors import UserError, lookup
from convmixer_jax.ops.channel_major import ChannelMajor
from convmixer_jax.ops.channels_last import ChannelsLast
from convmixer_jax.ops.depthwise.implementations import IMPLEMENTATIONS
from convmixer_jax.ops.layout import Layout
from convmixer_jax.ops.native.layout import Native
from convmixer_jax.ops.sharing import Sharing

AUTO, REFERENCE = "auto", "reference"
CHOICES = Path(__file__).with_name("choices.json")

# The reference is the plain linen model, differentiated by JAX: it needs no layout.
OPS: dict[str, Layout | None] = {
    REFERENCE: None,
    "channel_major": ChannelMajor(),
    "native": Native(),
    **{name: ChannelsLast(convolution) for name, convolution in IMPLEMENTATIONS.items()},
}

# What is taken where an implementation lacks something; of others, the reference. native needs a compiler, and knows
# fewer shapes.
INSTEAD = {"native": "channel_major"}


@dataclasses.dataclass(frozen=True)
class Case:
    """What the choice depends on. platform: cpu, gpu or tpu; dtype: a name; map_size: (H, W) after the stem."""

    platform: str
    dtype: str
    kernel_size: int
    map_size: tuple[int, int]


def ops_case(
    platform: str, dtype: str, *, kernel_size: int, patch_size: int, image_shape: tuple[int, int, int]
) -> Case:
    """Returns the case of a model on images (H, W, C)."""
    height, width, _ = image_shape
    return Case(platform, dtype, kernel_size, (height // patch_size, width // patch_size))


def lacks(name: str, case: Case) -> str | None:
    """Returns what keeps an implementation of OPS from a case, in a few words, or None."""
    layout = OPS[name]
    return layout.lacks(case.kernel_size, case.dtype, case.map_size, case.platform) if layout else None


@functools.cache
def read_choices() -> dict[str, dict[str, dict[str, str]]]:
    """Returns {platform: {dtype: {kernel size: name}}}."""
    choices: dict[str, dict[str, dict[str, str]]] = json.loads(CHOICES.read_text())["choices"]
    return choices


def quickest(case: Case) -> str:
    """Returns what choices.json has for the nearest kernel size; the reference where it has nothing."""
    by_size = read_choices().get(case.platform, {}).get(case.dtype, {})
    nearest = min(by_size, key=lambda size: (abs(int(size) - case.kernel_size), int(size)), default=None)
    return REFERENCE if nearest is None else by_size[nearest]


def choose(name: str, case: Case) -> tuple[str, str | None]:
    """Returns the implementation that runs for config.model.ops = name, and why not the one wanted, or None.

    A shape that an implementation lacks takes INSTEAD, or the reference. What lacks even an easy case, the platform
    lacks: that is a UserError, as is a `name` in no row.
    """
    if name != AUTO:
        lookup({AUTO: None, **OPS}, name, "config.model.ops")
    wanted = quickest(case) if name == AUTO else name
    missing = lacks(wanted, case)
    if not missing:
        return wanted, None
    if name != AUTO and lacks(wanted, Case(case.platform, "float32", 3, (32, 32))):
        raise UserError(
            f"config.model.ops is {name!r}: {missing}; this platform is {case.platform}, take 'auto' or "
            f"{REFERENCE!r}, which run everywhere"
        )
    instead = INSTEAD.get(wanted, REFERENCE)
    return REFERENCE if lacks(instead, case) else instead, f"{wanted}: {missing}"


def computes_as(name: str, examples: int, sharing: Sharing) -> str | None:
    """Returns whose formulas an implementation takes for so many examples of a device, and why, or None: its own."""
    layout = OPS[name]
    why = layout.unfused(examples, sharing) if layout else None
    return f"computes as {INSTEAD[name]}: {why}" if why else None


def compiler_options(name: str, platform: str) -> dict[str, bool | int]:
    """Returns what a program with an implementation is compiled with."""
    layout = OPS[name]
    return layout.compiler_options(platform) if layout else {}


def loops_well(name: str, platform: str) -> bool:
    """Whether an update with an implementation is as fast inside of a loop of several updates as outside."""
    layout = OPS[name]
    # XLA's CPU backend has no quick convolutions in a loop.
    return layout.loops_well(platform) if layout else platform != "cpu"
