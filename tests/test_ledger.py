"""The command that shows a run's ledger."""

import json

import pytest

from convmixer_jax import ledger
from convmixer_jax.errors import ExitCode
from tests.runs.test_ledger import KILLED, RESUMED, written

TABLE = """\
               process 0      process 1
step        86.0 s 33.0%  50.0 s  82.0%
input        2.0 s  0.8%   0.0 s   0.0%
save         2.0 s  0.8%   0.0 s   0.0%
compile     12.0 s  4.6%   0.0 s   0.0%
start-up    18.0 s  6.9%  10.0 s  16.4%
lost work   48.0 s 18.4%   0.0 s   0.0%
downtime    90.0 s 34.5%   0.0 s   0.0%
other        3.0 s  1.1%   1.0 s   1.6%
"""


@pytest.fixture
def workdir(tmp_path):
    written(tmp_path, KILLED + RESUMED)
    written(tmp_path, RESUMED, process=1)
    return tmp_path


def test_the_table_and_the_object(workdir, capsys):
    assert ledger.main([str(workdir), "--json"]) == ExitCode.DONE
    *lines, last = capsys.readouterr().out.splitlines()
    told = [line.split() for line in lines]
    assert told[: len(TABLE.splitlines())] == [line.split() for line in TABLE.splitlines()]
    assert told[-5:] == [
        ["all", "261.0", "s", "100.0%", "61.0", "s", "100.0%"],
        ["starts", "2", "1"],
        ["updates", "100", "100"],
        ["updates", "lost", "30", "0"],
        ["goodput", "33.0%", "82.0%"],
    ]
    first = json.loads(last)["processes"]["0"]
    assert (first["goodput"], first["seconds"]["downtime"]) == (pytest.approx(86 / 261), 90)


def test_the_picture(workdir, capsys):
    assert ledger.main([str(workdir), "--plot", str(workdir / "where.png")]) == ExitCode.DONE
    assert (workdir / "where.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flags, told", [
    ([], "has no ledger: name a run's folder"),
    (["--plot", "where.xyz"], "--plot where.xyz cannot be written"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(workdir, flags, told, capsys):
    place = workdir if flags else workdir / "other"
    assert ledger.main([str(place), *flags]) == ExitCode.USER_MISTAKE
    assert told in capsys.readouterr().err
