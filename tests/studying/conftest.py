"""Studies of the digits, written to a file, and queues of them in a folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from convmixer_jax.studying import trial
from convmixer_jax.studying.models import Models
from convmixer_jax.studying.plan import Plan, make_plan
from convmixer_jax.studying.queue import Queue
from convmixer_jax.studying.storage import default_url
from tests.commands import ROOT
from tests.studying.stand_in_sweep import STAND_IN

HEAD = """
from convmixer_jax.studying.study import Range, Scale, Study

def get_study():
    return Study(**{**dict(
        name="tiny", title="Kernels", source="nobody", recipe="configs/digits.py", seeds=(0, 1),
    ), **dict(%s)})
"""
GRID = "axes={'model.kernel_size': (3, 5)}"
SPACE = "{'model.dim': Range(8, 64, step=8), 'schedule.learning_rate': Range(1e-3, 0.1, log=True)}"


def search(**changed: str) -> str:
    """Returns the arguments of a search, as text. changed: those that are to be others, as text, too."""
    settings = "{'val_fraction': 0.1, 'epochs': 5}"
    usual = {"axes": SPACE, "sampler": "'tpe'", "trials": "3", "settings": settings, "seeds": "(0,)"}
    return ", ".join(f"{name}={value}" for name, value in (usual | changed).items())


@pytest.fixture(autouse=True)
def careless_database() -> Iterator[None]:
    """SQLite does not wait for the disk, which takes longer than all else here."""

    def be_careless(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", be_careless)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", be_careless)


@pytest.fixture
def study_file(tmp_path, elsewhere) -> Callable[[str], Path]:
    """Writes a study of these arguments beside the recipes that the repository has; returns its file."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")

    def write(arguments: str, name: str = "tiny.py") -> Path:
        file = tmp_path / "studies" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(HEAD % arguments)
        return file

    return write


@pytest.fixture
def open_queue(tmp_path, study_file) -> Callable[..., tuple[Plan, Queue]]:
    """Returns a function of a study's arguments to its plan and a queue, a further one at each call."""

    def open_one(arguments: str, url: str = "", **asked) -> tuple[Plan, Queue]:
        plan = make_plan(study_file(arguments), **asked)
        folder = tmp_path / "study"
        folder.mkdir(exist_ok=True)
        return plan, Queue(plan, Models(plan), folder, url or default_url(folder))

    return open_one


@pytest.fixture
def stand_in(monkeypatch) -> None:
    """Runs are the stand-in's."""
    monkeypatch.setattr(trial, "MAIN", STAND_IN)
