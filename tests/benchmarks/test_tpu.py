"""What the TPU's compiler tells is read right and put into estimates; without the compiler that is said."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from convmixer_jax import benchmark
from convmixer_jax.benchmarks import tpu
from convmixer_jax.benchmarks.ours import FixedBatch
from convmixer_jax.benchmarks.tpu import CHIPS, Chip, measure_tpu, read_program, tpu_table
from convmixer_jax.errors import UserError
from tests.benchmarks.sides import small_config, squeezed
from tests.commands import DIGITS

pytestmark = pytest.mark.usefixtures("quick_compilation")

# As the compiler writes it: a loop whose body has a fusion with a product inside, a Pallas call and two collectives.
PROGRAM = """HloModule jit_dispatch, is_scheduled=true

%fused_computation.1 (param_0.1: f32[8]) -> f32[8] {
  ROOT %multiply.1 = f32[8]{0} multiply(%param_0.1, %param_0.1), backend_config={"estimated_cycles":"900000"}
}

%body.2.clone (arg_tuple.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %fusion.3 = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused_computation.1, backend_config={"estimated_cycles":"1000"}
  %depthwise_correlate.5 = f32[8]{0} custom-call(%fusion.3), custom_call_target="tpu_custom_call", \
backend_config={"custom_call_config":{"body":"TUzvUg==","cost_estimate":{"flops":"6144","bytes_accessed":"96"}}}
  %all-reduce-start.1 = f32[8]{0} all-reduce-start(%depthwise_correlate.5), to_apply=%add.1
  %all-reduce-done.1 = f32[8]{0} all-reduce-done(%all-reduce-start.1)
  ROOT %tuple.1 = (s32[], f32[8]{0}) tuple(%all-reduce-done.1)
}

ENTRY %main.4 (x.1: f32[8]) -> f32[8] {
  %all-gather.2 = f32[8]{0} all-gather(%x.1), dimensions={0}, backend_config={"estimated_cycles":"20"}
  ROOT %while.2 = (s32[], f32[8]{0}) while(%tuple.20), condition=%condition.1, body=%body.2.clone
}
"""


def test_a_programs_text_is_read():
    assert read_program(PROGRAM) == {
        "cycles": 1020,
        "pallas_flops": 6144,
        "collectives": {"all-reduce": 1, "all-gather": 1},
    }


def test_collectives_of_a_real_program_are_found(mesh):
    summed = jax.shard_map(
        functools.partial(jax.lax.psum, axis_name="data"),
        mesh=mesh(8),
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec(),
    )
    text = jax.jit(summed).lower(jnp.ones((8, 3))).compile().as_text()
    assert read_program(text)["collectives"] == {"all-reduce": 1}


def test_a_roofline_is_the_slower_of_two():
    chip = Chip(flops_per_sec=100, bytes_per_sec=10, cycles_per_sec=50, vector_slots=16)
    assert chip.roofline(flops=300, bytes_accessed=20) == 3
    assert chip.roofline(flops=300, bytes_accessed=40) == 4
    assert chip.vector_cycles(flops=120) == 10  # 12 of 16 slots are filled


def test_the_chips_clock_follows_from_its_peak():
    # Four matrix units of 128 x 128 with a product and a sum each in a cycle; Google's text rounds to 1.5 GHz.
    assert CHIPS["v5e"].cycles_per_sec == pytest.approx(1.5e9, rel=0.01)


@pytest.fixture
def eight_chips(monkeypatch):
    """CPU devices in place of a TPU's: the path from the config to the table is the same."""
    monkeypatch.setattr(tpu, "absent_devices", lambda topology: jax.devices()[:8])


def test_an_update_is_compiled_for_every_chip(eight_chips):
    config = small_config()
    config.batch_size = 16
    measured = measure_tpu(config, FixedBatch(16, 4), "v5e:2x4", ["lax"])
    (row,) = measured["rows"]
    assert (measured["chips"], measured["batch_size_per_chip"], measured["chosen"]) == (8, 2, "channel_major")
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
