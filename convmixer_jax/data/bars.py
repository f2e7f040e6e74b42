"""A bar for what takes long before a run begins, on standard error.

with bar("reading images", total=100_000, unit=" images", delay_s=3.0) as reading:
    reading.update(500)
"""

import sys
from typing import Any

from tqdm import tqdm


def bar(what: str, total: int | None, unit: str, *, start: int = 0, scaled: bool = False, delay_s: float = 0.0) -> Any:
    """Returns the bar, a context that ends it. total: None where that is not known. start: what is done already.

    scaled: whether numbers are told with k, M, ... delay_s: seconds before it appears, so that what is quick has none.
    """
    return tqdm(
        desc=what,
        total=total,
        initial=start,
        unit=unit,
        unit_scale=scaled,
        delay=delay_s,
        mininterval=0.2 if sys.stderr.isatty() else 30.0,  # a line in a log file stays; keep them few
        file=sys.stderr,
    )
