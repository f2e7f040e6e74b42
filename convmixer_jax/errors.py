"""The one exception class for a user's mistake, the exit codes, and looking a name up in a table.

    raise UserError("config.batch_size is 0: a positive number of images is needed")
    make_schedule = lookup(SCHEDULES, config.schedule.name, "config.schedule.name")

`main` turns `UserError` into one line and exit code 2, `RunAgainError` into one line and 76; anything else keeps its
traceback.
"""

import difflib
import enum
from collections.abc import Iterable, Mapping
from typing import TypeVar

Row = TypeVar("Row")


class ExitCode(enum.IntEnum):
    """What the process tells its caller; job schedulers act on these."""

    DONE = 0
    CRASH = 1  # anything unforeseen, with its traceback
    USER_MISTAKE = 2  # one clear line, no traceback
    UNSAVED = 74  # finished, but a checkpoint could not be saved (EX_IOERR)
    STOPPED = 75  # stopped by a signal after saving: run again to go on (EX_TEMPFAIL)
    STUCK = 76  # no progress, or another process was lost: run again


class UserError(Exception):
    """A user's mistake. The message is one line: field or file, value, what is accepted, the way out."""

    def __init__(self, message: str):
        # A message put together from another library's may hold line breaks; the promise is one line.
        super().__init__(" ".join(message.split()))


class RunAgainError(Exception):
    """Nothing is wrong with what was asked for, but it could not be done now. The message is one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def suggest(name: str, choices: Iterable[str]) -> str:
    """Returns " (did you mean X?)" for the choice nearest to `name`, or "" where none is near."""
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def lookup(table: Mapping[str, Row], name: str, field: str) -> Row:
    """Returns `table[name]`. Raises UserError, naming `field` and every choice, where there is no such row."""
    if name not in table:
        raise UserError(f"{field} is {name!r}{suggest(name, table)}: choose one of {', '.join(table)}")
    return table[name]
