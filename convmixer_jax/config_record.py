"""A run's record of its config, and whether two are of the same run: what may differ when it is resumed, the digest.

record = read_record(workdir)
changed = differences(record["config"], config)
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.config import flatten, get_base, to_plain
from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import NOT_OURS, read_json

CONFIG_FILE = "config.json"  # in a workdir; its "config" is what `to_plain` made

# May differ between the start of a run and its resumption: none of them changes what is computed, but for the order
# in which devices, and the program that they share, make float32 sums.
RESUME_MAY_CHANGE = frozenset({
    "input",
    "on_bad_example",
    "devices",
    "fsdp_devices",
    "steps_per_dispatch",
    "model.preset",  # names what other fields hold
    "model.ops",
    "model.remat",
    "eval_flip",
    "eval_batch_size",
    "report_every_steps",
    "eval_every_epochs",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "wandb_project",
    "compilation_cache",
    "max_skipped_steps",
    "stop_grace_seconds",
    "watchdog_seconds",
    "watchdog_compile_seconds",
})  # fmt: skip
# An evaluation may ask for the other variables, too; while training, they decide which checkpoint is the best.
EVAL_MAY_CHANGE = RESUME_MAY_CHANGE | {"eval_params"}


def read_record(workdir: Path) -> dict[str, Any] | None:
    """Returns the workdir's config.json, None where there is none. Raises UserError where it holds no config."""
    record = read_json(workdir / CONFIG_FILE)
    if record is not None and not isinstance(record.get("config"), dict):
        raise UserError(f"{workdir / CONFIG_FILE} names no config: {NOT_OURS}")
    return record


def _deciding(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config by dotted name, as far as they decide what is computed.

    Where a folder lies does not: its classes are recorded, and its images known by their digest.
    """
    found = dict(flatten(values))
    kind, colon, _ = str(found.get("dataset", "")).partition(":")
    return found | ({"dataset": kind + colon} if (kind, colon) == ("folder", ":") else {})


def digest(config: ConfigDict) -> str:
    """Returns a SHA-256, in hexadecimal, of the fields that decide what a run computes and are not as in the base."""
    base = dict(flatten(to_plain(get_base())))
    deciding = {
        name: value
        for name, value in _deciding(to_plain(config)).items()
        if name not in EVAL_MAY_CHANGE and value != base[name]
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def differences(saved: dict[str, Any], config: ConfigDict, may_change: frozenset[str] = RESUME_MAY_CHANGE) -> list[str]:
    """Returns "name: saved value -> new value" for each field that is not in `may_change` but did change.

    saved: what `to_plain` made of the other config. A field that did not exist then had the base's value.
    """
    base, old, new = (_deciding(values) for values in (to_plain(get_base()), saved, to_plain(config)))
    old = base | old
    return [
        f"config.{name}: {old[name]!r} -> {new.get(name, 'no such field any more')!r}"
        for name in sorted(old)
        if name not in may_change and old[name] != new.get(name)
    ]
