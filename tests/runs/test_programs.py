"""Compiled programs are found again, and those that nobody used for long make place."""

import concurrent.futures
import os
import re

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from convmixer_jax.runs import programs
from convmixer_jax.runs.programs import Origin, keep_programs, prune

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def settings():
    """The settings of other tests come back, and JAX looks at them anew."""
    before = {name: jax.config.values[name] for name in SETTINGS}
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_anew() -> str:
    """Compiles a function that this process has not in its memory; returns what is told of it."""
    with Origin() as origin:
        jax.jit(lambda x: jnp.cos(x) @ x).lower(jnp.ones((3, 3))).compile()
    return str(origin)


def test_a_program_is_compiled_once(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(programs, "WORTH_KEEPING", 0.0)
    keep_programs(tmp_path)
    assert re.fullmatch(rf"newly compiled and kept in the cache in \d+\.\d s, 0 MB in {tmp_path}", compile_anew())
    jax.clear_caches()
    assert re.fullmatch(rf"taken from the cache in \d+\.\d s, 0 MB in {tmp_path}", compile_anew())


def test_what_another_thread_finds_does_not_count(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(programs, "WORTH_KEEPING", 0.0)
    keep_programs(tmp_path)
    compile_anew()
    jax.clear_caches()
    with Origin() as origin, concurrent.futures.ThreadPoolExecutor() as threads:
        assert threads.submit(compile_anew).result().startswith("taken from")
    assert not origin.cached


def test_without_a_cache_that_is_told(settings):
    jax.config.update("jax_compilation_cache_dir", None)
    assert re.fullmatch(r"newly compiled in \d+\.\d s, the cache of compiled programs is off", compile_anew())


def test_what_was_not_used_for_the_longest_time_goes(tmp_path):
    # Used in the order b, c, a; a was written long before.
    for name, used, written in (("a", 30, 1), ("b", 10, 10), ("c", 20, 20)):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (used, written))
    prune(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 3
    prune(tmp_path, 299)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
    prune(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet_is_no_mistake(tmp_path, settings):
    keep_programs(tmp_path / "new")
    prune(tmp_path / "new", 0)
