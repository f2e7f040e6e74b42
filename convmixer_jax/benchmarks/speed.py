"""Images per second of a run's programs, beside PyTorch's where asked for, with what they cost and can reach.

    measured = measure_step(config, settings)          # {"step_images_per_sec": ..., "rows": [...], ...}

Every side has a process of its own, and all are timed in turn: a machine that is busy for a while slows all of them.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from convmixer_jax.benchmarks.ours import FixedBatch, build_eval, build_product, build_step, build_train
from convmixer_jax.benchmarks.torch_side import MODES, build_torch, check_comparable
from convmixer_jax.benchmarks.workers import Build, UnavailableError, Worker
from convmixer_jax.config import to_plain
from convmixer_jax.errors import UserError, lookup
from convmixer_jax.measuring.machine import describe_processor
from convmixer_jax.measuring.timing import measure_together


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure. allocator, call_seconds: see Worker. against: "torch" or None; modes: rows of MODES, empty = all.

    ready_seconds: the longest that a side may take to be compiled and warm; None for no limit.
    """

    repetitions: int
    call_seconds: float
    allocator: str
    fixed: FixedBatch
    against: str | None
    modes: Sequence[str]
    ready_seconds: float | None


class Sides:
    """The processes of one comparison; a `with` block ends them.

    workers: the sides that are available, by name. rows: by name, {name, note} of a side that is not, and of the
    others, after `measure`, {name, images_per_sec, quartiles, images_per_call, host_peak_bytes, device_peak_bytes,
    **facts}.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.workers: dict[str, Worker] = {}
        self.required: set[str] = set()
        self.rows: dict[str, dict[str, Any]] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> "Sides":
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def add(self, name: str, build: Build, *arguments: Any, required: bool = True) -> dict[str, Any]:
        """Starts a side, waits until it is ready and returns its facts.

        Raises UserError where a required one is not available; one that is not has a row with a note instead.
        """
        self.rows[name] = {"name": name}  # in the order in which they were asked for
        worker = Worker(
            name, build, arguments, allocator=self.settings.allocator, call_seconds=self.settings.call_seconds
        )
        self._cleanup.callback(worker.close)
        self.workers[name] = worker
        if required:
            self.required.add(name)
        self.ask(name, lambda worker: worker.wait_until_ready(self.settings.ready_seconds))
        return worker.facts if name in self.workers else {}

    def ask(self, name: str, question: Callable[[Worker], Any]) -> Any:
        """Returns what an available side answers; None of one that is not, or not any more after this.

        Raises UserError where it was required. A side that is lost gets its note, and its process is ended: it might
        compile for minutes yet while the others are timed.
        """
        if name not in self.workers:
            return None
        try:
            return question(self.workers[name])
        except UnavailableError as error:
            self.workers.pop(name).close()
            if name in self.required:
                raise UserError(f"{name}: {error}") from error
            self.rows[name]["note"] = str(error)
            return None

    def measure(self) -> None:
        """Times the sides in turn and fills `rows`; what is lost meanwhile has a note."""
        calls = {name: functools.partial(self.ask, name, lambda worker: worker.call()) for name in self.workers}
        timings = measure_together(calls, self.settings.repetitions)
        for name, worker in list(self.workers.items()):
            peaks = self.ask(name, lambda worker: worker.peaks())
            if peaks is None:
                continue
            self.rows[name] |= {
                "images_per_sec": timings[name].rate(worker.images),
                "quartiles": timings[name].rate_quartiles(worker.images),
                "images_per_call": worker.images,
                "host_peak_bytes": peaks["host"],
                "device_peak_bytes": peaks["device"],
                **worker.facts,
            }


def finished(benchmark: str, config: ConfigDict, sides: Sides, **more: Any) -> dict[str, Any]:
    """Returns the one object of a benchmark; the first row is ours."""
    ours, *_ = sides.rows.values()
    where = ours.pop("provenance")
    headline = {name: ours[name] for name in ("images_per_sec", "quartiles")}
    return {
        "benchmark": benchmark,
        **{f"{benchmark}_{name}": value for name, value in headline.items()},
        **more,
        "rows": list(sides.rows.values()),
        "settings": dataclasses.asdict(sides.settings),
        "config": to_plain(config),
        "machine": describe_processor() | where,
    }


def take_product(sides: Sides) -> float:
    """Returns the FLOP/s of the matrix product on one device, whose row is taken out; adds each side's share of it."""
    product = sides.rows.pop("product")
    reached: float = product["images_per_sec"] * product["flops"]
    ours, *_ = sides.rows.values()
    for row in sides.rows.values():
        if "images_per_sec" in row and row["dtype"] == ours["dtype"]:
            row["share_of_product"] = row["images_per_sec"] * ours["flops_per_image"] / (reached * ours["devices"])
    return reached


def compare(sides: Sides) -> dict[str, Any] | None:
    """Returns {fastest, ratio}: ours over the fastest other side of our dtype; None where there is none.

    Every row of that dtype gets its ratio.
    """
    ours, *others = sides.rows.values()
    same = [row for row in others if row.get("dtype") == ours["dtype"]]
    for row in same:
        row["ratio"] = ours["images_per_sec"] / row["images_per_sec"]
    if not same:
        return None
    fastest = min(same, key=lambda row: row["ratio"])
    return {"fastest": fastest["name"], "ratio": fastest["ratio"]}


def measure_program(benchmark: str, config: ConfigDict, settings: Settings, build: Build) -> dict[str, Any]:
    """Returns the measured program of `build` on a fixed batch, beside PyTorch where settings.against says so."""
    if settings.modes and not settings.against:
        raise UserError(f"--modes is {' '.join(settings.modes)}: these are PyTorch's; add --against torch")
    modes = (settings.modes or list(MODES)) if settings.against else []
    if settings.against:
        check_comparable(config)
    for mode in modes:
        lookup(MODES, mode, "--modes")  # before anything is built
    with Sides(settings) as sides:
        facts = sides.add("ours", build, config, settings.fixed)
        if settings.against and facts["devices"] > 1:
            raise UserError(
                f"config.devices is {config.devices}, which is {facts['devices']} here: --against torch compares one "
                "device; set --config.devices=1"
            )
        training = benchmark == "step"
        for mode in modes:
            given = (config, settings.fixed, mode, training, facts["platform"])
            sides.add(f"torch {mode}", build_torch, *given, required=False)
        sides.add("product", build_product, config.dtype)
        sides.measure()
        rest = {"product_flops_per_sec": take_product(sides), "against": compare(sides)}
        ours = sides.rows["ours"]
        return finished(benchmark, config, sides, flops_per_image=ours["flops_per_image"], **rest)


def measure_step(config: ConfigDict, settings: Settings) -> dict[str, Any]:
    """Returns images per second of the update on a fixed batch."""
    return measure_program("step", config, settings, build_step)


def measure_eval(config: ConfigDict, settings: Settings) -> dict[str, Any]:
    """Returns images per second of the evaluation of a fixed batch; one pass each, without mirror images."""
    config = config.copy_and_resolve_references()
    config.eval_flip = False
    return measure_program("eval", config, settings, build_eval)


def measure_train(config: ConfigDict, settings: Settings) -> dict[str, Any]:
    """Returns images per second of the whole train step, and its ratio to the update alone, timed in turn."""
    with Sides(settings) as sides:
        sides.add("train", build_train, config)
        sides.add("step", build_step, config, settings.fixed)
        sides.add("product", build_product, config.dtype)
        sides.measure()
        rest: dict[str, Any] = {"product_flops_per_sec": take_product(sides)}
        train, step = sides.rows.values()
        step.pop("provenance")
        rest |= {"train_over_step": train["images_per_sec"] / step["images_per_sec"]}
        return finished("train", config, sides, flops_per_image=train["flops_per_image"], **rest)
