"""Where the time of a run went: lines that each process appends, and what they add up to over all starts.

    with Ledger(workdir, process=0, began=time.time() - 2.1) as ledger:
        ledger.ready(step=500, seconds={"start-up": 4.0, "compile": 9.5})
        ledger.note("report", 550, clock.spent())       # all so far; the line holds what came since the line before
    account = add_up(read_starts(ledger_path(workdir, 0)))

A line costs some 20 microseconds, and there is one for each report, evaluation and save. A torn last line is ignored.
"""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from convmixer_jax.runs.files import Lines

STEP, INPUT, LOST, DOWN, OTHER = "step", "input", "lost work", "downtime", "other"
CATEGORIES = (STEP, INPUT, "evaluation", "save", "compile", "start-up", LOST, DOWN, OTHER)


def ledger_path(workdir: Path, process: int) -> Path:
    """Returns the file of a process."""
    return workdir / (f"ledger-{process}.jsonl" if process else "ledger.jsonl")


class Ledger:
    """Appends lines while the context is open. began: when the process did, in seconds of the wall clock."""

    def __init__(self, workdir: Path, process: int, began: float):
        self._path, self._began = ledger_path(workdir, process), began
        self._noted: dict[str, float] = {}

    def ready(self, step: int, seconds: Mapping[str, float]) -> None:
        """Notes that updates begin, after `step`, and what it took until here, by category."""
        self._write("ready", step, seconds)

    def note(self, what: str, step: int, spent: Mapping[str, float]) -> None:
        """Notes a report, evaluation, save or the end. spent: seconds since `ready` by category, see `RunClock`."""
        since = {kind: seconds - self._noted.get(kind, 0.0) for kind, seconds in spent.items()}
        self._noted = dict(spent)
        self._write(what, step, since)

    def _write(self, what: str, step: int | None, seconds: Mapping[str, float], moment: float | None = None) -> None:
        rounded = {kind: round(value, 4) for kind, value in seconds.items() if round(value, 4)}
        line = {"what": what, "time": round(moment or time.time(), 3), "step": step, "seconds": rounded}
        self._lines.append(json.dumps(line))

    def __enter__(self) -> "Ledger":
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        self._lines = Lines(self._path)
        if torn:
            self._lines.append("")
        self._write("start", None, {}, self._began)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("end", None, {})
        self._lines.close()


def start_up_seconds(parts: Mapping[str, float]) -> dict[str, float]:
    """Returns the parts of a start-up, see `Timeline`, by category."""
    compiling = parts.get("compilation", 0.0)
    return {"compile": compiling, "start-up": sum(parts.values()) - compiling}


@dataclasses.dataclass(frozen=True)
class Line:
    """What was done until `time`, in seconds of the wall clock. step: updates made by then, None for unknown."""

    what: str
    time: float
    step: int | None
    seconds: dict[str, float]


@dataclasses.dataclass
class Start:
    """One start of a process. step: what it went on from, None where it ended before that was known."""

    began: float
    lines: list[Line] = dataclasses.field(default_factory=list)

    @property
    def ended(self) -> float:
        """When it was heard of last."""
        return max([self.began, *(line.time for line in self.lines)])

    @property
    def step(self) -> int | None:
        """What it went on from, None where it ended before that was known."""
        return next((line.step for line in self.lines if line.what == "ready"), None)


@dataclasses.dataclass(frozen=True)
class Account:
    """Seconds of the wall clock since the first start, by CATEGORIES. updates: those that count."""

    starts: int
    wall: float
    updates: int
    lost_updates: int
    seconds: dict[str, float]

    @property
    def goodput(self) -> float:
        """The share of the time that made updates which count, from 0 to 1."""
        return self.seconds[STEP] / self.wall if self.wall else 0.0


def parse(text: str) -> Line | None:
    """Returns a line, None where it is none."""
    try:
        fields: dict[str, Any] = json.loads(text)
        seconds = {str(kind): float(value) for kind, value in fields["seconds"].items()}
        step = None if fields["step"] is None else int(fields["step"])
        line = Line(str(fields["what"]), float(fields["time"]), step, seconds)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return line if math.isfinite(sum(seconds.values(), line.time)) else None


def read_starts(path: Path) -> list[Start]:
    """Returns the starts in a ledger, in order; none where there is no such file."""
    starts: list[Start] = []
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        line = parse(text)
        if line is not None and line.what == "start":
            starts.append(Start(line.time))
        elif line is not None and starts:
            starts[-1].lines.append(line)
    return starts


def add_up(starts: list[Start]) -> Account:
    """Returns where the time of one process went.

    Updates are lost that a later start made again; so is all else that was done after the step it went on from. What
    a killed process did after its last line is downtime, as is what passed until the next one began.
    """
    seconds = dict.fromkeys(CATEGORIES, 0.0)
    lost_updates = reached = 0
    for number, start in enumerate(starts):
        resumed = min((later.step for later in starts[number + 1 :] if later.step is not None), default=None)
        lost_updates += _add_start(start, resumed, seconds)
        if resumed is None:
            reached = max([line.step for line in start.lines if line.step is not None], default=reached)
    for before, after in itertools.pairwise(starts):
        seconds[DOWN] += max(after.began - before.ended, 0.0)
    wall = starts[-1].ended - starts[0].began if starts else 0.0
    seconds[OTHER] = max(wall - sum(seconds.values()), 0.0)
    return Account(len(starts), wall, reached, lost_updates, seconds)


def _add_start(start: Start, resumed: int | None, seconds: dict[str, float]) -> int:
    """Adds a start to `seconds`; returns its lost updates. resumed: the step after which nothing of it counts."""
    done = start.step or 0
    lost_updates = 0
    for line in start.lines:
        step = done if line.step is None else line.step
        made = max(step - done, 0)
        lost = 0 if resumed is None else min(max(step - resumed, 0), made)
        # Of a line without updates, an evaluation or a save, all is lost or nothing.
        share = lost / made if made else float(resumed is not None and step > resumed)
        for kind, value in line.seconds.items():
            known = kind if kind in CATEGORIES else OTHER
            seconds[known] += (1 - share) * value
            seconds[LOST] += share * value
        lost_updates += lost
        done = max(done, step)
    return lost_updates


def read_run(workdir: Path) -> dict[int, Account]:
    """Returns the account of each process of a run, by its number; none where there is no ledger."""
    names: Iterable[Path] = workdir.glob("ledger-*.jsonl")
    others = {int(path.stem.removeprefix("ledger-")) for path in names if path.stem[7:].isdecimal()}
    accounts = {number: add_up(read_starts(ledger_path(workdir, number))) for number in sorted({0, *others})}
    return {number: account for number, account in accounts.items() if account.starts}
