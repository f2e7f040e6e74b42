"""Each operation of JAX, alone and with a scale and a shift before it, as ONNX computes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from convmixer_jax.errors import UserError
from convmixer_jax.exporting.onnx_file import load_onnx, to_onnx
from convmixer_jax.exporting.steps import trace
from convmixer_jax.exporting.translators import TRANSLATORS

RNG = np.random.default_rng(0)
PER_CHANNEL, FULL = RNG.normal(size=(1, 1, 1, 4)).astype("float32"), RNG.normal(size=(1, 3, 5, 4)).astype("float32")
KERNEL = jnp.asarray(RNG.normal(size=(2, 3, 2, 6)), "float32")
MATRIX = RNG.normal(size=(4, 6)).astype("float32")


def convolution(x):
    """Of an even kernel, with groups, a stride and more padding behind than before."""
    return lax.conv_general_dilated(
        x, KERNEL, (2, 1), ((0, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )


def largest(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 3, 1), (1, 1, 2, 1), ((0, 0), (0, 1), (1, 1), (0, 0)))


# For each row of TRANSLATORS functions of a map [B, 3, 5, 4].
FUNCTIONS = {
    "add": [lambda x: x + FULL, lambda x: x + lax.tanh(x), lambda x: PER_CHANNEL + x],
    "broadcast_in_dim": [lambda x: x * x.mean((1, 2))[:, None, None], lambda x: x - x.sum(3, keepdims=True)],
    "conv_general_dilated": [convolution, lambda x: convolution(lax.tanh(x)) * 2 + 1],
    "convert_element_type": [lambda x: lax.convert_element_type_p.bind(
        x, new_dtype=np.dtype("float32"), weak_type=True, sharding=None)],
    "copy": [lambda x: lax.copy_p.bind(x)],
    "div": [lambda x: x / PER_CHANNEL, lambda x: 1 / (3 + lax.tanh(x)), lambda x: x / FULL],
    "dot_general": [lambda x: x.mean((1, 2)) @ MATRIX, lambda x: jnp.tanh(x.mean((1, 2)) @ MATRIX + 1) @ MATRIX.T],
    "erf": [lax.erf, lambda x: 0.5 * x * (1 + lax.erf(x * np.float32(np.sqrt(0.5)))), lambda x: x * lax.erf(x)],
    "erfc": [lax.erfc, lambda x: jax.nn.gelu(x, approximate=False)],
    "exp": [lax.exp],
    "integer_pow": [lambda x: x**3, lambda x: lax.integer_pow(x, 2)],
    "logistic": [jax.nn.sigmoid],
    "max": [lambda x: jnp.maximum(x, 0), lambda x: jnp.maximum(0.3, x), lambda x: jnp.maximum(x, lax.exp(x - 1))],
    "mul": [lambda x: x * PER_CHANNEL, lambda x: FULL * x, lambda x: x * lax.tanh(x)],
    "neg": [lambda x: -x],
    "reduce_sum": [lambda x: x.sum((1, 2)), lambda x: x.sum(3), lambda x: x.sum((1, 2)).sum(1)],
    "reduce_window_max": [largest, lambda x: largest(-x)],
    "reshape": [
        lambda x: x.reshape(x.shape[0], 60),
        lambda x: x.reshape(x.shape[0], 15, 4),
        lambda x: x.reshape(x.shape[0], 5, 6, 2),
    ],
    "rsqrt": [lambda x: lax.rsqrt(x * x + 1)],
    "sqrt": [lambda x: jnp.sqrt(x * x + 1)],
    "square": [jnp.square],
    "squeeze": [lambda x: lax.squeeze(x.sum((1, 2)).reshape(x.shape[0], 1, 1, 4), (1, 2))],
    "sub": [lambda x: x - FULL, lambda x: 1 - x, lambda x: x - lax.exp(x)],
    "tanh": [lax.tanh],
}  # fmt: skip


def test_every_row_has_its_functions():
    assert FUNCTIONS.keys() == TRANSLATORS.keys()


# As they are, and as a norm leaves them: other scales and shifts, of either sign.
BEFORE = {"plain": lambda x: x, "behind a norm": lambda x: x * PER_CHANNEL[..., ::-1] - 0.7}


def as_rows(values):
    """A file gives [B, n]."""
    return values.reshape(values.shape[0], -1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_computes_the_same(name, tmp_path):
    images = RNG.normal(size=(2, 3, 5, 4)).astype("float32")
    for function in FUNCTIONS[name]:
        for before in BEFORE.values():

            def whole(x, function=function, before=before):
                return as_rows(function(before(x)))

            assert name in {step.primitive for step in trace(whole, (3, 5, 4)).steps}
            path = tmp_path / "model.onnx"
            path.write_bytes(to_onnx(whole, (3, 5, 4), {}).SerializeToString())
            # Values of up to a few hundred after a handful of roundings; exact in structure.
            np.testing.assert_allclose(load_onnx(path)(images), whole(images), rtol=1e-5, atol=1e-5)


def test_gelu_is_one_operation():
    for function in (FUNCTIONS["erf"][1], FUNCTIONS["erfc"][1]):
        graph = to_onnx(lambda x, function=function: as_rows(function(x)), (3, 5, 4), {}).graph
        assert [node.op_type for node in graph.node] == ["Transpose", "Gelu", "Transpose", "Reshape"]


REFUSED = {
    "'sin', which has no row": jnp.sin,
    "'sort'": lambda x: jnp.sort(x, 1),
    "'top_k', which has several results": lambda x: lax.top_k(x, 2)[0],
    "'broadcast_in_dim' to": lambda x: lax.broadcast_in_dim(x.sum((1, 2)), (*x.shape[:1], 7, 4), (0, 2)),
    "'reduce_sum' over the axes (1,)": lambda x: x.sum(1),
    "'dot_general' other than": lambda x: x @ MATRIX,
    "'conv_general_dilated' with other dimensions": lambda x: lax.conv_general_dilated(
        x, KERNEL, (1, 1), ((1, 1), (1, 1)), lhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    ),
    "'dot_general' by what depends": lambda x: lax.dot_general(
        x.sum((1, 2)), x.sum((1, 2)), (((1,), (1,)), ((), ()))
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_lacks_is_named(words):
    with pytest.raises(UserError, match="--format stablehlo") as refused:
        to_onnx(REFUSED[words], (3, 5, 4), {})
    assert words in str(refused.value)
