"""Where files lie: paths of this machine are taken as they are given, a bucket is refused before anything is made."""

from pathlib import Path

import pytest

from convmixer_jax import checkpoints, ledger, main, prepare
from convmixer_jax.command_line import home_expanded, parse
from convmixer_jax.errors import UserError
from tests.commands import DIGITS

COMMANDS = {
    "workdir": (main.main, ["main", *DIGITS, "--workdir=gs://bucket/run"], "--workdir gs://bucket/run"),
    "workdir, evaluated": (main.main, ["main", *DIGITS, "--mode=eval", "--workdir=s3://b/r"], "--workdir s3://b/r"),
    "data": (main.main, ["main", *DIGITS, "--data_dir=az://container/data"], "--data_dir az://container/data"),
    "prepare": (prepare.main, ["cifar10", "--data_dir=gs://bucket"], "--data_dir gs://bucket"),
    "checkpoints": (checkpoints.main, ["gs://bucket/run"], "WORKDIR gs://bucket/run"),
    "ledger": (ledger.main, ["gs://bucket/run"], "WORKDIR gs://bucket/run"),
}


@pytest.mark.parametrize("command, arguments, told", COMMANDS.values(), ids=COMMANDS)
def test_a_bucket_is_refused_with_the_way_out(tmp_path, monkeypatch, capsys, command, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert command(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: {told}: a path is needed, not a URL; mount a bucket (gcsfuse BUCKET FOLDER for gs:"
    )
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_in_the_variable_is_refused(monkeypatch):
    monkeypatch.setenv("CONVMIXER_DATA_DIR", "gs://bucket/data")
    with pytest.raises(UserError, match="gs://bucket/data"):
        parse(["main", *DIGITS])


@pytest.mark.parametrize("url", ["gs://b/r", "GS://b", "s3a://b", "hdfs://host:9000/r", "file:///r", Path("gs://b/r")])
def test_what_is_a_url(url):
    with pytest.raises(UserError, match="not a URL"):
        home_expanded(url, "--workdir")


@pytest.mark.parametrize("path", ["runs/a", "/runs/a:b/c", "C:/runs", "./gs:/b", "a:b/c", "é ü"])
def test_what_is_a_path(path):
    assert home_expanded(path, "--workdir") == Path(path)
