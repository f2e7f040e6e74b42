"""How much memory there is, and how much this process has used at most.

    limit = memory_limit(jax.devices())
    print(gigabytes(host_peak_bytes()), device_peak_bytes())

The host's numbers are read from Linux's /proc and /sys; where these are missing, less is known. JAX is imported only
where devices are asked about.
"""

import re
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import jax

# How allocators say that they have not enough: XLA's; PyTorch's of a GPU; PyTorch's of a CPU and NumPy's.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "allocate memory", "Unable to allocate")


class ControlGroup(NamedTuple):
    """Files that tell of a container: its limit, its use, and more of its use, where `cache` is the line to look for.

    cache: copies of files that nobody has used lately. They count as used, and are given up when memory is wanted.
    """

    limit: str
    used: str
    statistics: str
    cache: str


# Of the second and of the first version of control groups.
GROUPS = (
    ControlGroup(
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.current",
        "/sys/fs/cgroup/memory.stat",
        "inactive_file",
    ),
    ControlGroup(
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_inactive_file",
    ),
)


def gigabytes(number: int) -> str:
    """Returns a number of bytes as "4.58 GB"."""
    return f"{number / 1e9:.2f} GB"


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error, of whatever library, says that an allocator had not enough."""
    return isinstance(error, MemoryError) or any(mark in str(error) for mark in OUT_OF_MEMORY)


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


def host_resident_bytes() -> int:
    """Returns the memory of this process that lies in memory now; 0 where the system does not tell."""
    pages = _number("/proc/self/statm", r"^\d+ (\d+)")
    return resource.getpagesize() * (pages or 0)


def host_available_bytes(groups: Sequence[ControlGroup] = GROUPS) -> int | None:
    """Returns the memory that this process may still take without swapping; None where the system does not tell.

    groups: of containers; one without a limit does not count.
    """
    machine = _number("/proc/meminfo", r"^MemAvailable:\s*(\d+) kB$")
    found = [] if machine is None else [1024 * machine]
    for group in groups:
        limit, used = (_number(path, r"^(\d+)$") for path in (group.limit, group.used))
        if limit is not None and used is not None:
            cache = _number(group.statistics, rf"^{group.cache} (\d+)$") or 0
            found.append(max(limit - used + cache, 0))
    return min(found, default=None)


def device_peak_bytes() -> int | None:
    """Returns the most memory of any device that was in use; None where the platform does not count."""
    import jax

    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((found.get("peak_bytes_in_use", 0) for found in statistics), default=0) or None


def memory_limit(devices: "Sequence[jax.Device]") -> int | None:
    """Returns the bytes that each of the devices may use in this process; None where nobody tells.

    Of an accelerator that is all it gives to a process; CPU devices share what the host has left.
    """
    import jax

    ours = [device for device in devices if device.process_index == jax.process_index()]
    if ours[0].platform == "cpu":
        available = host_available_bytes()
        return None if available is None else available // len(ours)
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in ours]
    return min((limit for limit in limits if limit), default=None)
