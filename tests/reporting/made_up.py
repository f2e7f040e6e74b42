"""Folders of runs that nobody trained: what a run and a sweep leave, with numbers that tests choose.

write_run(tmp_path / "run", seed=1, top1=0.9)
write_study(tmp_path / "study", points={"kernel_size=3": (3, 0.85)})
"""

import json
from pathlib import Path
from typing import Any

from convmixer_jax.config import to_plain
from convmixer_jax.runs.files import write_json
from tests.config_values import base_with

VERSIONS = {"convmixer_jax": "0.1.0", "python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8", "optax": "0.2.8"}
START = {
    "time": "2026-11-20T10:00:00+00:00",
    "versions": VERSIONS,
    "devices": ["TPU v5e", "TPU v5e"],
    "processes": 1,
    "platform": "Linux",
    "git_revision": "0123456789abcdef0123456789abcdef01234567",
    "earlier_starts": [],
}
SMALL = {"dataset": "digits", "epochs": 4, "batch_size": 128, "model.dim": 8, "model.depth": 1, "model.patch_size": 1}


def write_record(folder: Path, record: dict[str, Any] | None = None, **fields: Any) -> None:
    """Writes config.json. fields: by dotted name, beside SMALL."""
    folder.mkdir(parents=True, exist_ok=True)
    config = to_plain(base_with(**SMALL | fields))
    write_json(folder / "config.json", {"config": config, "data_digest": "d", **START, **(record or {})})


def rows_of(top1: float, epochs: int, split: str = "test", steps: int = 11) -> list[dict[str, Any]]:
    """Rows of a run that comes to `top1` in equal steps: one of training and one evaluation in each epoch."""
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        step, share = epoch * steps, epoch / epochs
        rows.append({
            "step": step, "epoch": float(epoch), "perf/images_per_sec": 100.0, "train/loss": 2.0 - share,
            "schedule/learning_rate": 0.05 * (1 - share),
        })  # fmt: skip
        rows.append({
            "step": step, "epoch": float(epoch), "eval/split": split, "eval/n": 360, "eval/top1": top1 * share,
            "eval/loss": 2.5 - share,
        })  # fmt: skip
    return rows


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes metrics.jsonl."""
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_result(folder: Path, top1: float, step_seconds: float = 40.0, epochs: int = 4, **values: Any) -> None:
    """Writes result.json."""
    result = {
        "split": "test", "n": 360, "top1": top1, "top5": 1.0, "loss": 0.5, "train_top1": 0.9, "step": 11 * epochs,
        "epochs": float(epochs), "seconds": 2 * step_seconds, "seconds_per_epoch": step_seconds / epochs,
        "images_per_sec": 11 * epochs * 128 / step_seconds,
    }  # fmt: skip
    write_json(folder / "result.json", result | values)


def write_ledger(folder: Path, seconds: dict[str, float], ended: bool = True) -> None:
    """Writes the ledger of one start: half of the seconds until it is ready, as it were."""
    wall = sum(seconds.values())
    lines: list[dict[str, Any]] = [
        {"what": "start", "time": 1000.0, "step": None, "seconds": {}},
        {"what": "ready", "time": 1000.0, "step": 0, "seconds": {}},
        {"what": "report", "time": 1000.0 + wall, "step": 44, "seconds": seconds},
    ]
    lines += [{"what": "end", "time": 1000.0 + wall, "step": None, "seconds": {}}] if ended else []
    (folder / "ledger.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write_run(folder: Path, top1: float = 0.9, step_seconds: float = 40.0, **fields: Any) -> Path:
    """Writes a run that is done. fields: of its config, by dotted name, beside SMALL."""
    write_record(folder, **fields)
    write_rows(folder, rows_of(top1, 4))
    write_result(folder, top1, step_seconds)
    write_ledger(folder, {"step": 0.6 * step_seconds, "compile": 0.3 * step_seconds, "evaluation": 0.1 * step_seconds})
    return folder


def write_study_file(folder: Path, points: list[dict[str, Any]], **fields: Any) -> None:
    """Writes study.json."""
    study = {
        "name": "kernel_size", "title": "Kernel sizes", "source": "document A, its table of kernels",
        "recipe": "configs/digits.py", "scale": "small", "settings": {"dataset": "digits"}, "metric": "test_top1",
        "axes": ["model.kernel_size"], "points": points,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "study.json", study | fields)


def point(kernel_size: int, published: float | None, seeds: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    """A point of study.json."""
    return {
        "name": f"kernel_size={kernel_size}",
        "parameters": {"model.kernel_size": kernel_size},
        "published": published,
        "seeds": list(seeds),
    }


def write_study(folder: Path) -> Path:
    """Writes a study in which every state occurs.

    kernel_size=3: done with 0.80 and 0.84, published 0.85. 5: done with 0.90, and failed. 7: done with 0.88 and
    unfinished, published 0.86. 9: pruned, and not begun.
    """
    write_study_file(folder, [point(3, 0.85), point(5, None), point(7, 0.86), point(9, 0.9)])
    write_run(folder / "kernel_size=3/seed-0", 0.80, 20.0, **{"model.kernel_size": 3, "seed": 0})
    write_run(folder / "kernel_size=3/seed-1", 0.84, 30.0, **{"model.kernel_size": 3, "seed": 1})
    write_run(folder / "kernel_size=5/seed-0", 0.90, 50.0, **{"model.kernel_size": 5, "seed": 0})
    write_trial(folder / "kernel_size=5/seed-1", "failed", "the loss was not finite", 5)
    write_run(folder / "kernel_size=7/seed-0", 0.88, 60.0, **{"model.kernel_size": 7, "seed": 0})
    write_record(folder / "kernel_size=7/seed-1", None, **{"model.kernel_size": 7, "seed": 1})
    write_rows(folder / "kernel_size=7/seed-1", rows_of(0.88, 4)[:4])
    write_trial(folder / "kernel_size=9/seed-0", "pruned", "worse than most at step 11", 9)
    return folder


def write_trial(folder: Path, state: str, why: str, kernel_size: int) -> None:
    """Writes a run that a sweep gave up after its first epoch."""
    write_record(folder, None, **{"model.kernel_size": kernel_size, "seed": 1})
    write_rows(folder, rows_of(0.4, 4)[:2])
    write_json(folder / "trial.json", {"state": state, "why": why, "points": [[11, 0.1]]})
