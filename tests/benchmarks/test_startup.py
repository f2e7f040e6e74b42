"""Start-up is timed from outside, and its parts are those that a run tells."""

import subprocess
import sys

import pytest

import convmixer_jax
from convmixer_jax.benchmarks import startup
from convmixer_jax.benchmarks.startup import environment, measure_startup, start_once, startup_table
from convmixer_jax.errors import UserError
from tests.benchmarks.sides import squeezed

SAYS = "import sys, time; print({line!r}, file=sys.stderr, flush=True); time.sleep({after})"


def says(line: str, after: int = 0) -> list[str]:
    return [sys.executable, "-c", SAYS.format(line=line, after=after)]


def test_a_start_ends_when_it_tells_its_parts(tmp_path):
    line = "start-up: imports 2.1 s, first update 0.4 s = 2.5 s"
    seconds = start_once(says(line, after=600), environment(tmp_path))
    assert 0 < seconds.pop("all") < 60
    assert seconds == {"imports": 2.1, "first update": 0.4}


def test_a_start_that_fails_is_told(tmp_path):
    with pytest.raises(UserError, match="ended before its first update: error: no data$"):
        start_once(says("error: no data"), environment(tmp_path))
    with pytest.raises(UserError, match="it said nothing"):
        start_once(says(""), environment(tmp_path))


def test_a_start_finds_this_package_and_keeps_its_programs_below_its_home(tmp_path):
    """That the line is what a real run tells is tested where one is at hand, in test_main.py."""
    seen = "import os, sys, convmixer_jax; print(os.path.expanduser('~'), convmixer_jax.__file__)"
    command = [sys.executable, "-P", "-c", seen]
    told = subprocess.run(command, env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(tmp_path), convmixer_jax.__file__]


def test_cold_and_warm_starts_take_turns(monkeypatch, tmp_path):
    seen: list[tuple[str, str]] = []

    def start(command, variables):
        workdir = command[command.index("--workdir") + 1]
        seen.append((variables["HOME"], workdir.removeprefix(variables["HOME"])))
        return {"all": float(len(seen)), "imports": 0.5}

    monkeypatch.setattr(startup, "start_once", start)
    measured = measure_startup(["--config", "x.py"], tmp_path, repetitions=3)
    assert [workdir for _, workdir in seen] == ["/cold", "/warm"] * 4
    homes = [home for home, _ in seen]
    assert homes[0::2] == homes[1::2]  # the warm start has the cache of the cold one
    assert len(set(homes)) == 4
    # The first pair does not count: 3, 5, 7 and 4, 6, 8.
    assert measured["cold"]["all"] == {"median": 5, "quartiles": [4, 6]}
    assert measured["warm"]["all"] == {"median": 6, "quartiles": [5, 7]}
    assert squeezed(startup_table(measured)[1]) == "all 5.0 4.0 - 6.0 6.0 5.0 - 7.0"
