"""Checkpoints to damage, and ways to do it."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.manifest import encode

META = {"config_digest": "ab"}


def make_tree() -> dict:
    numbers = np.random.default_rng(0).standard_normal((16, 8))
    return {
        "params": {"kernel": jnp.asarray(numbers, jnp.float32), "half": jnp.asarray(numbers, jnp.bfloat16)},
        "step": jnp.int32(2),
    }


def abstract(tree: dict) -> dict:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), tree)


def save_steps(folder: Path, *numbers: int, score: float | None = 0.5) -> None:
    checkpoints = Checkpoints(folder, keep=len(numbers))
    for number in numbers:
        checkpoints.save(number, make_tree(), META, score)
    checkpoints.close()
    assert checkpoints.failures == {}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(step: Path) -> None:
    path = largest(step / "state")
    path.write_bytes(path.read_bytes()[:-1])


def empty(step: Path) -> None:
    largest(step / "state").write_bytes(b"")


def remove_data(step: Path) -> None:
    largest(step / "state").unlink()


def remove_small(step: Path) -> None:
    (step / "commit_success.txt").unlink()


def add_file(step: Path) -> None:
    (step / "state/d/extra").write_bytes(b"1")


def swap_values(step: Path) -> None:
    """Bytes of another run's step: whole files, each readable, of the same names."""
    (step / "meta/metadata").write_text('{"config_digest": "cd"}')


def damage_manifest(step: Path) -> None:
    flip(step / "MANIFEST.json", 4321)


def empty_manifest(step: Path) -> None:
    (step / "MANIFEST.json").write_bytes(b"")


def respell_manifest(step: Path) -> None:
    path = step / "MANIFEST.json"
    path.write_bytes(path.read_bytes() + b"\n")


def alter_kinds(step: Path) -> None:
    """Its own digest is right, but it is not what is read here."""
    path = step / "MANIFEST.json"
    path.write_bytes(encode(json.loads(path.read_bytes())["manifest"] | {"files": []}))


def rename_step(step: Path) -> None:
    """The manifest of another step."""
    path = step.parent / "1/MANIFEST.json"
    (step / "MANIFEST.json").write_bytes(path.read_bytes())


# Each with words of the reason that is told.
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, r" has \d+ bytes, not \d+"),
    "empty": (empty, r" has 0 bytes, not \d+"),
    "data removed": (remove_data, r"state/.* is missing"),
    "small file removed": (remove_small, "commit_success.txt is missing"),
    "a file more": (add_file, "state/d/extra does not belong there"),
    "other content": (swap_values, "meta/metadata is not as it was written"),
    "manifest": (damage_manifest, "its manifest is damaged"),
    "manifest empty": (empty_manifest, "its manifest is damaged"),
    "manifest respelt": (respell_manifest, "its manifest is damaged"),
    "manifest of other kinds": (alter_kinds, "its manifest lacks what is read here"),
    "manifest of another step": (rename_step, "its manifest is of step 1"),
}
