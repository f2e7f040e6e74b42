"""What the tests of data share: shards of records, and no trace outside of the folder of a test."""

from pathlib import Path

import pytest

from convmixer_jax.data.sources import made_once
from convmixer_jax.data.sources.records import KINDS
from tests.data.records import write_numbered


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """The place where an index is kept that cannot lie beside its shards."""
    monkeypatch.setattr(made_once, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(params=list(KINDS))
def kind(request) -> str:
    return request.param


@pytest.fixture
def shards(tmp_path, kind) -> list[Path]:
    return write_numbered(tmp_path / "data", kind)
