"""Class-activation maps are the head's weights times the last map, and say so where that is not all of it."""

import jax
import numpy as np
import pytest

from convmixer_jax.inference.activation_maps import make_activation_maps
from convmixer_jax.inference.description import build
from convmixer_jax.inference.layers import last_map, trace_layers
from tests.inference.random_weights import random_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

IMAGES = np.random.default_rng(1).normal(size=(3, 8, 8, 1)).astype(np.float32)


def maps_and_layers(**model):
    """Returns the maps of IMAGES, the last map itself as flax records it, the logits, and the variables in float64."""
    description, variables = random_weights(**model)
    network = build(description, "reference")
    last = last_map(trace_layers(network, variables, description.image_shape))
    assert last is not None
    apply = jax.jit(lambda variables: network.apply(variables, IMAGES, train=False, capture_intermediates=True))
    logits, recorded = apply(variables)
    seen = recorded["intermediates"][last.path[0]]["__call__"][0]
    maps = make_activation_maps(network, last)(variables, IMAGES)
    return maps, np.float64(seen), np.float64(logits), variables


def check_logits(maps, logits):
    """The predicted class, its logit and probability are those of the model."""
    np.testing.assert_array_equal(maps.label, logits.argmax(axis=1))
    np.testing.assert_allclose(maps.logit, logits.max(axis=1), rtol=1e-6)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(maps.probability, 1 / shares.sum(axis=1), rtol=1e-5)


def check_evidence(maps, seen, kernel, constant):
    """The evidence is kernel [C, classes] times the map; with the constant [classes] its mean is the logit."""
    expected = np.einsum("nhwc,cn->nhw", seen, kernel[:, maps.label])
    # Each is a sum of C products in float32: rounded to within C units in the last place of their absolute sum.
    bound = seen.shape[-1] * np.finfo(np.float32).eps * np.einsum("nhwc,cn->nhw", abs(seen), abs(kernel[:, maps.label]))
    assert (np.abs(maps.evidence - expected) <= bound).all()
    np.testing.assert_allclose(expected.mean(axis=(1, 2)) + constant[maps.label], maps.logit, atol=1e-4)
    assert maps.exact


def test_a_linear_head():
    maps, seen, logits, variables = maps_and_layers()
    head = variables["params"]["head"]
    check_logits(maps, logits)
    check_evidence(maps, seen, np.float64(head["kernel"]), np.float64(head["bias"]))


def test_a_norm_before_a_linear_head_is_linear_in_evaluation():
    maps, seen, logits, variables = maps_and_layers(head="bn_dropout")
    head, norm = variables["params"]["head"], variables["params"]["head_norm"]
    statistics = {name: np.float64(array) for name, array in variables["batch_stats"]["head_norm"].items()}
    factor = np.float64(norm["scale"]) / np.sqrt(statistics["var"] + 1e-5)
    kernel = factor[:, None] * np.float64(head["kernel"])
    shift = np.float64(norm["bias"]) - statistics["mean"] * factor
    check_logits(maps, logits)
    check_evidence(maps, seen, kernel, shift @ np.float64(head["kernel"]) + np.float64(head["bias"]))


@pytest.mark.parametrize("model", [{"head": "representation"}, {"variant": "cnn"}], ids=["representation", "cnn"])
def test_a_head_that_is_not_linear_is_told(model):
    maps, _, logits, _ = maps_and_layers(**model)
    check_logits(maps, logits)
    assert not maps.exact
    assert np.isfinite(maps.evidence).all()
