"""Checkpoints: the only file that knows Orbax.

    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    checkpoints.save(step, tree, meta)      # starts an asynchronous write
    checkpoints.confirm()                   # a step counts as saved only after this
    tree, meta = checkpoints.restore(step, abstract_tree)

A checkpoint is a nested dict of arrays with string keys, and a small JSON object beside it. It is written into a
temporary folder that is renamed when everything is in it.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from convmixer_jax.errors import UserError

BEST_METRIC = "val_top1"


class Checkpoints:
    """The newest `keep` checkpoints of a folder, and the best one where a validation score came with them."""

    def __init__(self, directory: Path, keep: int = 1, read_only: bool = False):
        """Opens the folder. Leftovers of interrupted writes are removed, by a thread, unless `read_only`."""
        # Orbax tells each of its steps there, and the failures that `failures` holds.
        logging.getLogger("absl").setLevel(logging.CRITICAL)

        def score(metrics: dict[str, float]) -> float:
            return metrics[BEST_METRIC]

        best = preservation_policy.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(keep), best]),
            best_fn=score,  # without it Orbax drops the metrics that come with a save, and the policy sees none
            best_mode="max",
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        # Named at once: the metadata of a checkpoint can then be read before any was saved or restored here.
        handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options, item_handlers=handlers)
        self.directory = directory
        self._writing: int | None = None
        self.saved = max(self.steps(), default=None)
        self.failures: dict[int, str] = {}

    def steps(self) -> list[int]:
        """Returns the steps whose checkpoint is complete on disk, ascending."""
        return sorted(self._manager.all_steps(read=True))

    def save(self, step: int, tree: Any, meta: dict[str, Any], val_top1: float | None = None) -> None:
        """Starts to write `tree` (nested dict of arrays) and `meta` (JSON values) as step `step`.

        First waits for the write before, so writes never queue. A failure is noted in `failures`, never raised: a
        run that cannot save goes on and says so.
        """
        self.confirm()
        items = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        metrics = None if val_top1 is None else {BEST_METRIC: val_top1}
        self._writing = step
        try:
            self._manager.save(step, args=items, metrics=metrics, force=True)
        except Exception as error:  # Orbax raises bare Exceptions; all mean that this step is not saved
            self._note_failure(error)

    def confirm(self) -> None:
        """Waits for the write under way, if any; afterwards it is `saved` or in `failures`."""
        if self._writing is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # only this call tells that an asynchronous write failed
            self._note_failure(error)
            return
        self.saved, self._writing = self._writing, None
        self.failures.pop(self.saved, None)

    def confirm_if_finished(self) -> None:
        """Confirms the write under way where that takes no waiting."""
        if self._writing is not None and not self._manager.is_saving_in_progress():
            self.confirm()

    def _note_failure(self, error: Exception) -> None:
        assert self._writing is not None
        self.failures[self._writing] = f"{type(error).__name__}: {error}"
        self._writing = None
        self._manager.reload()  # its list of steps holds the failed one; the folder does not

    def restore(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        """Returns (tree, meta) of a step, laid out by the shardings of `abstract`, on any number of devices.

        abstract: the tree with jax.ShapeDtypeStruct leaves that have a sharding. Raises UserError where a leaf is
        missing, additional, or of another shape or dtype than it is in the checkpoint (Orbax would cast silently),
        and where the checkpoint cannot be read.
        """
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        try:
            self._check_leaves(step, abstract)
            restored = self._manager.restore(step, args=args)
            return restored["state"], restored["meta"]
        except UserError:
            raise
        except Exception as error:  # what a damaged file makes Orbax and its storage library raise is of any kind
            raise self._damaged(step, error) from error

    def _damaged(self, step: int, error: Exception) -> UserError:
        earlier = [saved for saved in self.steps() if saved < step]
        way_out = f"go on from step {earlier[-1]}" if earlier else "begin again"
        return UserError(
            f"checkpoint {self.directory / str(step)} is damaged ({type(error).__name__}: {str(error)[:200]}): "
            f"restore it from a copy, or move it away to {way_out}"
        )

    def groups(self, step: int) -> list[str]:
        """Returns the keys at the top of a step's tree. Raises UserError where the checkpoint cannot be read."""
        return list(self._saved_tree(step))

    def restore_groups(self, step: int, names: Iterable[str]) -> dict[str, Any]:
        """Returns these groups of a step's tree as they were saved, on the first device; reads nothing of the others.

        names: of `groups`. Raises UserError where the checkpoint cannot be read.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = self._saved_tree(step)
        wanted = {name: saved[name] for name in names}
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), wanted)
        each = ocp.checkpoint_utils.construct_restore_args(abstract)
        args = ocp.args.PyTreeRestore(abstract, restore_args=each, partial_restore=True)
        # The manager's handler restores whole trees only.
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                return dict(reader.restore(self.directory.absolute() / str(step) / "state", args=args))
        except Exception as error:  # see `restore`
            raise self._damaged(step, error) from error

    def _saved_tree(self, step: int) -> dict[str, Any]:
        try:
            saved: dict[str, Any] | None = self._manager.item_metadata(step)["state"].tree
            if not saved:
                raise ValueError("its list of arrays is missing")
            return saved
        except Exception as error:  # see `restore`
            raise self._damaged(step, error) from error

    def _check_leaves(self, step: int, abstract: Any) -> None:
        saved = self._manager.item_metadata(step)["state"]
        if not jax.tree.leaves(saved):
            raise ValueError("its list of arrays is missing")
        kinds = [
            {jax.tree_util.keystr(path): (leaf.shape, str(leaf.dtype)) for path, leaf in leaves}
            for leaves in (jax.tree_util.tree_leaves_with_path(tree) for tree in (saved, abstract))
        ]
        for name in sorted(kinds[0].keys() | kinds[1].keys()):
            there, wanted = (kind.get(name, "nothing") for kind in kinds)
            if there != wanted:
                raise UserError(
                    f"checkpoint {step} in {self.directory} has {there} for {name}, the config asks for "
                    f"{wanted}: use the config it was made with, or another --workdir"
                )

    def close(self) -> None:
        """Waits for the write under way and closes the folder."""
        self.confirm()
        self._manager.close()
