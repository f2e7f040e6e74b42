"""What every test shares: eight virtual CPU devices, set before JAX starts."""

from collections.abc import Callable

import jax
import pytest
from jax.sharding import Mesh

from convmixer_jax.training.mesh import make_mesh

# Only the CPU backend can pretend to be several devices, and tolerances are those of its arithmetic.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def mesh() -> Callable[[int], Mesh]:
    """Returns a function of n to a mesh over the first n devices."""
    return make_mesh
