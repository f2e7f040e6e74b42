"""Checkpoints of 1, 2 and 4 processes come back in any number of them, divided or not; damage is found by all alike."""

import concurrent.futures
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.damage import flip, largest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DEVICES = 4
# Saves to `own`, in the layout given, where that is no checkpoint yet; else reads all of the other folders.
WORKER = """
import json, sys
import jax, numpy as np
from jax.experimental import multihost_utils

port, count, index, task = (*map(int, sys.argv[1:4]), json.loads(sys.argv[4]))
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
from pathlib import Path
from convmixer_jax.runs.checkpoint import Checkpoints
from convmixer_jax.runs.steps import DamagedError
from convmixer_jax.training.mesh import make_mesh, over_fsdp, replicated
from tests.runs.damage import META, make_tree

values = jax.tree.map(np.asarray, make_tree())
def shardings(fsdp):
    mesh = make_mesh(0, fsdp)
    return over_fsdp(mesh, values) if fsdp > 1 else jax.tree.map(lambda leaf: replicated(mesh), values)

def whole(leaf):
    return np.asarray(leaf if leaf.is_fully_replicated else multihost_utils.process_allgather(leaf, tiled=True))

told = {}
for folder, fsdp in task.get("save", {}).items():
    checkpoints = Checkpoints(Path(folder))
    place = lambda value, sharding: jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])
    checkpoints.save(2, jax.tree.map(place, values, shardings(fsdp)), META)
    checkpoints.close()
    told[folder] = [checkpoints.saved, checkpoints.failures]
for folder in task.get("read", []):
    for fsdp in (1, jax.device_count()):
        shape = lambda value, sharding: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
        checkpoints = Checkpoints(Path(folder), read_only=True)
        try:
            tree, meta = checkpoints.restore(2, jax.tree.map(shape, values, shardings(fsdp)))
        except DamagedError as error:
            told[f"{folder} {fsdp}"] = error.reason
            continue
        same = [whole(leaf).tobytes() == value.tobytes() for leaf, value in zip(*map(jax.tree.leaves, (tree, values)))]
        told[f"{folder} {fsdp}"] = [meta == META, same]
print(json.dumps(told))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def work(processes: int, task: object, worker: str = WORKER) -> list:
    """Returns what each of the processes told."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(DEVICES // processes), "JAX_PLATFORMS": "cpu"}
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", worker, port, str(processes), str(index), json.dumps(task)],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    told = []
    for process in started:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        told.append(json.loads(out.splitlines()[-1]))
    return told


GRID = (1, 2, 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[tuple[int, int], Path]:
    """By processes and fsdp_devices: a folder with step 2 that they saved."""
    made = {(processes, fsdp): tmp_path_factory.mktemp("saved") for processes in GRID for fsdp in (1, DEVICES)}
    with concurrent.futures.ThreadPoolExecutor(len(GRID)) as pool:
        tasks = {processes: {"save": {str(made[processes, fsdp]): fsdp for fsdp in (1, DEVICES)}} for processes in GRID}
        for told in pool.map(work, tasks, tasks.values()):
            assert all(outcome == [2, {}] for each in told for outcome in each.values())
            assert [len(each) for each in told] == [2] * len(told)
    return made


# Both save step 1; then, by turns, one of them fails in a save, and both save again.
ALONE = """
import json, resource, sys, time
import jax, numpy as np

port, count, index, (folder, failing) = (*map(int, sys.argv[1:4]), json.loads(sys.argv[4]))
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", count, index)
from pathlib import Path
from convmixer_jax.runs import checkpoint
from convmixer_jax.training.mesh import make_mesh, over_fsdp

values = {"w": np.random.default_rng(0).standard_normal((64, 5000)).astype(np.float32)}
place = lambda value, sharding: jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])
tree = jax.tree.map(place, values, over_fsdp(make_mesh(0, count), values))
checkpoints, parts = checkpoint.Checkpoints(Path(folder), keep=1), checkpoint.host_parts

def fail(*arguments):
    raise MemoryError("no")

def save(step, how=None):
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if how == "writing" else -1, -1))
    checkpoint.host_parts = fail if how == "before" else parts
    began = time.monotonic()
    checkpoints.save(step, tree, {})
    checkpoints.confirm()
    told.append([time.monotonic() - began, checkpoints.saved, checkpoints.failures.get(step)])

told = []
save(1)
for turn, (how, who) in enumerate(failing):
    save(2 * turn + 2, how if index == who else None)
    save(2 * turn + 3)
checkpoints.close()
print(json.dumps(told))
"""


def test_a_process_whose_part_fails_alone_keeps_nobody_waiting(tmp_path):
    failing = [("writing", 0), ("writing", 1), ("before", 1)]
    for process, told in enumerate(work(2, [str(tmp_path), failing], ALONE)):
        assert max(seconds for seconds, _, _ in told) < 60, "it was 600"
        # The step before stays, and the next save works.
        assert [saved for _, saved, _ in told] == [1, 1, 3, 3, 5, 5, 7]
        reasons = [reason for _, _, reason in told]
        assert reasons[::2] == [None] * 4
        assert reasons[1].startswith("process 0: ValueError: ")
        assert reasons[3].startswith("process 1: ValueError: ")
        assert reasons[5] == ("MemoryError: no" if process == 1 else "process 1: MemoryError: no")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7"]


def test_the_manifest_has_whole_leaves_or_parts(folders):
    for (processes, fsdp), folder in folders.items():
        record = json.loads((folder / "2/MANIFEST.json").read_text())["manifest"]
        assert record["processes"] == processes
        kernel, step = record["leaves"]["params/kernel"], record["leaves"]["step"]
        assert "sha256" in step
        if processes > 1 and fsdp > 1:
            boxes = sorted(part["box"] for part in kernel["parts"])
            assert boxes == [[[start, start + 4], [0, 8]] for start in (0, 4, 8, 12)]
        else:
            assert "sha256" in kernel
        written = {name.split("/")[1] for name in record["files"] if "/ocdbt.process_" in name}
        assert len(written) == processes


@pytest.fixture(scope="module")
def read(folders, tmp_path_factory) -> dict[int, list[dict]]:
    """By number of processes: what each told of all folders, and of one with a flipped bit."""
    damaged = tmp_path_factory.mktemp("damaged") / "steps"
    shutil.copytree(folders[2, DEVICES], damaged)
    flip(largest(damaged / "2/state/ocdbt.process_1"), 1234)
    task = {"read": [*map(str, folders.values()), str(damaged)]}
    with concurrent.futures.ThreadPoolExecutor(len(GRID)) as pool:
        return dict(zip(GRID, pool.map(work, GRID, [task] * len(GRID)), strict=True))


@pytest.mark.parametrize("processes", GRID)
def test_all_come_back_in_all(folders, read, processes):
    for told in read[processes]:
        for folder in folders.values():
            for fsdp in (1, DEVICES):
                assert told[f"{folder} {fsdp}"] == [True, [True] * 3], (folder, fsdp)


@pytest.mark.parametrize("processes", GRID)
def test_damage_that_one_finds_is_found_by_all(read, processes):
    reasons = [[value for name, value in told.items() if "damaged" in name] for told in read[processes]]
    assert [len(each) for each in reasons] == [2] * processes
    words = {reason for each in reasons for reason in each}
    assert any("is not as it was written" in reason for reason in words)
    assert all("is not as it was written" in reason or reason == "another process found it so" for reason in words)
