"""Reading checkpoints: what comes back is what was saved, to the bit, or nothing.

    reader = CheckpointReader(workdir / "checkpoints")
    step, (tree, meta), told = reader.read_newest(lambda step: reader.restore(step, abstract_tree))

Changes nothing. With runs/checkpoint.py the only file that knows Orbax.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from convmixer_jax.errors import UserError
from convmixer_jax.runs import steps
from convmixer_jax.runs.manifest import wrong_file, wrong_leaf
from convmixer_jax.runs.memory import is_out_of_memory
from convmixer_jax.runs.steps import DamagedError, Step

Read = TypeVar("Read")
MOST_GONE = 10  # checkpoints that may be removed under a reader's hands before it gives up


def make_handler() -> ocp.CompositeCheckpointHandler:
    """Returns Orbax's description of what a step holds."""
    metrics = ocp.JsonCheckpointHandler(filename="metrics")
    return ocp.CompositeCheckpointHandler(
        state=ocp.StandardCheckpointHandler(), meta=ocp.JsonCheckpointHandler(), metrics=metrics
    )


def on_host(leaf: Any) -> np.ndarray:
    """Returns all of a leaf. Where it is divided among processes all of them must call this."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def not_verified(step: int) -> str:
    """Returns a line on a step that nothing can be said about."""
    return f"checkpoint {step} is not verified: written before manifests"


class CheckpointReader:
    """The checkpoints of a folder, which need not exist."""

    def __init__(self, directory: Path):
        self.directory = directory.absolute()

    def steps(self) -> list[int]:
        """Returns the durable steps, ascending."""
        return [step.number for step in steps.durable(steps.read_steps(self.directory))]

    def read_newest(self, read: Callable[[int], Read], step: int | None = None) -> tuple[int, Read, list[str]] | None:
        """Returns (step, what `read` makes of it, lines for people) of the newest good step; None where there is none.

        step: only this one. A step that a run removes meanwhile is none. Raises DamagedError where the one, or every
        one, is damaged; UserError where the run is quicker to remove them than they can be read.
        """
        told: list[str] = []
        first: DamagedError | None = None
        seen: set[int] = set()
        gone = 0
        while known := self._newest(seen, step):
            seen.add(known.number)
            try:
                found = read(known.number)
            except DamagedError as damage:
                if not known.folder.exists():
                    gone += 1
                    if gone == MOST_GONE:
                        raise UserError(
                            f"a run removed {gone} checkpoints in {self.directory} while they were read: raise its "
                            "config.keep_checkpoints, or wait until it ends"
                        ) from damage
                    first, told, seen = None, [], set()  # the save that was under way is its successor now
                    continue
                first = first or damage
                told.append(f"warning: checkpoint {known.number} is not used ({damage.reason})")
                continue
            if known.record is None:
                told.append(not_verified(known.number))
            return known.number, found, told
        if first:
            raise first
        return None

    def _newest(self, seen: set[int], step: int | None) -> Step | None:
        """Returns the newest step that there is now and that is not among the seen ones; `step` alone where given."""
        there = [known for known in steps.read_steps(self.directory) if step in (None, known.number)]
        return max((known for known in there if known.number not in seen), key=lambda known: known.number, default=None)

    def restore(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
        """Returns (tree, meta) of a step, laid out by the shardings of `abstract`, on any number of devices.

        abstract: the tree with jax.ShapeDtypeStruct leaves that have a sharding. Raises DamagedError, in all processes,
        where files or arrays are not what was saved; UserError where a leaf is missing, additional, or of another shape
        or dtype than it is in the checkpoint (Orbax would cast silently).
        """
        known = self._verified(step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        with self._reading(known), ocp.Checkpointer(make_handler()) as reader:
            self._check_fit(step, reader.metadata(known.folder).item_metadata["state"], abstract)
            restored = reader.restore(known.folder, args=args)
        self._check_leaves(known, restored["state"])
        if not isinstance(restored["meta"], dict):  # of before manifests: nothing else would tell
            raise self._damaged(known, "what it tells beside its arrays is no object")
        return restored["state"], restored["meta"]

    def verify(self, step: int) -> None:
        """Reads all of a step. Raises DamagedError where anything is not what was saved, or cannot be read."""
        self.restore_groups(step, self.groups(step))
        known, args = self._step(step), ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._reading(known), ocp.Checkpointer(make_handler()) as reader:
            meta = reader.restore(known.folder, args=args)["meta"]
        if not isinstance(meta, dict):
            raise self._damaged(known, "what it tells beside its arrays is no object")

    def groups(self, step: int) -> list[str]:
        """Returns the keys at the top of a step's tree. Raises DamagedError where its files are not what was saved."""
        return list(self._saved_tree(self._verified(step)))

    def restore_groups(self, step: int, names: Iterable[str]) -> dict[str, Any]:
        """Returns these groups of a step's tree as they were saved, on the first device; reads nothing of the others.

        names: of `groups`, which has compared the files. Raises DamagedError where arrays are not what was saved.
        """
        known, here = self._step(step), jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        saved = self._saved_tree(known)
        wanted = {name: saved[name] for name in names}
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), wanted)
        each = ocp.checkpoint_utils.construct_restore_args(abstract)
        args = ocp.args.PyTreeRestore(abstract, restore_args=each, partial_restore=True)
        # The handler of a step restores whole trees only.
        with self._reading(known), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            groups = dict(reader.restore(known.folder / "state", args=args))
        self._check_leaves(known, groups)
        return groups

    def unverified(self, step: int) -> bool:
        """Whether a step is of before there were manifests."""
        return self._step(step).record is None

    def _step(self, step: int) -> Step:
        return steps.read_step(self.directory / str(step))

    def _verified(self, step: int) -> Step:
        """Returns a step all of whose files are as they were written. Raises DamagedError in all processes."""
        known = self._step(step)
        trouble = known.trouble
        if known.record is not None:
            trouble = wrong_file(known.folder, known.record, jax.process_index(), jax.process_count())
        trouble = self._agree(trouble)
        if trouble:
            raise self._damaged(known, trouble)
        return known

    def _check_leaves(self, known: Step, tree: Mapping[str, Any]) -> None:
        trouble = None if known.record is None else wrong_leaf(tree, known.record["leaves"], on_host)
        trouble = self._agree(trouble)
        if trouble:
            raise self._damaged(known, trouble)

    def _agree(self, trouble: str | None) -> str | None:
        """Returns the trouble of this process, or that another has one."""
        if jax.process_count() == 1:
            return trouble
        anywhere = multihost_utils.process_allgather(np.asarray(trouble is not None)).any()
        return trouble or ("another process found it so" if anywhere else None)

    def _damaged(self, known: Step, reason: str) -> DamagedError:
        earlier = [number for number in self.steps() if number < known.number]
        way_out = f"move it away to go on from step {earlier[-1]}" if earlier else "begin again"
        return DamagedError(known.folder, reason, way_out)

    @contextlib.contextmanager
    def _reading(self, known: Step) -> Any:
        """Takes what Orbax raises for damage where no manifest could tell that before."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # what a damaged file makes Orbax and its storage library raise is of any kind
            trouble: str | None = f"{type(error).__name__}: {str(error)[:200]}"
            if known.record is not None:
                trouble = wrong_file(known.folder, known.record)
            if trouble is None or is_out_of_memory(error):
                raise
            raise self._damaged(known, trouble) from error

    def _saved_tree(self, known: Step) -> dict[str, Any]:
        with self._reading(known), ocp.Checkpointer(make_handler()) as reader:
            saved: dict[str, Any] | None = reader.metadata(known.folder).item_metadata["state"].tree
            if not saved:
                raise ValueError("its list of arrays is missing")
            return saved

    def _check_fit(self, step: int, saved: Any, abstract: Any) -> None:
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
