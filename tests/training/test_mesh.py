"""The threads that devices of a mesh have: several virtual ones on a CPU must not wait for each other's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.training.mesh import over_data, replicated, thread_limit


@pytest.mark.parametrize("devices, cores, alone", [(1, 1, False), (2, 1, True), (2, 2, True), (2, 3, False)])
def test_a_device_has_one_thread_where_there_is_one_for_each_core(mesh, devices, cores, alone):
    options = thread_limit(mesh(devices), cores)
    assert options == ({"xla_cpu_multi_thread_eigen": False} if alone else {})


def test_the_compiler_takes_them(mesh):
    two = mesh(2)
    total = jax.jit(jnp.sum, out_shardings=replicated(two), compiler_options=thread_limit(two, 2))
    assert total(jax.device_put(np.arange(6.0), over_data(two))) == 15
