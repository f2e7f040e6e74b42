"""The table of learning-rate schedules.

    schedule = make_schedule("triangle", ScheduleSettings(learning_rate=0.05, epochs=25, steps_per_epoch=97))
    rate = schedule(step)     # for the update that turns state `step` into state `step + 1`

A schedule is traced inside the compiled step. To add one, write a function of ScheduleSettings and give it a row in
SCHEDULES.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from convmixer_jax.errors import UserError, lookup

Schedule = Callable[[jax.Array | int], jax.Array | float]


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
    """learning_rate: the peak. `cosine` alone reads warmup_epochs, final_learning_rate, `triangle` offset_epochs."""

    learning_rate: float
    epochs: int
    steps_per_epoch: int
    warmup_epochs: float = 0.0
    final_learning_rate: float = 0.0
    offset_epochs: float = 0.0

    @property
    def total_steps(self) -> int:
        """Updates in the whole run."""
        return self.epochs * self.steps_per_epoch


def piecewise_linear(position: jax.Array | float, knots: Sequence[float], values: Sequence[float]) -> jax.Array:
    """Interpolates as numpy.interp does; knots may coincide, then the last of them counts from there on."""
    wide = jnp.result_type(float)
    return jnp.interp(jnp.asarray(position, wide), jnp.asarray(knots, wide), jnp.asarray(values, wide))


def triangle(settings: ScheduleSettings) -> Schedule:
    """The authors' schedule: 0, peak at 2/5 of the epochs, peak/20 at 4/5, 0 at the end, linear between.

    The knots are whole epochs (integer division), and an update is rated at the fraction of epochs that are done
    after it: the very last one has rate 0. From the published code of the paper, not torch's OneCycleLR. With
    offset_epochs it is so many epochs ahead, and 0 once it has passed its end.
    """
    epochs, peak = settings.epochs, settings.learning_rate
    if settings.offset_epochs >= epochs:
        raise UserError(
            f"config.schedule.offset_epochs is {settings.offset_epochs}: it must be below config.epochs, which is "
            f"{epochs}"
        )
    knots = [0, epochs * 2 // 5, epochs * 4 // 5, epochs]

    def schedule(step: jax.Array | int) -> jax.Array:
        epochs_done = settings.offset_epochs + (jnp.asarray(step) + 1) / settings.steps_per_epoch
        return piecewise_linear(epochs_done, knots, [0, peak, peak / 20, 0])

    return schedule


def slanted_triangle(settings: ScheduleSettings, cut: float = 0.1, ratio: float = 32) -> Schedule:
    """Peak/32, up to the peak after a tenth of the updates, back to peak/32: ULMFiT, arXiv 1801.06146, section 3.2.

    The end is reached at the last update (the paper's formula would reach it one later).
    """
    last, peak = max(settings.total_steps - 1, 1), settings.learning_rate
    top = min(max(int(settings.total_steps * cut), 1), last)

    def schedule(step: jax.Array | int) -> jax.Array:
        return piecewise_linear(step, [0, top, last], [peak / ratio, peak, peak / ratio])

    return schedule


def one_cycle(settings: ScheduleSettings) -> Schedule:
    """torch.optim.lr_scheduler.OneCycleLR with its defaults: peak/25, peak at 3/10, peak/25e4, cosines between."""
    last, peak = settings.total_steps - 1, settings.learning_rate
    top = 0.3 * settings.total_steps - 1  # torch's; before the first update in runs of up to three, and never 0

    def cosine(start: float, end: float, position: jax.Array) -> jax.Array:
        return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * position))

    def schedule(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step, jnp.result_type(float))
        falling = cosine(peak, peak / 25e4, (step - top) / (last - top))
        return jnp.where(step <= top, cosine(peak / 25, peak, step / top), falling)

    return schedule


def cosine(settings: ScheduleSettings) -> Schedule:
    """Linear from 0 over warmup_epochs, then half a cosine down to final_learning_rate at the last update."""
    warmup = round(settings.warmup_epochs * settings.steps_per_epoch)
    if warmup >= settings.total_steps:
        raise UserError(
            f"config.schedule.warmup_epochs is {settings.warmup_epochs}: it must be below config.epochs, "
            f"which is {settings.epochs}"
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=settings.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(settings.total_steps - 1, warmup + 1),
        end_value=settings.final_learning_rate,
    )


def constant(settings: ScheduleSettings) -> Schedule:
    """The peak, always."""
    return optax.constant_schedule(settings.learning_rate)


SCHEDULES: dict[str, Callable[[ScheduleSettings], Schedule]] = {
    "triangle": triangle,
    "slanted_triangle": slanted_triangle,
    "one_cycle": one_cycle,
    "cosine": cosine,
    "constant": constant,
}


def make_schedule(name: str, settings: ScheduleSettings) -> Schedule:
    """Returns the schedule; raises UserError for a name that is not in SCHEDULES."""
    return lookup(SCHEDULES, name, "config.schedule.name")(settings)
