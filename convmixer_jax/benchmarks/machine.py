"""What a benchmark ran on, and the most memory that a process has used.

print(describe_processor(), host_peak_bytes())
"""

import os
import platform
import re
import resource
from pathlib import Path
from typing import Any


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _line_of(path: str, pattern: str) -> str | None:
    """Returns the first group of the pattern's first match in a file of /proc; None where there is none."""
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def describe_processor() -> dict[str, Any]:
    """Returns {processor: its model's name, cores: those that this process may use}."""
    model = _line_of("/proc/cpuinfo", r"^model name\s*: (.+)$")
    return {"processor": model or platform.processor() or platform.machine(), "cores": usable_cores()}


def host_peak_bytes() -> int:
    """Returns the largest resident memory of this process so far, compilation included."""
    # Not ru_maxrss where it can be helped: a process begins with that of the one which started it.
    peak = _line_of("/proc/self/status", r"^VmHWM:\s*(\d+) kB$")
    return 1024 * int(peak) if peak else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
