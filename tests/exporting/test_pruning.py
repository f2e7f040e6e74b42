"""The smallest weights of all kernels go, as many as are asked for, and nothing else."""

import jax
import numpy as np

from convmixer_jax.exporting.pruning import pruned
from tests.exporting.models import small_weights

PARAMS = {
    "a": {"kernel": np.array([[4.0, -1.0], [0.5, 3.0]], np.float32), "bias": np.array([0.1, 0.2], np.float32)},
    "b": {"kernel": np.array([-2.0, 0.25], np.float32), "scale": np.array([0.01], np.float32)},
}


def test_the_smallest_of_all_kernels_together_go():
    found = pruned(PARAMS, 0.5)
    np.testing.assert_array_equal(found["a"]["kernel"], [[4, 0], [0, 3]])
    np.testing.assert_array_equal(found["b"]["kernel"], [-2, 0])
    assert PARAMS["b"]["kernel"][1] == 0.25  # what was given stays


def test_biases_and_norms_stay():
    found = pruned(PARAMS, 0.9)
    np.testing.assert_array_equal(found["a"]["bias"], PARAMS["a"]["bias"])
    np.testing.assert_array_equal(found["b"]["scale"], PARAMS["b"]["scale"])


def test_none_is_exact_and_half_is_half():
    params = small_weights("even kernel").variables["params"]
    jax.tree.map(np.testing.assert_array_equal, pruned(params, 0.0), params)
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(pruned(params, 0.5)) if "kernel" in str(path)]
    size = sum(kernel.size for kernel in kernels)
    assert sum(int((kernel == 0).sum()) for kernel in kernels) == round(size / 2)


def test_of_equal_weights_exactly_as_many_go():
    found = pruned({"a": {"kernel": np.ones((5, 2), np.float32)}}, 0.3)
    assert found["a"]["kernel"].sum() == 7
