"""What a measurement was made on.

print(describe_processor())
"""

import os
import platform
import re
from pathlib import Path
from typing import Any


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_processor() -> dict[str, Any]:
    """Returns {processor: its model's name, cores: those that this process may use}."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    model = found[1] if found else platform.processor() or platform.machine()
    return {"processor": model, "cores": usable_cores()}
