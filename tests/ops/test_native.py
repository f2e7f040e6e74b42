"""The C++ operations against the formulas in float64, and what happens where they cannot be had.

With NumPy they are compared in test_spatial.py, as users' programs compile them in test_fast_math.py, as a part of
whole models in test_features.py.
"""

import dataclasses
import functools
import os
import stat
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.ops import choice
from convmixer_jax.ops.activations import ACTIVATIONS
from convmixer_jax.ops.choice import choose
from convmixer_jax.ops.native import layout, library
from convmixer_jax.ops.native.layout import LARGEST_KERNEL, Native
from convmixer_jax.ops.native.library import NotCompiledError
from convmixer_jax.ops.sharing import Sharing
from convmixer_jax.ops.spatial import spatial
from tests.ops import plain
from tests.ops.plain import CHANNEL_MAJOR, NATIVE, NEEDS_COMPILER, Case, Order

CHANNELS = 3
CPU = choice.Case("cpu", "float32", 5, (16, 16))
CASES = {
    **{f"k{k}": Case(k, (9, 10), 5, "gelu", True) for k in range(1, LARGEST_KERNEL + 1)},
    "relu": Case(3, (9, 10), 5, "relu", False),
    "one image, one pixel": Case(3, (1, 1), 1, "gelu", False),
    "larger than the map": Case(9, (2, 3), 4, "relu", True),
    "whole vectors": Case(5, (8, 8), 32, "gelu", False),
    "a lane more": Case(4, (7, 17), 65, "gelu", True),
    "a lane less": Case(7, (3, 33), 31, "relu", True),
}


@functools.cache
def computed(name: str, order: Order, dtype: str) -> Any:
    """Returns (y, gradient of v, moments, gradients of the parameters); maps in the layout's order."""
    case, wide = CASES[name], "float64" if dtype == "float64" else "float32"
    v, params, keep, weights = case.arrays(CHANNELS)

    def both(v, params, keep, weights):
        def with_kernel(v, params):
            params = params._replace(kernel=order.layout.kernel(params.kernel))
            return spatial(v, params, None, keep, order.layout, plain.settings(case.activation))

        y, back, moments = jax.vjp(with_kernel, v, params, has_aux=True)
        v_grad, of_params = back(weights)
        return y, v_grad, moments, of_params

    with jax.enable_x64(dtype == "float64"):
        maps = [jnp.asarray(order.of(leaf), dtype) for leaf in (v, weights)]
        others = jax.tree.map(lambda leaf: jnp.asarray(leaf, wide), (params, keep))
        return jax.device_get(jax.jit(both)(maps[0], *others, maps[1]))


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", CASES)
def test_values_statistics_and_gradients(name):
    found, exact = computed(name, NATIVE, "float32"), computed(name, CHANNEL_MAJOR, "float64")
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}
    case = CASES[name]
    # Sums of k^2 and of so many values, in rows, each term rounded a few times; a norm's gradient is what is left of
    # three such sums, and two norms follow each other. Gradients are held to the size of the largest one: those of a
    # single pixel or of a bias before a norm are left of sums that cancel to nothing.
    terms = case.kernel_size**2 + np.sqrt(case.batch * np.prod(case.map_size))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(exact[3]))
    for number, (leaves, wanted) in enumerate(zip(found, exact, strict=True)):
        for leaf, right in zip(*map(jax.tree.leaves, (leaves, wanted)), strict=True):
            size = max(np.abs(right).max(), largest if number in (1, 3) else 1)
            np.testing.assert_allclose(leaf, right, rtol=0, atol=10 * terms * 2.0**-24 * size, err_msg=str(number))


@NEEDS_COMPILER
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", ["k4", "whole vectors", "a lane less"])
def test_bfloat16(name):
    """Six maps are rounded by 2^-9 on the way to a gradient; norms carry errors on with about their size."""
    y, v_grad, *others = computed(name, NATIVE, "bfloat16")
    assert {leaf.dtype for leaf in (y, v_grad)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(others)} == {np.dtype("float32")}
    exact = computed(name, CHANNEL_MAJOR, "float64")
    # Gradients of parameters are held to the largest of their kind: a bias's is what is left of sums that cancel.
    largest = max(np.linalg.norm(leaf) for leaf in jax.tree.leaves(exact[3]))
    for number, (leaves, wanted) in enumerate(zip((y, v_grad, *others), exact, strict=True)):
        for leaf, right in zip(*map(jax.tree.leaves, (leaves, wanted)), strict=True):
            size = largest if number == 3 else np.linalg.norm(right)
            assert np.linalg.norm(leaf.astype("float64") - right) <= 18 * 2.0**-9 * size


@NEEDS_COMPILER
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_at_every_size_of_its_argument(name):
    """A map of one example and a kernel of zeros: the first moments' mean is the activation of v, exactly."""
    points = np.concatenate([np.linspace(-12, 12, 4801), [-1e4, -40.0, 40.0, 1e4]]).astype("float32")
    v, params, _, _ = Case(1, (1, 1), 1, name, False).arrays(len(points))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, "float32"), params)
    params = params._replace(kernel=NATIVE.layout.kernel(params.kernel))
    map_of = NATIVE.of(points.reshape(v.shape))
    _, (first, _) = spatial(map_of, params, None, None, NATIVE.layout, plain.settings(name))
    # As in test_activations.py: eight roundings of max(1, |u|).
    error = 8 * 2.0**-24 * np.maximum(1, np.abs(points))
    assert (np.abs(first.mean - plain.VALUES[name](points.astype("float64"))) <= error).all()


def test_every_activation_has_a_number():
    assert set(layout.NUMBERS) == set(ACTIVATIONS.values())


def test_what_the_cpp_does_not_know_is_computed_by_the_formulas():
    v, params, _, _ = jax.tree.map(lambda leaf: leaf.astype("float32"), Case(3, (2, 2), 4, "gelu", False).arrays(2))
    params = params._replace(kernel=Native().kernel(params.kernel))
    settings, native = plain.settings("gelu"), Native(least_share=0.0)
    assert native.fused(v, params, settings)
    groups, devices = (
        dataclasses.replace(settings, sharing=given) for given in (Sharing(groups=2), Sharing(together=2))
    )
    larger = params._replace(kernel=np.zeros((2, 10, 10)))
    another = dataclasses.replace(settings, activation=dataclasses.replace(settings.activation, value=lambda u, _: u))
    for given in ((v, params, groups), (v, params, devices), (v, larger, settings), (v, params, another)):
        assert native.fused(*given) is None
    assert native.fused(v.astype("float64"), params, settings) is None
    assert type(native.across_devices()).__name__ == "ChannelMajor"


@pytest.mark.parametrize("examples, fused", [(4, False), (11, False), (12, True), (16, True), (20, False), (65, True)])
def test_idle_lanes_are_not_worth_it(examples, fused):
    v, params, _, _ = jax.tree.map(np.float32, Case(3, (2, 2), examples, "gelu", False).arrays(2))
    params = params._replace(kernel=Native().kernel(params.kernel))
    assert (Native().fused(NATIVE.of(v), params, plain.settings("gelu")) is not None) == fused


LACKING = {
    "gpu": ({"platform": "gpu"}, "it is for CPUs, not for a gpu"),
    "kernel": ({"kernel_size": 10}, "a 10x10 kernel is larger than 9x9"),
    "dtype": ({"dtype": "float16"}, "it computes in float32 or bfloat16, not in float16"),
}


@pytest.mark.parametrize("changes, why", LACKING.values(), ids=LACKING)
def test_what_is_lacking(changes, why):
    assert choice.lacks("native", dataclasses.replace(CPU, **changes)) == why


def test_a_kernel_that_is_too_large_takes_the_formulas(monkeypatch):
    monkeypatch.setattr(layout, "lacking", lambda: None)
    for asked in ("auto", "native"):
        taken, why = choose(asked, dataclasses.replace(CPU, kernel_size=11))
        assert (taken, why) == ("channel_major", "native: a 11x11 kernel is larger than 9x9")


def test_without_a_compiler_auto_takes_the_formulas_and_says_so(monkeypatch):
    monkeypatch.setattr(layout, "lacking", lambda: "there is no C++ compiler")
    assert choose("auto", CPU) == ("channel_major", "native: there is no C++ compiler")
    with pytest.raises(UserError, match="config.model.ops is 'native': there is no C.. compiler; .* take 'auto'"):
        choose("native", CPU)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is compiled yet; returns the folder in the place of ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(library, "registered", library.registered.__wrapped__)
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_no_compiler(fresh, monkeypatch):
    monkeypatch.setenv("PATH", str(fresh))
    assert library.lacking() == "there is no C++ compiler (c++, g++, clang++) to compile it with"
    with pytest.raises(RuntimeError, match="there is no C.. compiler"):
        library.target("spatial_forward")


@pytest.mark.parametrize("told", ["a note\nspatial.cc:1: error: what is AVX?\nmore", "a note"])
def test_a_compiler_that_fails_is_quoted(fresh, monkeypatch, told):
    compiler = script(fresh / "cc", f'[ "$2" = --version ] && exit 0\ncat >&2 <<END\n{told}\nEND\nexit 3')
    monkeypatch.setenv("CXX", f"{compiler} -O1")
    why = library.lacking()
    wanted = told.split("\n")[min(1, told.count("\n"))]
    assert why == f"{compiler} cannot compile it: {wanted}"
    assert list((fresh / ".cache/convmixer_jax/native").iterdir()) == []


def test_a_library_that_cannot_be_loaded(fresh, monkeypatch):
    compiler = script(fresh / "cc", '[ "$1" = --version ] && exit 0\nwhile [ "$1" != -o ]; do shift; done\necho > "$2"')
    monkeypatch.setenv("CXX", str(compiler))
    assert library.lacking().startswith("it cannot be loaded: ")


def test_a_compiler_that_hangs(monkeypatch):
    monkeypatch.setattr(library, "SECONDS", 0.1)
    with pytest.raises(NotCompiledError, match="sleep did not run: .* timed out"):
        library.run(["sleep", "60"])


@NEEDS_COMPILER
def test_it_is_compiled_once_and_anew_where_a_source_changes(fresh, monkeypatch, capfd):
    folder = fresh / ".cache/convmixer_jax/native"
    monkeypatch.setattr(library, "OPTIONS", (*library.OPTIONS, "-O0"))  # quick
    targets = [library.target("spatial_forward") for _ in range(2)]
    assert targets[0] == targets[1]
    assert capfd.readouterr().err.count("compiling the operations for this processor with ") == 1
    (compiled,) = folder.iterdir()
    assert compiled.name.startswith(targets[0].split("_")[1])
    sources = fresh / "sources"
    sources.mkdir()
    for path in library.FOLDER.iterdir():
        if path.suffix in (".cc", ".h"):
            (sources / path.name).write_text(path.read_text() + "// another\n" * (path.name == "vectors.h"))
    monkeypatch.setattr(library, "FOLDER", sources)
    assert library.target("spatial_forward") != targets[0]
    assert len(list(folder.iterdir())) == 2


def test_a_damaged_library_is_not_loaded_and_leftovers_go(fresh):
    """What is loaded of a file that is cut off kills the process: half of one is made anew."""
    folder, compiler = (
        fresh / "native",
        script(fresh / "cc", 'while [ "$1" != -o ]; do shift; done\necho library > "$2"'),
    )
    whole = library.compiled_into(folder, [str(compiler)], "key")
    assert library.compiled_into(folder, ["no compiler is needed"], "key") == whole
    whole.write_bytes(whole.read_bytes()[:3])
    left, fresh_one = folder / "unfinished-old", folder / "unfinished-new"
    for path in (left, fresh_one):
        path.mkdir()
    os.utime(left, (0, 0))
    assert library.compiled_into(folder, [str(compiler)], "key") == whole
    assert whole.read_bytes() == b"library\n"
    assert sorted(folder.iterdir()) == sorted([whole, fresh_one])


@pytest.mark.parametrize(
    "command, why", [("g++ 'x", '$CXX is "g++ \'x", which is no command'), ("/", "no C++ compiler")]
)
def test_a_variable_that_names_no_compiler(fresh, monkeypatch, command, why):
    monkeypatch.setenv("CXX", command)
    monkeypatch.setenv("PATH", str(fresh))
    assert why in library.lacking()


@NEEDS_COMPILER
def test_a_home_that_cannot_be_written(fresh, monkeypatch):
    (fresh / ".cache").write_text("a file")
    monkeypatch.setattr(library, "OPTIONS", (*library.OPTIONS, "-O0", "-DNOWHERE"))
    assert library.lacking() is None
