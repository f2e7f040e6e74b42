"""What a study would do: its points with parameters, arithmetic, time, and what is done of them.

    for line in list_runs(plan, models, folder, seconds_of):
        print(line)

Nothing is begun. Times are those of finished runs of the study, of its other points scaled by their arithmetic; without
any, of some updates that are measured here.
"""

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from convmixer_jax.config_record import CONFIG_FILE
from convmixer_jax.errors import UserError
from convmixer_jax.runs.files import read_json
from convmixer_jax.runs.ledger import DOWN, LOST, STEP, read_run
from convmixer_jax.runs.progress import duration
from convmixer_jax.studying.folder import FAILED, RESULT_FILE, TRIAL_FILE, workdir
from convmixer_jax.studying.models import Models
from convmixer_jax.studying.plan import Plan
from convmixer_jax.studying.record import read_study
from convmixer_jax.studying.study import Point, decoded, make_point
from convmixer_jax.studying.trial import environment

# An update costs the forward pass and, for gradients by inputs and by weights, twice as much again.
TRAINING = 3
BEGUN, NOTHING = "begun", "-"  # states of a run, beside those of trial.json
HEADS = ("point", "parameters", "MFLOP", "a run", "done")


@dataclasses.dataclass(frozen=True)
class Pace:
    """What a run takes. work: floating-point operations per second, fixed: seconds beside them. told: where from."""

    work: float
    fixed: float
    told: str


# From a point to (seconds of one of its updates, of a start until the first one).
Measure = Callable[[Point], tuple[float, float]]


def work_of(models: Models, point: Point) -> float:
    """Returns the floating-point operations of a run: of its updates and evaluations."""
    trained, judged = models.images(point)
    return float(models.cost(point).flops) * (TRAINING * trained + judged)


def finished_seconds(run: Path) -> tuple[float, float] | None:
    """Returns (seconds of updates and evaluations, of all else) of a finished run; None where there is none."""
    if not (run / RESULT_FILE).exists():
        return None
    account = read_run(run).get(0)
    if account is None:
        return None
    work = sum(account.seconds[name] for name in (STEP, "input", "evaluation"))
    return work, max(account.wall - work - account.seconds[DOWN] - account.seconds[LOST], 0.0)


def finished(plan: Plan, folder: Path, point: Point) -> list[tuple[float, float]]:
    """Returns `finished_seconds` of the finished runs of a point."""
    runs = (finished_seconds(workdir(folder, point.name, seed)) for seed in plan.seeds)
    return [seconds for seconds in runs if seconds]


def find_pace(plan: Plan, models: Models, folder: Path, points: Sequence[Point], measure: Measure) -> Pace:
    """Returns the pace of finished runs; where there are none, of some updates of the point in the middle."""
    done = [(work_of(models, point), *each) for point in points for each in finished(plan, folder, point)]
    if done:
        rate = sum(work for work, _, _ in done) / max(sum(busy for _, busy, _ in done), 1e-9)
        fixed = statistics.fmean(rest for _, _, rest in done)
        return Pace(rate, fixed, f"times are those of {len(done)} finished runs of this study, scaled by arithmetic")
    middle = sorted(points, key=lambda point: work_of(models, point))[len(points) // 2]
    seconds, fixed = measure(middle)
    work = float(models.cost(middle).flops) * TRAINING * plan.config(middle).batch_size
    return Pace(work / seconds, fixed, f"times are from updates of {middle.name} measured here, scaled by arithmetic")


def measured(plan: Plan, models: Models, point: Point) -> tuple[float, float]:
    """Runs a few updates of a point on made-up images; returns (seconds of an update, of a start until the first one).

    Raises UserError where it does not fit this machine.
    """
    from convmixer_jax.planning.planner import plan_local  # late: it compiles

    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import convmixer_jax.training.runner"], env=environment(), check=True)
    starting = time.monotonic() - began
    config = plan.config(point)
    request = plan_local(config, models.dataset(config), measure=True, tell=lambda line: None)["request"]
    if "seconds" not in request:
        raise UserError(f"{plan.file}: {point.name} does not fit the memory of this machine: choose another --scale")
    return request["seconds"], starting + request["compile_seconds"]


def state_of(run: Path) -> str:
    """Returns how far a run is: its score, failed, pruned, begun; "-" where there is nothing."""
    result = read_json(run / RESULT_FILE)
    if result is not None and isinstance(result.get("top1"), float):
        return f"{result['top1']:.4f}"
    ended = read_json(run / TRIAL_FILE)
    if ended is not None:
        return str(ended.get("state"))
    return BEGUN if (run / CONFIG_FILE).exists() else NOTHING


def all_points(plan: Plan, folder: Path) -> list[Point]:
    """Returns the points that are known: of the plan, and those that a search has asked for already."""
    points = {point.name: point for point in plan.points}
    asked = read_study(folder).get("points", []) if plan.study.searches else []
    for record in asked:
        point = make_point(plan.study, decoded(record["parameters"]), record["name"])
        points.setdefault(point.name, point)
    return list(points.values())


def list_runs(plan: Plan, models: Models, folder: Path, measure: Measure) -> Iterator[str]:
    """Yields the lines of the list. measure: times updates where nothing of the study is finished."""
    points = all_points(plan, folder)
    if not points:
        yield f"{plan.study.name}: {plan.study.sampler} will choose {plan.trials} points, none is known before"
        return
    pace = find_pace(plan, models, folder, points, measure)
    rows, left = [], 0.0
    for point in points:
        cost = models.cost(point)
        own = [sum(each) for each in finished(plan, folder, point)]
        seconds = statistics.fmean(own) if own else work_of(models, point) / pace.work + pace.fixed
        states = [state_of(workdir(folder, point.name, seed)) for seed in plan.seeds]
        left += seconds * sum(state in (NOTHING, BEGUN, FAILED) for state in states)
        rows.append((point.name, f"{cost.params:,}", f"{cost.flops / 1e6:,.1f}", duration(seconds), " ".join(states)))
    yield from table([HEADS, *rows])
    yield f"seeds {', '.join(map(str, plan.seeds))}; MFLOP: of a forward pass of one image; {pace.told}"
    unknown = plan.trials - len(points) if plan.study.searches else 0
    if unknown > 0:
        mean = statistics.fmean(work_of(models, point) / pace.work + pace.fixed for point in points)
        left += unknown * len(plan.seeds) * mean
        yield f"and {unknown} points that {plan.study.sampler} chooses, counted as the mean of those above"
    yield f"{duration(left)} left, one run after the other, in {folder}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields lines of columns; numbers, all but the first and last, are at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *middle, last in rows:
        numbers = (text.rjust(width) for text, width in zip(middle, widths[1:-1], strict=True))
        yield "  ".join([first.ljust(widths[0]), *numbers, last]).rstrip()
