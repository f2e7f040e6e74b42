"""What there is and what was used are read where the system tells them."""

import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from convmixer_jax.runs import memory
from convmixer_jax.runs.memory import (
    GROUPS,
    ControlGroup,
    device_peak_bytes,
    gigabytes,
    host_available_bytes,
    is_out_of_memory,
    memory_limit,
)

ROOT = Path(__file__).parents[2]


def device(platform: str, process: int = 0, **statistics: int) -> types.SimpleNamespace:
    return types.SimpleNamespace(platform=platform, process_index=process, memory_stats=lambda: statistics or None)


def test_bytes_are_told_in_gigabytes():
    assert gigabytes(4_583_683_464) == "4.58 GB"


# In a process of its own: this one may have held gigabytes before.
HOLD = """
import numpy as np
from convmixer_jax.runs.memory import host_peak_bytes
held = np.ones(host_peak_bytes() // 8 + 10_000_000)
print(held.nbytes, host_peak_bytes())
"""


def test_the_peak_grows_with_what_is_held():
    said = subprocess.run([sys.executable, "-c", HOLD], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    held, peak = map(int, said.split())
    assert held < peak < 10 * held


@pytest.mark.parametrize("cache", [group.cache for group in GROUPS])
def test_a_container_with_less_than_the_machine_decides(tmp_path, cache):
    machine = host_available_bytes(groups=())
    assert 1e8 < machine < 1e14
    limit, used, statistics = (tmp_path / name for name in ("limit", "used", "stat"))
    container = ControlGroup(str(limit), str(used), str(statistics), cache)
    limit.write_text("50000000\n")
    used.write_text("20000000\n")
    assert host_available_bytes([container]) == 30_000_000
    # Of what is used, copies of files that were read once are given up.
    statistics.write_text(f"active_file 5000000\n{cache} 4000000\nother_{cache} 3\n")
    assert host_available_bytes([container]) == 34_000_000
    used.write_text("60000000\n")
    assert host_available_bytes([container]) == 0
    limit.write_text("max\n")
    assert host_available_bytes([container]) > 1e8
    assert host_available_bytes([container._replace(limit=str(tmp_path / "none"))]) > 1e8


def test_want_of_memory_is_told_from_other_errors():
    said = ["RESOURCE_EXHAUSTED: Out of memory", "CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory"]
    assert all(is_out_of_memory(RuntimeError(line)) for line in said)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("INTERNAL: something else"))


def test_cpu_devices_share_what_the_host_has(monkeypatch):
    monkeypatch.setattr(memory, "host_available_bytes", lambda: 800)
    assert memory_limit(jax.devices("cpu")[:1]) == 800
    assert memory_limit(jax.devices("cpu")[:4]) == 200
    monkeypatch.setattr(memory, "host_available_bytes", lambda: None)
    assert memory_limit(jax.devices("cpu")) is None


def test_an_accelerator_tells_its_own():
    assert memory_limit([device("gpu", bytes_limit=90), device("gpu", bytes_limit=70)]) == 70
    assert memory_limit([device("gpu", bytes_limit=90), device("gpu", process=1, bytes_limit=7)]) == 90
    assert memory_limit([device("tpu")]) is None


def test_the_peak_is_that_of_the_fullest_device(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [device("gpu", peak_bytes_in_use=n) for n in (5, 9)])
    assert device_peak_bytes() == 9
    monkeypatch.setattr(jax, "local_devices", lambda: [device("cpu")])
    assert device_peak_bytes() is None
