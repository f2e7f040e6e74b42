"""How much memory there is, and how much this process has used at most.

    limit = memory_limit(jax.devices())
    print(gigabytes(host_peak_bytes()), device_peak_bytes())

The host's numbers are read from Linux's /proc and /sys; where these are missing, less is known.
"""

import re
import resource
from collections.abc import Sequence
from pathlib import Path

import jax

# Where a container's limit and use stand, of the second and of the first version of control groups.
GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def gigabytes(number: int) -> str:
    """Returns a number of bytes as "4.58 GB"."""
    return f"{number / 1e9:.2f} GB"


def _number(path: str, pattern: str) -> int | None:
    """Returns the number that is the first group of the pattern's first match; None where there is none such."""
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def host_peak_bytes() -> int:
    """Returns the largest resident memory of this process so far, compilation included."""
    # Not ru_maxrss where it can be helped: a process begins with that of the one which started it.
    peak = _number("/proc/self/status", r"^VmHWM:\s*(\d+) kB$")
    return 1024 * (peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def host_available_bytes(groups: Sequence[tuple[str, str]] = GROUPS) -> int | None:
    """Returns the memory that this process may still take without swapping; None where the system does not tell.

    groups: files of (limit, use) of containers; one without a limit does not count.
    """
    machine = _number("/proc/meminfo", r"^MemAvailable:\s*(\d+) kB$")
    found = [] if machine is None else [1024 * machine]
    for files in groups:
        limit, used = (_number(path, r"^(\d+)$") for path in files)
        if limit is not None and used is not None:
            found.append(max(limit - used, 0))
    return min(found, default=None)


def device_peak_bytes() -> int | None:
    """Returns the most memory of any device that was in use; None where the platform does not count."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((found.get("peak_bytes_in_use", 0) for found in statistics), default=0) or None


def memory_limit(devices: Sequence[jax.Device]) -> int | None:
    """Returns the bytes that each of the devices may use in this process; None where nobody tells.

    Of an accelerator that is all it gives to a process; CPU devices share what the host has left.
    """
    ours = [device for device in devices if device.process_index == jax.process_index()]
    if ours[0].platform == "cpu":
        available = host_available_bytes()
        return None if available is None else available // len(ours)
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in ours]
    return min((limit for limit in limits if limit), default=None)
