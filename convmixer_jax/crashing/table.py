"""The result of a crash test by kind of fault, for people.

print(make_table(trials))
"""

import statistics
from collections.abc import Sequence

from convmixer_jax.crashing.trials import Event, Trial

COLUMNS = ("fault", "happened", "noticed", "trials passed", "exit codes", "seconds to the end", "updates made again")


def make_table(trials: Sequence[Trial]) -> str:
    """Returns a line for each kind of fault that happened. Seconds and updates: median, and the most."""
    kinds = sorted({event.kind for trial in trials for event in trial.events if event.happened})
    cells = [COLUMNS, *(_row(kind, trials) for kind in kinds)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def _row(kind: str, trials: Sequence[Trial]) -> tuple[str, ...]:
    with_it = [trial for trial in trials if any(event.kind == kind and event.happened for event in trial.events)]
    events: list[Event] = [
        event for trial in with_it for event in trial.events if event.kind == kind and event.happened
    ]
    codes = sorted({code for event in events for code in event.codes})
    return (
        kind,
        str(len(events)),
        str(sum(event.noticed for event in events)),
        f"{sum(not trial.problems for trial in with_it)} of {len(with_it)}",
        " ".join(map(str, codes)),
        _spread([event.seconds for event in events if event.seconds is not None], ".1f"),
        _spread([event.lost for event in events if event.lost is not None], ".0f"),
    )


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}}, {max(values):{form}}" if values else "-"
