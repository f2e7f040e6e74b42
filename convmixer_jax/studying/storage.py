"""Where Optuna keeps a study, and how a worker that is gone is noticed.

    with told_errors(url):
        place = open_place(url, folder)
        study = place.open_study("kernel_size", sampler, pruner)
        place.alive(number)                 # every few seconds, for each trial of this worker
        place.revive(study)                 # trials of workers that are gone wait again

A database keeps heartbeats, by its own clock. A journal file has none: there a worker holds a lock for each trial,
which the kernel takes back when the process ends.
"""

import contextlib
import fcntl
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import optuna
import sqlalchemy.exc
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from convmixer_jax.errors import RunAgainError, UserError
from convmixer_jax.runs.lock import NO_LOCKS

JOURNAL = "journal:"
IN_MEMORY = ("sqlite://", "sqlite:///:memory:")
POINT = "point"  # the attribute, set last, that makes a trial a run
BEAT_SECONDS = 5  # between two signs of life
GRACE_SECONDS = 30  # without one, after which a worker counts as gone
PATIENCE_SECONDS = 60  # of SQLite, while another process writes
BROKEN = (optuna.exceptions.OptunaError, sqlalchemy.exc.SQLAlchemyError, OSError)
Study = optuna.study.Study


def put_back(study: Study, trial: FrozenTrial) -> None:
    """Has another worker make a trial that failed for no fault of its own: a new one like it waits."""
    if POINT not in trial.user_attrs:  # its worker went before it was a run
        return
    params = trial.system_attrs.get("fixed_params", trial.params)
    study.enqueue_trial(params, user_attrs=trial.user_attrs)


class Place:
    """A kind of storage, which Optuna calls by `storage`."""

    def __init__(self, storage: Any):
        self._storage = storage

    def open_study(self, name: str, sampler: Any, pruner: Any) -> Study:
        """Returns the study of this name, new or as it is."""
        self._name = name
        return optuna.create_study(
            storage=self._storage,
            study_name=name,
            sampler=sampler,
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )

    def take(self, study: Study, number: int) -> Trial:
        """Returns a trial that waits, which this worker makes now; to be called by one process at a time."""
        # First: a trial that runs and never gave a sign of life would not be given up.
        self.alive(number)
        self._storage.set_trial_state_values(self._trial_id(number), TrialState.RUNNING)
        return Trial(study, self._trial_id(number))

    def _trial_id(self, number: int) -> int:
        study_id = self._storage.get_study_id_from_name(self._name)
        found: int = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return found

    def alive(self, number: int) -> None:
        """Notes that the worker of a trial is there: every BEAT_SECONDS."""
        raise NotImplementedError

    def done(self, number: int) -> None:
        """Notes that this worker has done with a trial."""
        raise NotImplementedError

    def revive(self, study: Study) -> None:
        """Has the trials of workers that are gone wait again; to be called by one process at a time."""
        raise NotImplementedError


class Database(Place):
    """SQLite, PostgreSQL or another one that SQLAlchemy knows."""

    def __init__(self, url: str):
        more: dict[str, Any] = {"pool_pre_ping": True}  # a server may have been restarted between two looks
        if url.startswith("sqlite"):
            more = {"connect_args": {"timeout": PATIENCE_SECONDS}}
        super().__init__(
            RDBStorage(
                url,
                more,
                heartbeat_interval=BEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=put_back,
            )
        )

    def alive(self, number: int) -> None:
        """Records a heartbeat."""
        self._storage.record_heartbeat(self._trial_id(number))

    def done(self, number: int) -> None:
        """Does nothing: a finished trial has no heart to beat."""

    def revive(self, study: Study) -> None:
        """Gives up the trials without a heartbeat for GRACE_SECONDS."""
        fail_stale_trials(study)


class Journal(Place):
    """A file that every worker appends to. folder: of the study, where the locks are."""

    def __init__(self, path: Path, folder: Path):
        super().__init__(JournalStorage(JournalFileBackend(str(path))))
        self._locks, self._held = folder / ".claims", dict[int, IO[bytes]]()
        self._locks.mkdir(exist_ok=True)

    def _lock(self, number: int) -> IO[bytes]:
        return (self._locks / f"{number}.lock").open("ab")

    def alive(self, number: int) -> None:
        """Takes the trial's lock, the first time."""
        if number not in self._held:
            self._held[number] = self._lock(number)
            fcntl.flock(self._held[number], fcntl.LOCK_EX)

    def done(self, number: int) -> None:
        """Lets the lock go."""
        self._held.pop(number).close()

    def revive(self, study: Study) -> None:
        """Gives up the trials whose lock nobody holds."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            with self._lock(trial.number) as lock, contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                study.tell(trial.number, state=TrialState.FAIL)
                put_back(study, trial)


def default_url(folder: Path) -> str:
    """Returns where a study is kept by default: in its folder."""
    return f"sqlite:///{folder.absolute() / 'study.db'}"


def open_place(url: str, folder: Path) -> Place:
    """Returns the storage at a URL of SQLAlchemy's, or in the file of journal:PATH. To be used in `told_errors`."""
    optuna.logging.set_verbosity(logging.CRITICAL)  # what matters of it is told here
    # Of heartbeats without Study.optimize, and of what it calls experimental: this module is the answer to both.
    warnings.filterwarnings("ignore", module="optuna")
    warnings.filterwarnings("ignore", message="Heartbeat of storage")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if url.startswith(JOURNAL):
        return Journal(Path(url.removeprefix(JOURNAL)).expanduser(), folder)
    if url in IN_MEMORY:
        raise ValueError("it is in memory, so nothing of it would be kept")
    return Database(url)


def shown(url: str) -> str:
    """Returns a URL without its password."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


def _reason(error: BaseException, url: str) -> str:
    """Returns the first line of what another error comes from, without the password."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0].replace(url, shown(url))


@contextlib.contextmanager
def told_errors(url: str) -> Iterator[None]:
    """Turns what opening a storage raises into UserError."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"--storage {shown(url)}: the package that speaks to this database is missing ({error}): for PostgreSQL "
            'pip install "psycopg[binary]"'
        ) from error
    except (*BROKEN, ValueError, KeyError) as error:
        raise UserError(
            f"--storage {shown(url)}: {_reason(error, url)} (sqlite:///FILE, journal:FILE and "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE are places that work)"
        ) from error


@contextlib.contextmanager
def lost(url: str) -> Iterator[None]:
    """Turns what a storage raises that worked until now into RunAgainError."""
    try:
        yield
    except BROKEN as error:
        raise RunAgainError(
            f"--storage {shown(url)}: {_reason(error, url)}; runs are told to save and stop: run again to go on"
        ) from error


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """Waits until no other process holds this lock, and holds it while the context is open."""
    with file.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:  # of those, a run's own lock warns
                raise
        yield


def is_held(file: Path) -> bool:
    """Whether another process holds a lock on the file, which need not exist."""
    try:
        with file.open("ab" if file.exists() else "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
