"""Checkpoints that cannot be written: the failure is told, does not count, and costs nothing that was saved."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from convmixer_jax.main import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

# A limit on the size of files stands for a full disk: Python ignores the signal, so that writes fail with EFBIG.
FULL_DISK = """
import json, pathlib, resource, sys
import numpy as np
from convmixer_jax.runs.checkpoint import Checkpoints

def tree(step):
    return {"x": np.random.default_rng(step).standard_normal(50_000)}

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def look(name):
    told[name] = {"saved": checkpoints.saved, "steps": checkpoints.steps(), "failures": sorted(checkpoints.failures),
                  "folders": sorted(path.name for path in folder.iterdir() if path.name.isdecimal())}

def restored(step):
    import jax
    whole = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    jax.config.update("jax_enable_x64", True)
    abstract = {"x": jax.ShapeDtypeStruct((50_000,), np.float64, sharding=whole)}
    return bool((np.asarray(checkpoints.restore(step, abstract)[0]["x"]) == tree(step)["x"]).all())

told, folder = {}, pathlib.Path(sys.argv[1])
checkpoints = Checkpoints(folder, keep=2)
checkpoints.save(1, tree(1), {})
checkpoints.confirm()
look("before")
limit(20_000)
checkpoints.save(2, tree(2), {})
checkpoints.confirm()
look("full")
told["reason"] = checkpoints.failures[2]
told["the older one"] = restored(1)
checkpoints.save(3, tree(3), {})
checkpoints.confirm()
look("still full")
limit(resource.RLIM_INFINITY)
checkpoints.save(4, tree(4), {})
checkpoints.confirm()
look("room again")
checkpoints.save(2, tree(2), {})
checkpoints.confirm()
checkpoints.close()
told["the new one"] = restored(4)
checkpoints = Checkpoints(folder, keep=2)
look("reopened")
print(json.dumps(told))
"""


def test_a_write_that_fails_does_not_count(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["before"] == {"saved": 1, "steps": [1], "failures": [], "folders": ["1"]}
    assert told["full"] == {"saved": 1, "steps": [1], "failures": [2], "folders": ["1"]}
    assert told["reason"]
    assert told["the older one"]
    assert told["still full"] == {"saved": 1, "steps": [1], "failures": [2, 3], "folders": ["1"]}
    assert told["room again"] == {"saved": 4, "steps": [1, 4], "failures": [2, 3], "folders": ["1", "4"]}
    assert told["the new one"]
    assert told["reopened"]["saved"] == 4


# In the process itself: to set a limit between fork and exec is not safe beside JAX's threads.
LIMITED = """
import resource, sys
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, most))
from convmixer_jax.main import main
code = main()
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # what measures coverage writes a file, too
sys.exit(code)
"""


def arguments(workdir: Path) -> list[str]:
    """Three updates of a model one of whose arrays (147 kB) is above the limit, as nothing else that is written."""
    return [
        f"--config={ROOT / 'configs/digits.py'}",
        f"--workdir={workdir}",
        "--config.model.dim=192",
        "--config.model.depth=1",
        "--config.epochs=1",
        "--config.batch_size=32",
        "--config.train_examples=96",
        "--config.devices=1",
        "--config.compilation_cache=False",  # the limit would hit it too
    ]


def test_a_run_that_cannot_save_says_so_and_is_repaired_by_running_again(tmp_path, capsys):
    workdir = tmp_path / "run"
    command = [sys.executable, "-B", "-c", LIMITED, *arguments(workdir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 74, done.stderr
    assert "warning: checkpoint 3 could not be saved: " in done.stderr
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (failed,) = (row for row in rows if "save/failed" in row)
    assert (failed["step"], failed["save/failed"]) == (3, 1)
    assert f"warning: checkpoint 3 could not be saved: {failed['save/reason']}" in done.stderr
    # That line says all; Orbax's own log of the failure would be hundreds more. (A thread of it may still protest.)
    assert "ERROR:absl" not in done.stderr
    result = json.loads((workdir / "result.json").read_text())
    assert (result["step"], result["n"]) == (3, 360)
    assert [path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()] == []

    assert main(["main", *arguments(workdir)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert (workdir / "checkpoints/3").is_dir()
    repaired = json.loads((workdir / "result.json").read_text())
    assert [repaired[name] for name in ("step", "n", "top1")] == [result[name] for name in ("step", "n", "top1")]

    assert main(["main", *arguments(workdir)]) == 0
    assert capsys.readouterr().err.startswith(f"{workdir} is finished: step 3, test top1 ")
