"""Checkpoints: saving them; reading.py, the only other file that knows Orbax, reads them.

    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    checkpoints.save(step, tree, meta)      # starts an asynchronous write
    checkpoints.confirm()                   # a step counts as saved only after this
    tree, meta = checkpoints.restore(step, abstract_tree)

A checkpoint is a nested dict of arrays with string keys, and a small JSON object beside it. It is written into a
temporary folder that is renamed when everything is in it, and gets its manifest after that: what has one was written
whole, and every read of it is compared with it.
"""

import functools
import itertools
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from convmixer_jax.errors import UserError
from convmixer_jax.runs import exchange, steps
from convmixer_jax.runs.confirmation import FAILED, Confirmation, Write
from convmixer_jax.runs.manifest import Part, host_parts, read_manifest, write_manifest
from convmixer_jax.runs.memory import gigabytes
from convmixer_jax.runs.reading import CheckpointReader, make_handler
from convmixer_jax.runs.steps import BEST_METRIC, DAMAGED, DamagedError

# What a save may need beyond its arrays: metadata, and the file system's own.
SPACE_MARGIN = 1.1
SPACE_EXTRA = 16 * 2**20

MOST_ERRORS = 1000  # of one write

_saves = itertools.count()  # the same in all processes


def _fail(error: Exception) -> None:
    raise error


class Checkpoints(CheckpointReader):
    """The newest `keep` checkpoints of a folder, and the best one where a validation score came with them.

    saved: the newest durable step, or None. failures: by step, why it could not be saved. told: what opening the folder
    changed, in lines for people.
    """

    def __init__(self, directory: Path, keep: int = 1, read_only: bool = False):
        """Opens the folder.

        Unless `read_only`, leftovers of interrupted writes are removed and steps that are not durable set aside: only
        who holds the workdir's lock may do that.
        """
        # Orbax tells each of its steps there, and the failures that `failures` holds.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        super().__init__(directory)
        self.keep = keep
        self.failures: dict[int, str] = {}
        self.told: list[str] = []
        self._writing: int | None = None
        self._confirmation: Confirmation | None = None
        self._topic = ""
        self._lead = jax.process_index() == 0
        self._writer = None if read_only else self._open_writer()
        if self._writer and self._lead:
            self._make_folder()
            steps.clean(self.directory)
            for step in steps.read_steps(self.directory):
                if step.kind and step.trouble:
                    self._set_aside(step.number, step.kind, step.trouble)
        if not read_only:
            self._meet("checkpoints opened")
        self.saved = max(self.steps(), default=None)

    def _open_writer(self) -> ocp.AsyncCheckpointer:
        """Returns Orbax's writer, which waits for other processes unless one has failed: its own way takes minutes."""

        def meet(*, key: str, timeout_ms: int) -> None:
            exchange.meet(f"{self._topic}/{key}", unless=f"{self._topic}/{FAILED}", seconds=timeout_ms / 1000)

        return ocp.AsyncCheckpointer(make_handler(), async_options=ocp.AsyncOptions(barrier_sync_fn=meet))

    def _make_folder(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.directory} cannot be made ({error.strerror}), but a run's checkpoints go there: free its "
                "place, or use another --workdir"
            ) from error

    def save(self, step: int, tree: Any, meta: dict[str, Any], val_top1: float | None = None) -> None:
        """Starts to write `tree` (nested dict of arrays) and `meta` (JSON values) as step `step`.

        First waits for the write before, so writes never queue. A failure is noted in `failures`, never raised: a
        run that cannot save goes on and says so.
        """
        self.confirm()
        earlier, self._topic = self._topic, f"checkpoint save {next(_saves)}"
        parts, problem = self._prepare(step, tree)
        problem = self._agree_to_save(problem)
        if problem:
            self.failures[step] = problem
            return
        if earlier and self._lead and jax.process_count() > 1:
            exchange.forget(earlier)  # all know how that save ended, or none would have agreed to this one
        assert self._writer is not None, "opened to read"
        self._writing = step
        about = {"step": step, "config_digest": meta.get("config_digest"), BEST_METRIC: val_top1}
        write = Write(self.directory / str(step), about, parts, self.keep, self._topic)
        items: dict[str, Any] = {"state": ocp.args.StandardSave(tree), "meta": ocp.args.JsonSave(meta)}
        if val_top1 is not None:
            items["metrics"] = ocp.args.JsonSave({BEST_METRIC: val_top1})
        try:
            self._writer.save(write.folder, args=ocp.args.Composite(**items), custom_metadata=dict(steps.PROMISE))
        except Exception as error:  # Orbax raises bare Exceptions; all mean that this step is not saved
            self._confirmation = Confirmation(write, functools.partial(_fail, error))
            if jax.process_count() == 1:  # others may take long to find out
                self.confirm()
        else:
            self._confirmation = Confirmation(write, self._writer.wait_until_finished)

    def _prepare(self, step: int, tree: Any) -> tuple[dict[str, list[Part]], str | None]:
        """Returns this process's parts, and why a save need not be tried: what fails here fails before any waits."""
        try:
            refusal = self._refusal(step, tree) if self._lead else None
            return {} if refusal else host_parts(tree, self._lead), refusal
        except OSError as error:
            return {}, f"{error.filename or self.directory} cannot be written ({error.strerror})"
        except Exception as error:  # a device's memory or the host's may be full, say
            return {}, f"{type(error).__name__}: {error}"

    def _agree_to_save(self, problem: str | None) -> str | None:
        """Returns this process's problem, or that of the first that has one."""
        refused = f"{self._topic}/refused"
        if problem and jax.process_count() > 1:
            exchange.tell(refused, problem)
        if not self._agree(problem):
            return None
        return problem or next(f"process {number}: {words}" for number, words in exchange.heard(refused).items())

    def _refusal(self, step: int, tree: Any) -> str | None:
        """Returns why a save need not be tried. Raises OSError, UserError where the folder is not as it was."""
        if os.path.lexists(self.directory / str(step)):
            return f"{self.directory / str(step)} is there already: move it away"
        self._make_folder()  # somebody may have removed it
        tempfile.TemporaryFile(dir=self.directory).close()
        known = [each for each in steps.read_steps(self.directory) if each.record]
        size = known[-1].bytes if known else sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        needed, free = int(size * SPACE_MARGIN) + SPACE_EXTRA, shutil.disk_usage(self.directory).free
        if free >= needed:
            return None
        return f"too little space in {self.directory}: {gigabytes(needed)} are needed, {gigabytes(free)} free"

    def confirm(self) -> None:
        """Waits for the write under way, if any; afterwards it is `saved` or in `failures`."""
        if self._writing is None:
            return
        assert self._confirmation is not None
        problem = self._confirmation.result()
        if problem:
            self._note_failure(problem)
            return
        self.saved, self._writing, self._confirmation = self._writing, None, None
        self.failures.pop(self.saved, None)

    @property
    def writing(self) -> int | None:
        """The step whose write is under way, or None."""
        return self._writing

    def add_score(self, step: int, val_top1: float) -> None:
        """Gives a durable step the validation score that it was saved without; notes in `failures` where it cannot."""
        if not self._lead:
            return
        folder = self.directory / str(step)
        try:
            record = read_manifest(folder)
            if record is not None:
                write_manifest(folder, record | {BEST_METRIC: val_top1})
        except (OSError, ValueError) as error:
            self.failures[step] = f"its score cannot be written to it ({error})"

    def confirm_if_finished(self) -> None:
        """Confirms the write under way where that takes no waiting."""
        if self._confirmation is not None and self._confirmation.finished:
            self.confirm()

    def _forget_errors(self) -> None:
        """Takes all errors out of Orbax: it keeps each of a failed write, and gives one to each wait that follows."""
        for _ in range(MOST_ERRORS):
            if self._writer is None:
                return
            try:
                self._writer.wait_until_finished()
            except Exception:
                continue  # known: the write before has failed, or it would be durable
            return

    def _note_failure(self, problem: str) -> None:
        assert self._writing is not None
        self._forget_errors()
        self.failures[self._writing] = problem
        if self._lead:  # what is there of it takes the space that the next save needs
            steps.clean(self.directory, self._writing)
            shutil.rmtree(self.directory / str(self._writing), ignore_errors=True)
        self._writing = self._confirmation = None

    def set_aside(self, damage: DamagedError, step: int) -> None:
        """Moves a damaged step to quarantine; `saved` is then the newest of the others. Adds to `told`."""
        if self._lead:
            self._set_aside(step, DAMAGED, damage.reason)
        self._meet(f"checkpoint {step} set aside")
        self.saved = max(self.steps(), default=None)

    def _set_aside(self, step: int, kind: str, reason: str) -> None:
        where = steps.quarantine(self.directory, step, kind, reason)
        self.told.append(f"warning: checkpoint {step} is not used ({reason}); it is kept in {where}")

    def _meet(self, what: str) -> None:
        """Waits for all processes: the first one has changed the folder."""
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(what)

    def lost(self) -> list[Path]:
        """Returns the damaged steps that are in quarantine."""
        return [path for path, _ in steps.quarantined(self.directory) if f"-{DAMAGED}" in path.name]

    def close(self) -> None:
        """Waits for the write under way and closes the folder."""
        self.confirm()
        self._forget_errors()
        if self._writer:
            self._writer.close()
