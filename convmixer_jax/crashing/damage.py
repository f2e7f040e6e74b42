"""Damage to the files of a checkpoint, as disks and people do it.

what = DAMAGES["bit flip"](folder, random.Random(1))        # "bit 3 of byte 1,207 of state/d/4f..."
"""

import random
from collections.abc import Callable
from pathlib import Path


def _some_file(step: Path, draws: random.Random) -> Path:
    """Returns a file that has any bytes."""
    return draws.choice(sorted(path for path in step.rglob("*") if path.is_file() and path.stat().st_size))


def flip(step: Path, draws: random.Random) -> str:
    """Turns one bit over."""
    path = _some_file(step, draws)
    content = bytearray(path.read_bytes())
    byte, bit = draws.randrange(len(content)), draws.randrange(8)
    content[byte] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {byte:,} of {path.relative_to(step)}"


def truncate(step: Path, draws: random.Random) -> str:
    """Cuts a file short."""
    path = _some_file(step, draws)
    size = path.stat().st_size
    left = draws.randrange(size)
    path.write_bytes(path.read_bytes()[:left])
    return f"{path.relative_to(step)} is cut from {size:,} to {left:,} bytes"


def remove(step: Path, draws: random.Random) -> str:
    """Removes a file."""
    path = _some_file(step, draws)
    path.unlink()
    return f"{path.relative_to(step)} is removed"


# From a step's folder to what was done to it.
Damage = Callable[[Path, random.Random], str]
DAMAGES: dict[str, Damage] = {
    "bit flip": flip,
    "truncation": truncate,
    "removal": remove,
}
