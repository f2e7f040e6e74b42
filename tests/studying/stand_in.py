"""What stands in for main where the training is not the point: it counts to STEPS, and saves how far it is.

    python tests/studying/stand_in.py --config=... --config.seed=0 --workdir=DIR

It keeps to main's promises: the workdir's lock, rows of metrics.jsonl, exit code 75 for a signal after saving, and
result.json at the end. Each start appends a line to starts.txt. What a seed does is in SEEDS of the environment, JSON:
{"0": {"seconds": 0.05, "top1": 0.9, "code": 1, "codes": [76, 0], "curve": [0.1, 0.2], "until": "go"}}; until: a file
that the second step waits for.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

STEPS = 5


def value_of(name: str) -> str:
    return next(each.partition("=")[2] for each in sys.argv if each.startswith(f"--{name}="))


def main() -> int:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    workdir, seed = Path(value_of("workdir")), value_of("config.seed")
    asked = json.loads(os.environ.get("SEEDS", "{}")).get(seed, {})
    lock = (workdir / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"error: --workdir {workdir} is in use by process 1 on a machine: wait for it", file=sys.stderr)
        return 2
    (workdir / "pid").write_text(str(os.getpid()))
    saved = workdir / "saved"
    step = int(saved.read_text()) if saved.exists() else 0
    with (workdir / "starts.txt").open("a") as file:
        file.write(f"{os.getpid()} from {step}\n")
    starts = len((workdir / "starts.txt").read_text().splitlines())
    codes = asked.get("codes", [])
    code = codes[starts - 1] if starts <= len(codes) else asked.get("code", 0)
    if code:
        print("first line\nerror: it went wrong", file=sys.stderr)
        return code
    curve = asked.get("curve", [0.1 * (place + 1) for place in range(STEPS)])
    while step < STEPS:
        time.sleep(asked.get("seconds", 0.0))
        while step == 1 and "until" in asked and not Path(asked["until"]).exists() and not stopped:
            time.sleep(0.02)
        if stopped:
            saved.write_text(str(step))
            return 75
        step += 1
        row = {"step": step, "epoch": float(step), "eval/split": "val", "eval/top1": curve[step - 1]}
        with (workdir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        saved.write_text(str(step))
    top1 = asked.get("top1", 0.5)
    (workdir / "result.json").write_text(json.dumps({"top1": top1, "val_top1": curve[-1], "step": step}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
