"""Whether an update fits into the memory that there is, and what would where it does not.

    need = program_need(compiled)
    check_fits(need, limit, request)         # raises UserError
    with memory_mistakes(request): loop.run()

Estimates follow from the compiled program's own count: its temporaries grow with the examples that a device has at a
time, so half of them take about half.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

from convmixer_jax.errors import UserError
from convmixer_jax.runs.memory import gigabytes

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


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

    per_device: examples of a batch that each device has. params_bytes: of all parameters. depth: blocks. map_bytes: of
    one map of a block for one example. remat: whether it is on; None where the platform saves nothing by it.
    """

    batch_size: int
    accumulate_steps: int
    per_device: int
    depth: int
    params_bytes: int
    map_bytes: int
    remat: bool | None


def program_need(program: jax.stages.Compiled) -> Need | None:
    """Returns what a compiled program needs; None where the platform does not tell."""
    found = program.memory_analysis()
    if found is None:
        return None
    # Results that are written over arguments were counted twice.
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return Need(held, found.temp_size_in_bytes)


def fitting_parts(need: Need, limit: int, request: Request, extra: int) -> int | None:
    """Returns into how many parts, a power of two, a device's examples must go for about `limit` bytes; None: no way.

    extra: bytes that come with having parts.
    """
    examples = request.per_device // request.accumulate_steps
    parts = 2
    while examples % parts == 0:
        if need.held + extra + need.temporary // parts <= limit:
            return parts
        parts *= 2
    return None


def recomputed_bytes(need: Need, request: Request) -> int:
    """Returns about what the temporaries take with config.model.remat: a map per block, and all maps of one block."""
    maps = request.map_bytes * request.per_device // request.accumulate_steps
    per_block = need.temporary / request.depth
    return int(request.depth * maps + per_block)


def ways_out(need: Need, limit: int, request: Request) -> list[str]:
    """Returns the changes of a field that would make the update fit, about."""
    ways = []
    smaller = fitting_parts(need, limit, request, extra=0)
    if smaller:
        ways.append(f"config.batch_size={request.batch_size // smaller}")
    more = fitting_parts(need, limit, request, extra=request.params_bytes)
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
    way_out = f"about what would fit: {' or '.join(ways)}" if ways else "a smaller config.model.dim or depth may fit"
    raise UserError(
        f"config.batch_size is {request.batch_size}: an update needs {gigabytes(need.total)} on each device and "
        f"there are {gigabytes(limit)}; {way_out}"
    )


@contextlib.contextmanager
def memory_mistakes(request: Request) -> Iterator[None]:
    """Turns the runtime's out-of-memory error into a UserError."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        ways = [f"config.accumulate_steps={2 * request.accumulate_steps}"]
        if request.batch_size > 1:
            ways.insert(0, f"config.batch_size={request.batch_size // 2}")
        if request.remat is False:
            ways.append("config.model.remat=True")
        raise UserError(
            f"config.batch_size is {request.batch_size}: the devices have not enough memory "
            f"({str(error).splitlines()[0][:200]}); try {' or '.join(ways)}"
        ) from error
