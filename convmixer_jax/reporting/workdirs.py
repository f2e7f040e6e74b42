"""A run as its folder shows it, finished or not, whole or damaged.

    run = read_run(Path("runs/cifar10"), "cifar10")
    run.state, run.why, run.top1, run.curves["test"]

Nothing is changed there, and no lock is taken. What cannot be read is left out and named in `warnings`.
"""

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convmixer_jax.config import flatten, get_base, to_plain
from convmixer_jax.config_record import CONFIG_FILE
from convmixer_jax.errors import UserError
from convmixer_jax.reporting.summaries import number
from convmixer_jax.runs.files import read_json
from convmixer_jax.runs.ledger import Account, ledger_path, read_starts
from convmixer_jax.runs.ledger import read_run as read_ledgers
from convmixer_jax.runs.metrics_log import parse_row
from convmixer_jax.studying.folder import FAILED, PRUNED, RESULT_FILE, TRIAL_FILE

METRICS_FILE = "metrics.jsonl"
DONE, UNFINISHED, MISSING = "done", "unfinished", "missing"
STATES = (DONE, UNFINISHED, FAILED, PRUNED, MISSING)
NAMED_LINES = 5


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One of a split. epoch: passes over the training split by then. top1: from 0 to 1; loss: in nats, or None."""

    epoch: float
    top1: float
    loss: float | None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a folder holds. name: for people, unique in a report. state: one of STATES; why: of what is not done.

    record: config.json. config: its fields by dotted name, those that it lacks with the base's value; empty where there
    is none. result: of a finished run. curves: evaluations by split. rates: (epoch, learning rate). accounts: where
    its time went, by process. warnings: what could not be read.
    """

    folder: Path
    name: str
    state: str
    why: str
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    result: Mapping[str, Any] | None
    curves: Mapping[str, list[Evaluation]]
    rates: list[tuple[float, float]]
    accounts: Mapping[int, Account]
    warnings: list[str]

    @property
    def top1(self) -> float | None:
        """Of the test split at the last step, from 0 to 1; None where the run has not come there."""
        return number(self.result["top1"]) if self.result else None

    @property
    def val_top1(self) -> float | None:
        """Of the validation split at the last step, from 0 to 1; None where there is none."""
        return number(self.result.get("val_top1")) if self.result else None

    @property
    def step_seconds(self) -> float | None:
        """Seconds of the updates alone: without start-up, compilation, evaluation and saving; None if unfinished."""
        per_epoch, epochs = (number((self.result or {}).get(name)) for name in ("seconds_per_epoch", "epochs"))
        return None if per_epoch is None or epochs is None else per_epoch * epochs

    @property
    def images_per_sec(self) -> float | None:
        """Of the updates alone; None if unfinished."""
        return number((self.result or {}).get("images_per_sec"))

    @property
    def starts(self) -> list[Mapping[str, Any]]:
        """When, where and with which versions it was started, the first start first; see `provenance.describe`."""
        earlier = self.record.get("earlier_starts")
        starts = [*(earlier if isinstance(earlier, list) else []), self.record]
        return [start for start in starts if isinstance(start, dict) and isinstance(start.get("versions"), dict)]


def missing_run(folder: Path, name: str) -> Run:
    """Returns a run that a study asks for and nobody has begun."""
    return Run(folder, name, MISSING, "not begun", {}, {}, None, {}, [], {}, [])


def is_run(folder: Path) -> bool:
    """Whether a folder is, or was, a run's."""
    if any((folder / name).is_file() for name in (METRICS_FILE, TRIAL_FILE)):
        return True
    try:
        record = read_json(folder / CONFIG_FILE)
    except UserError:  # whose, nobody can tell: a run's has other files beside it
        return (folder / RESULT_FILE).is_file() or (folder / "checkpoints").is_dir()
    return record is not None and isinstance(record.get("config"), dict)


def read_run(folder: Path, name: str) -> Run:
    """Returns what is in the folder. Raises nothing for what cannot be read: it is in the warnings."""
    warnings: list[str] = []
    record = _read_object(folder / CONFIG_FILE, warnings)
    fields = record.get("config")
    config = dict(flatten(to_plain(get_base()))) | dict(flatten(fields)) if isinstance(fields, dict) else {}
    if not config and not warnings:
        warnings.append(f"{folder / CONFIG_FILE} names no config")
    rows = _read_rows(folder / METRICS_FILE, warnings)
    result = _read_result(folder / RESULT_FILE, warnings)
    trial = _read_object(folder / TRIAL_FILE, warnings)
    accounts = _tried(lambda: read_ledgers(folder), warnings) or {}
    state, why = _judge(folder, config, rows, result, trial)
    return Run(
        folder=folder,
        name=name,
        state=state,
        why=why,
        record=record,
        config=config,
        result=result,
        curves=_curves(rows),
        rates=_rates(rows),
        accounts=accounts,
        warnings=warnings,
    )


def _tried(read: Callable[[], Any], warnings: list[str]) -> Any:
    """Returns what `read` does; None, with a warning, where a file cannot be read."""
    try:
        return read()
    except UserError as error:
        warnings.append(str(error).partition(": it is not as this program wrote it")[0])
    except OSError as error:
        warnings.append(f"{error.filename} cannot be read ({error.strerror})")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        warnings.append(f"a file of the run is not as this program wrote it ({error})")
    return None


def _read_object(path: Path, warnings: list[str]) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one where there is none."""
    return _tried(lambda: read_json(path), warnings) or {}


def _read_result(path: Path, warnings: list[str]) -> dict[str, Any] | None:
    """Returns the result; None where there is none, or it has no score."""
    result = _read_object(path, warnings)
    top1 = number(result.get("top1"))
    if top1 is not None and 0 <= top1 <= 1:
        return result
    if result:
        warnings.append(f"{path} has no top1 that is a number from 0 to 1: the run counts as unfinished")
    return None


def _read_rows(path: Path, warnings: list[str]) -> list[dict[str, Any]]:
    """Returns the rows that can be read, in order. A last line that is still being written is no damage."""
    content = _tried(lambda: path.read_bytes() if path.exists() else b"", warnings) or b""
    lines = content.decode(errors="replace").split("\n")
    parsed = [parse_row(line) for line in lines]
    rows = [row for row in parsed if row is not None]
    bad = [place for place, (line, row) in enumerate(zip(lines[:-1], parsed, strict=False), 1) if row is None and line]
    if bad:
        named = ", ".join(map(str, bad[:NAMED_LINES])) + (
            f" and {len(bad) - NAMED_LINES} more" * (len(bad) > NAMED_LINES)
        )
        lines_word = "line" if len(bad) == 1 else "lines"
        warnings.append(f"{path}: {lines_word} {named} cannot be read; the other {len(rows)} rows are used")
    return rows


def _curves(rows: list[dict[str, Any]]) -> dict[str, list[Evaluation]]:
    curves: dict[str, list[Evaluation]] = {}
    for row in rows:
        split, epoch, top1 = row.get("eval/split"), number(row.get("epoch")), number(row.get("eval/top1"))
        if isinstance(split, str) and epoch is not None and top1 is not None:
            curves.setdefault(split, []).append(Evaluation(epoch, top1, number(row.get("eval/loss"))))
    return curves


def _rates(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    pairs = [(number(row.get("epoch")), number(row.get("schedule/learning_rate"))) for row in rows]
    return [(epoch, rate) for epoch, rate in pairs if epoch is not None and rate is not None]


def _judge(
    folder: Path,
    config: Mapping[str, Any],
    rows: list[dict[str, Any]],
    result: Mapping[str, Any] | None,
    trial: Mapping[str, Any],
) -> tuple[str, str]:
    """Returns (state, why)."""
    if result is not None:
        return DONE, ""
    if trial.get("state") in (FAILED, PRUNED):
        return str(trial["state"]), " ".join(str(trial.get("why") or "for no recorded reason").split())
    return UNFINISHED, _progress(folder, config, rows)


def _progress(folder: Path, config: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """Returns how far an unfinished run is, and when it was heard of last."""
    files = (folder / METRICS_FILE, ledger_path(folder, 0), folder / CONFIG_FILE)
    heard = [path for path in files if path.exists()]
    if not rows:
        far = "no update is recorded yet"
    else:
        epoch, epochs = number(rows[-1].get("epoch")), number(config.get("epochs"))
        of_all = f" of {epochs:g}" if epochs is not None else ""
        far = f"step {rows[-1]['step']}" + (f", epoch {epoch:.3g}{of_all}" if epoch is not None else "")
    if not heard:
        return far
    last = datetime.datetime.fromtimestamp(max(path.stat().st_mtime for path in heard), datetime.UTC)
    return f"{far}; {_ending(folder)}, last heard of at {last:%Y-%m-%d %H:%M:%S} UTC"


def _ending(folder: Path) -> str:
    """Returns whether the last start has ended, as far as its ledger says."""
    try:
        starts = read_starts(ledger_path(folder, 0))
    except (OSError, ValueError, TypeError):
        starts = []
    if starts and starts[-1].lines and starts[-1].lines[-1].what == "end":
        return "stopped"
    return "running or killed" if starts else "no ledger"


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Returns what changes when a run has something new: names, sizes and times of its files."""
    names = (CONFIG_FILE, METRICS_FILE, RESULT_FILE, TRIAL_FILE)
    found = []
    for path in [*(folder / name for name in names), *sorted(folder.glob("ledger*.jsonl"))]:
        try:
            told = path.stat()
        except OSError:
            continue
        found.append((str(path), told.st_size, told.st_mtime_ns))
    return tuple(found)


def text(value: Any) -> str:
    """Returns a field's value for people."""
    return value if isinstance(value, str) and value else json.dumps(value)
