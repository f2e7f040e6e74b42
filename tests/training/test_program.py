"""The program is compiled beside the reading of the data, unless that has failed by then."""

import concurrent.futures
import threading
import types

import jax
import jax.numpy as jnp
import pytest

from convmixer_jax.training import program
from convmixer_jax.training.capacity import Request
from convmixer_jax.training.program import start_compiling

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
