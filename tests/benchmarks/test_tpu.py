"""What the TPU's compiler tells of an update becomes a table; without the compiler that is said."""

import importlib.util

import jax
import pytest

from convmixer_jax import benchmark
from convmixer_jax.benchmarks import tpu
from convmixer_jax.benchmarks.ours import FixedBatch
from convmixer_jax.benchmarks.tpu import measure_tpu, tpu_table
from convmixer_jax.errors import UserError
from convmixer_jax.training.mesh import make_mesh
from tests.benchmarks.sides import small_config, squeezed
from tests.commands import CPU_OPS, DIGITS

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def eight_chips(monkeypatch):
    """CPU devices in place of a TPU's: the path from the config to the table is the same."""
    monkeypatch.setattr(tpu, "absent_mesh", lambda topology, fsdp_devices: make_mesh(8, fsdp_devices))


def test_an_update_is_compiled_for_every_chip(eight_chips):
    config = small_config()
    config.batch_size = 16
    measured = measure_tpu(config, FixedBatch(16, 4), "v5e:2x4", ["lax"])
    (row,) = measured["rows"]
    assert (measured["chips"], measured["batch_size_per_chip"], measured["chosen"]) == (8, 2, CPU_OPS)
    assert list(row["collectives"]) == ["all-reduce"]
    # Of 2 images, 16 patches each: stem 48 x 8, block 9 x 8 + 8 x 8, classifier 8 x 4, thrice but for the image.
    products = 2 * 2 * (3 * (16 * (48 * 8 + 136) + 32) - 16 * 48 * 8)
    assert products < row["flops"] < 8 * products  # beside products there are statistics, activations, the optimiser
    assert row["roofline_seconds"] == max(row["flops"] / 197e12, row["bytes"] / 819e9)
    assert row["memory"]["total"] == sum(row["memory"][part] for part in ("arguments", "outputs", "temporaries"))
    head, line, *notes = map(squeezed, tpu_table(measured))
    assert head.startswith("a chip TFLOP bytes memory")
    assert line.startswith("lax 0.00 0.00 GB")
    assert line.endswith("all-reduce")
    assert "8 chips of v5e:2x4, none of them here" in notes[0]


def test_what_cannot_be_compiled_has_a_note(eight_chips, monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory\nin memory space hbm.")

    monkeypatch.setattr(tpu, "compile_for", refuse)
    config = small_config()
    config.batch_size = 8
    measured = measure_tpu(config, FixedBatch(16, 4), "v5e:2x4", ["reference"])
    assert measured["rows"] == [
        {"name": "reference", "note": "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm."}
    ]
    assert "reference not compiled: RESOURCE_EXHAUSTED" in squeezed(tpu_table(measured)[1])


@pytest.mark.parametrize("topology, names, batch_size, told", [
    ("v9:1x1", ["lax"], 8, "--topology is 'v9'"),
    ("v5e:2x4", ["channel_major"], 8, "--ops is 'channel_major'"),
    ("v5e:2x4", ["lax"], 12, "config.batch_size is 12"),
])  # fmt: skip
def test_what_is_no_tpu_or_does_not_fit_it_is_told(eight_chips, topology, names, batch_size, told):
    config = small_config()
    config.batch_size = batch_size
    with pytest.raises(UserError, match=told):
        measure_tpu(config, FixedBatch(16, 4), topology, names)


def test_a_missing_compiler_is_told(capsys, elsewhere, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert benchmark.main(["tpu", *DIGITS]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == 'error: the TPU compiler is not installed: pip install "jax[tpu]", which needs no TPU\n'
