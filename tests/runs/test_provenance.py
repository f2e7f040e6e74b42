"""What is recorded of where a result comes from is what other tools say too."""

import datetime
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import jax
import pytest

import convmixer_jax
from convmixer_jax.measuring.machine import describe_processor
from convmixer_jax.runs import provenance
from convmixer_jax.runs.provenance import describe, git_revision


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@example.com", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The package as a file in a folder of its own, which is no git checkout yet."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    package = tmp_path / "convmixer_jax"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(convmixer_jax, "__file__", str(package / "__init__.py"))
    return tmp_path


def test_the_revision_is_the_commit_and_whether_files_differ(checkout):
    git(checkout, "init")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--message=one")
    git(checkout, "tag", "--annotate", "v1", "--message=a tag that must not take the place of the commit")
    commit = git(checkout, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert git_revision() == commit
    (checkout / "convmixer_jax/__init__.py").write_text("changed = True\n")
    assert git_revision() == f"{commit}-dirty"


def test_no_revision_outside_of_git(checkout):
    assert git_revision() is None


def test_no_revision_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision() is None


def test_no_revision_from_a_git_that_hangs(monkeypatch):
    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(provenance.subprocess, "run", hang)
    assert git_revision() is None


def test_the_description_is_plain_and_true():
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    description = describe()
    assert json.loads(json.dumps(description)) == description
    assert before <= datetime.datetime.fromisoformat(description["time"]) <= datetime.datetime.now(datetime.UTC)
    assert description["devices"] == [device.device_kind for device in jax.devices()]
    assert len(description["devices"]) == 8
    assert {name: description[name] for name in ("processor", "cores")} == describe_processor()
    assert description["processes"] == 1
    assert description["platform"] == platform.platform()
    assert description["git_revision"] == git_revision()
    versions = description["versions"]
    assert versions.pop("python") == platform.python_version()
    assert versions.pop("convmixer_jax") == convmixer_jax.__version__
    assert versions == {name: importlib.metadata.version(name) for name in versions}
    assert {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections"} <= set(versions)
