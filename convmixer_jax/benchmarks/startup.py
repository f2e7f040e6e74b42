"""Seconds from the command to the first update, with an empty compilation cache and with a filled one.

measured = measure_startup(["--config", "configs/digits.py"], data_dir, repetitions=7)
print("\n".join(startup_table(measured)))

Each start is what a user does: `python -m convmixer_jax.main` in a fresh process, on the real data. It is ended when it
says that the first update was made.
"""

import contextlib
import os
import re
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import convmixer_jax
from convmixer_jax.errors import UserError
from convmixer_jax.runs import provenance

# The line in which a run tells its start-up, and a part of it: "start-up: imports 2.1 s, data 0.4 s ... = 9.0 s".
LINE = re.compile(r"start-up: (.+) = [\d.]+ s")
PART = re.compile(r"([^,]+?) ([\d.]+) s(?:, |$)")


def environment(home: Path) -> dict[str, str]:
    """Returns variables with which a run keeps its cache of compiled programs below `home`, and finds this package."""
    package = str(Path(convmixer_jax.__file__).parents[1])
    found = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    # Packages installed for one user are looked for below the home, too.
    return dict(os.environ) | {"HOME": str(home), "PYTHONPATH": found, "PYTHONUSERBASE": site.getuserbase()}


def start_once(command: Sequence[str], variables: dict[str, str]) -> dict[str, float]:
    """Runs a command until it tells its start-up; returns {"all": seconds since the command, part: seconds, ...}.

    Raises UserError with the last line of a run that ends before.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    line = ""
    with process, contextlib.ExitStack() as cleanup:
        cleanup.callback(process.kill)
        assert process.stderr is not None
        for line in process.stderr:
            told = LINE.search(line)
            if told:
                seconds = time.monotonic() - began
                return {"all": seconds} | {name: float(value) for name, value in PART.findall(told[1])}
    raise UserError(f"the run ended before its first update: {line.strip() or 'it said nothing'}")


def summary(times: Sequence[float]) -> dict[str, Any]:
    """Returns {median, quartiles: [lower, upper]} of seconds."""
    low, median, high = (float(value) for value in np.quantile(times, [0.25, 0.5, 0.75]))
    return {"median": median, "quartiles": [low, high]}


def measure_startup(recipe_flags: Sequence[str], data_dir: Path, repetitions: int) -> dict[str, Any]:
    """Returns {cold, warm: {part: {median, quartiles}}}, in seconds; part "all" is from the command on.

    recipe_flags: what main is given, --config and its fields. Cold and warm starts are made in turn, each pair with a
    cache of its own; a first pair, which brings the files into the system's memory, does not count.
    """
    starts: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(repetitions + 1):
        with tempfile.TemporaryDirectory() as home:
            for cache, found in starts.items():
                own = ["--workdir", f"{home}/{cache}", "--data_dir", str(data_dir)]
                command = [sys.executable, "-m", "convmixer_jax.main", *recipe_flags, *own]
                found.append(start_once(command, environment(Path(home))))
    seconds = {
        cache: {part: summary([start[part] for start in found[1:]]) for part in found[-1]}
        for cache, found in starts.items()
    }
    machine = provenance.describe()
    return {"benchmark": "startup", "repetitions": repetitions, **seconds, "machine": machine}


def startup_table(measured: dict[str, Any]) -> list[str]:
    """Returns one line per part, cold beside warm, in seconds."""
    lines = [f"{'seconds':<14}  {'cold':>6}  {'quartiles':>13}  {'warm':>6}  {'quartiles':>13}"]
    for part in measured["cold"]:
        line = f"{part:<14}"
        for cache in ("cold", "warm"):
            seconds = measured[cache][part]
            between = "{:.1f} - {:.1f}".format(*seconds["quartiles"])
            line += f"  {seconds['median']:>6.1f}  {between:>13}"
        lines.append(line)
    machine = measured["machine"]
    return [*lines, f"{machine['processor']}, {machine['cores']} cores; {measured['repetitions']} starts of each"]
