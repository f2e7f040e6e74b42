"""What a compiled program's text tells is read right: by hand-written text and by programs of eight CPU devices."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from convmixer_jax.planning.program_text import (
    Collective,
    array_bytes,
    group_size,
    payload_bytes,
    read_collectives,
    read_program,
    traffic,
)

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
    assert read_collectives(text) == [Collective("all-reduce", payload=3 * 4, group=8, loops=0)]


def test_what_crosses_has_its_bytes_and_the_loops_around_it():
    # The sum is inside of the loop that the entry makes; its eight float32 are there once, done or not.
    assert read_collectives(PROGRAM) == [
        Collective("all-reduce", payload=32, group=1, loops=1),
        Collective("all-gather", payload=32, group=1, loops=0),
    ]


@pytest.mark.parametrize("given, sizes", [
    ("f32[128,10]{0,1:T(8,128)S(1)}", [5120]),
    ("(f32[]{:T(128)}, /*index=1*/bf16[3]{0}, pred[5]{0})", [4, 6, 5]),
    ("u32[2]{0}", [8]),
    ("f8e4m3fn[7]{0}", [7]),
])  # fmt: skip
def test_arrays_are_measured(given, sizes):
    assert array_bytes(given) == sizes


@pytest.mark.parametrize("groups, devices", [
    ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4),
    ("replica_groups=[2,4]<=[8]", 4),
    ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
    ("replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", 4),
    ("replica_groups=mesh['x'=4,'y'=2], device_ids=([8]) {'x','y'}", 8),
    ("channel_id=1", 1),
])  # fmt: skip
def test_groups_are_counted(groups, devices):
    assert group_size(f"  %a = f32[1] all-reduce(%b), {groups}, to_apply=%add") == devices


def test_of_parts_the_whole_counts():
    # Each of four devices keeps 2 of 8 values of a reduce-scatter; a gather that is begun names its argument, too.
    assert payload_bytes("reduce-scatter", "f32[2]{0}", group=4, started=False) == 32
    assert payload_bytes("all-gather", "(f32[2]{0}, f32[8]{0})", group=4, started=True) == 32
    assert payload_bytes("all-reduce", "(f32[8]{0}, f32[1]{0})", group=4, started=True) == 36


TRAFFIC = """HloModule m

%fused_computation (p: f32[8]) -> f32[8] {
  ROOT %m = f32[8]{0} multiply(%p, %p)
}

ENTRY %main (x.1: f32[8]) -> f32[8] {
  %x.1 = f32[8]{0} parameter(0)
  %near = f32[8]{0:T(128)S(1)} fusion(%x.1), kind=kLoop, calls=%fused_computation
  %copy-start.1 = (f32[8]{0:T(128)S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(%x.1)
  %copy-done.1 = f32[8]{0:T(128)S(1)} copy-done(%copy-start.1)
  ROOT %far = f32[8]{0} fusion(%near, %copy-done.1), kind=kLoop, calls=%fused_computation
}
"""


def test_memory_traffic_is_what_does_not_lie_on_the_chip():
    # x is read by the fusion and by the copy, with 4 bytes of its own; far is written: 3 times 8 float32.
    assert traffic(TRAFFIC) == 3 * 32 + 4
