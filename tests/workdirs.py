"""A run's folder as training leaves it, without the training: its weights are initial ones of another seed."""

from pathlib import Path

import jax
import numpy as np

from convmixer_jax.command_line import parse
from convmixer_jax.config import to_plain
from convmixer_jax.config_record import digest
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.files import write_json
from convmixer_jax.training.assembly import assemble
from convmixer_jax.training.state import to_tree


def make_workdir(workdir: Path, arguments: list[str], step: int, shift: float = 0.25) -> None:
    """Writes config.json and the checkpoint of one step. arguments: of the command line. shift: of the statistics."""
    config = parse(["main", *arguments]).config
    state = assemble(config).init_state(np.uint32(config.seed + 1))
    state = state.replace(batch_stats=jax.tree.map(lambda leaf: leaf + shift, state.batch_stats))
    workdir.mkdir()
    write_json(workdir / "config.json", {"config": to_plain(config)})
    checkpoints = Checkpoints(workdir / "checkpoints")
    meta = {"config_digest": digest(config), "train_top1": 0.1, "seconds": 2.0, "step_seconds": 1.0, "best": None}
    checkpoints.save(step, to_tree(state), meta)
    checkpoints.close()
