"""Whether an update fits into the memory that there is, and what would where it does not.

    need = program_need(compiled)
    check_fits(need, limit, request)         # raises UserError
    with update_mistakes(request): loop.run()
    with loading_mistakes(input_name): load_inputs(...)
    with evaluation_mistakes(eval_batch_size, input_name): evaluate(...)

Estimates follow from the compiled program's own count: its temporaries grow with the examples that a device has at a
time, so half of them take about half.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import jax

from convmixer_jax.data.inputs import STREAM
from convmixer_jax.errors import UserError
from convmixer_jax.runs.memory import gigabytes, is_out_of_memory

SMALLER_MODEL = "a smaller config.model.dim or depth"


@dataclasses.dataclass(frozen=True)
class Need:
    """Bytes on each device: `held` by state, data and results throughout, `temporary` while a dispatch runs."""

    held: int
    temporary: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.held + self.temporary


@dataclasses.dataclass(frozen=True)
class Request:
    """What the config asks for, as far as it decides on memory.

    per_device: examples of a batch that each device has. data_bytes: of the training data that each device holds
    throughout; 0 where they are streamed. params_bytes: of all parameters. depth: blocks. map_bytes: of one map of a
    block for one example. remat: whether it is on; None where the platform saves nothing by it.
    """

    batch_size: int
    accumulate_steps: int
    per_device: int
    data_bytes: int
    depth: int
    params_bytes: int
    map_bytes: int
    remat: bool | None

    @property
    def at_a_time(self) -> int:
        """Examples that each device has in a pass."""
        return self.per_device // self.accumulate_steps

    @property
    def even_parts(self) -> int:
        """The largest power of two that divides `at_a_time`."""
        return self.at_a_time & -self.at_a_time

    def smaller_batch(self, parts: int) -> int:
        """Returns the batch size for about one of so many parts of the examples in a pass; the devices can share it."""
        examples = self.at_a_time // parts
        if examples > 1:
            examples -= examples % 2  # mixing pairs them
        return self.batch_size // self.per_device * self.accumulate_steps * examples


def program_need(program: jax.stages.Compiled) -> Need | None:
    """Returns what a compiled program needs; None where the platform does not tell."""
    found = program.memory_analysis()
    if found is None:
        return None
    # Results that are written over arguments were counted twice.
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return Need(held, found.temp_size_in_bytes)


def fitting_parts(need: Need, limit: int, most: int, extra: int) -> int | None:
    """Returns into how many parts, a power of two, a device's examples must go for about `limit` bytes; None: no way.

    most: parts that they can go into. extra: bytes that come with having parts.
    """
    parts = 2
    while parts <= most:
        if need.held + extra + need.temporary // parts <= limit:
            return parts
        parts *= 2
    return None


def recomputed_bytes(need: Need, request: Request) -> int:
    """Returns about what the temporaries take with config.model.remat: a map per block, and all maps of one block."""
    maps = request.map_bytes * request.at_a_time
    per_block = need.temporary / request.depth
    return int(request.depth * maps + per_block)


def ways_out(need: Need, limit: int, request: Request) -> list[str]:
    """Returns the changes of fields that would make the update fit, about; data are streamed only where that helps."""
    ways = smaller_updates(need, limit, request)
    if not request.data_bytes:
        return ways
    streamed = dataclasses.replace(need, held=need.held - request.data_bytes)
    if streamed.total <= limit:
        return [*ways, f"config.input={STREAM}"]
    return ways or [f"config.input={STREAM} with {way}" for way in smaller_updates(streamed, limit, request)]


def smaller_updates(need: Need, limit: int, request: Request) -> list[str]:
    """Returns the changes of a field with which the temporaries would leave enough to what is held, about."""
    ways = []
    smaller = fitting_parts(need, limit, request.at_a_time, extra=0)
    if smaller:
        ways.append(f"config.batch_size={request.smaller_batch(smaller)}")
    more = fitting_parts(need, limit, request.even_parts, extra=request.params_bytes)
    if more:
        ways.append(f"config.accumulate_steps={request.accumulate_steps * more}")
    if request.remat is False and need.held + recomputed_bytes(need, request) <= limit:
        ways.append("config.model.remat=True")
    return ways


def check_fits(need: Need, limit: int | None, request: Request) -> None:
    """Raises UserError where an update needs more than `limit` bytes, None for unknown, on each device."""
    if limit is None or need.total <= limit:
        return
    ways = ways_out(need, limit, request)
    way_out = f"about what would fit: {' or '.join(ways)}" if ways else f"{SMALLER_MODEL} may fit"
    data = f", {gigabytes(request.data_bytes)} of it training data," if request.data_bytes else ""
    raise UserError(
        f"config.batch_size is {request.batch_size}: an update needs {gigabytes(need.total)} on each device{data} and "
        f"there are {gigabytes(limit)}; {way_out}"
    )


@contextlib.contextmanager
def memory_mistakes(subject: str, ways: Sequence[str]) -> Iterator[None]:
    """Turns an out-of-memory error into a UserError that begins with `subject` and ends with the `ways` out."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        first, *_ = str(error).splitlines() or ["MemoryError"]
        raise UserError(f"{subject}: there is not enough memory ({first[:200]}); try {' or '.join(ways)}") from error


def update_mistakes(request: Request) -> AbstractContextManager[None]:
    """Turns an out-of-memory error of updates, or of their state, into a UserError."""
    ways = []
    if request.at_a_time > 1:
        ways.append(f"config.batch_size={request.smaller_batch(2)}")
    if request.even_parts > 1:
        ways.append(f"config.accumulate_steps={2 * request.accumulate_steps}")
    if request.remat is False:
        ways.append("config.model.remat=True")
    return memory_mistakes(f"config.batch_size is {request.batch_size}", ways or [SMALLER_MODEL])


def loading_mistakes(input_path: str) -> AbstractContextManager[None]:
    """Turns an out-of-memory error of what reads the data and puts them onto the devices into a UserError."""
    ways = ["a machine with more memory"] if input_path == STREAM else [f"config.input={STREAM}"]
    return memory_mistakes(f"config.input is {input_path!r}", ways)


def evaluation_mistakes(eval_batch_size: int, input_path: str) -> AbstractContextManager[None]:
    """Turns an out-of-memory error of an evaluation, over all devices in batches of so many, into a UserError."""
    ways = [f"config.eval_batch_size={eval_batch_size // 2}"] if eval_batch_size > 1 else []
    if input_path != STREAM:
        ways.append(f"config.input={STREAM}")
    subject = f"config.eval_batch_size is, in effect, {eval_batch_size}"
    return memory_mistakes(subject, ways or ["a machine with more memory"])
