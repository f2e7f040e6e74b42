"""The program is compiled beside the reading of the data, unless that has failed by then; which operations it has."""

import concurrent.futures
import threading
import types

import jax
import jax.numpy as jnp
import pytest

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.training import program
from convmixer_jax.training.capacity import Need, Request
from convmixer_jax.training.mesh import make_mesh
from convmixer_jax.training.program import name_operations, start_compiling
from tests.config_values import base_with
from tests.ops.plain import NEEDS_COMPILER

REQUEST = Request(
    batch_size=4, accumulate_steps=1, per_device=4, data_bytes=0, depth=1, params_bytes=4, map_bytes=4, remat=None
)


@pytest.fixture
def experiment(monkeypatch):
    """A dispatch that doubles 4 numbers, held up while it is lowered until `may_lower` is set."""
    may_lower = threading.Event()

    def lower(values):
        assert may_lower.wait(60)
        return jax.jit(lambda x: 2 * x).lower(values)

    monkeypatch.setattr(program, "abstract_arguments", lambda experiment: (jnp.ones(4),))
    return types.SimpleNamespace(dispatch=types.SimpleNamespace(lower=lower), may_lower=may_lower)


def test_what_is_compiled_runs_and_is_told(experiment):
    experiment.may_lower.set()
    with start_compiling(experiment, 10_000_000, REQUEST) as compiling:
        compiled, told = compiling.result()
    assert compiled(jnp.arange(4.0)).tolist() == [0, 2, 4, 6]
    # 16 bytes in and 16 out.
    assert told.endswith("memory on each device: 0.00 GB of 0.01 GB, 0.00 GB state and data, 0.00 GB temporaries")


def test_nothing_is_compiled_where_the_data_have_failed(experiment):
    with pytest.raises(OSError, match="no data"), start_compiling(experiment, None, REQUEST) as compiling:
        raise OSError("no data")
    assert not compiling.done()  # nobody waited for it
    experiment.may_lower.set()
    with pytest.raises(concurrent.futures.CancelledError):
        compiling.result(60)


# Fields beside model.ops = native, devices, and what follows the name.
NAMED = [
    ({"batch_size": 16}, 1, ""),
    ({"batch_size": 64, "model.bn_group_size": 32}, 2, ""),
    ({"model.kernel_size": 10}, 1, None),
    ({"batch_size": 8}, 1, "8 examples on a device fill 50% of blocks of 16, less than 75%"),
    ({"batch_size": 32, "accumulate_steps": 4}, 1, "8 examples on a device fill 50% of blocks of 16, less than 75%"),
    ({"batch_size": 64}, 2, "BatchNorm's statistics are of several devices"),
    ({"batch_size": 64, "model.bn_group_size": 16}, 1, "BatchNorm's statistics are of parts of a device's batch"),
]


@NEEDS_COMPILER
@pytest.mark.parametrize("fields, devices, why", NAMED)
def test_operations_that_leave_something_to_others_say_so(fields, devices, why):
    config = base_with(**{"model.ops": "native"} | fields)
    named = name_operations(
        types.SimpleNamespace(config=config, dataset=DATASETS["cifar10"], mesh=make_mesh(devices))  # all that it reads
    )
    if why is None:  # it cannot at all
        assert named == "channel_major (native: a 10x10 kernel is larger than 9x9)"
    else:
        assert named == (f"native (computes as channel_major: {why})" if why else "native")


# Bytes available and devices, and what a dispatch of 1000 bytes of temporaries on each may hold beside what is there.
KEPT = [(None, 1, 4000), (None, 2, 8000), (10_000, 1, 4000), (4000, 1, 3000), (4000, 8, 3000)]


@pytest.mark.parametrize("available, devices, more", KEPT)
def test_freed_memory_is_kept_as_far_as_there_is_room(monkeypatch, available, devices, more):
    monkeypatch.setattr(program, "program_need", lambda compiled: Need(held=10, temporary=1000))
    monkeypatch.setattr(program, "SMALL_BYTES", 0)
    monkeypatch.setattr(program, "host_resident_bytes", lambda: 500)
    monkeypatch.setattr(program, "host_available_bytes", lambda: available)
    monkeypatch.setattr(program, "KeptMemory", lambda allowed: allowed)
    assert program.kept_memory(types.SimpleNamespace(mesh=make_mesh(devices)), None) == 500 + more
