"""What an update would cost on a TPU chip that is not there, by the TPU's compiler: bytes, FLOPs, memory, estimates.

    measured = measure_tpu(config, FixedBatch(224, 1000), "v5e:1x1", ["reference", "pallas"])
    print("\n".join(tpu_table(measured)))

Nothing is run or timed. Two estimates of the time of an update are made, both without communication between chips:

- roofline: max(FLOPs / peak of the matrix units, bytes / bandwidth), as the compiler counts FLOPs and bytes; of a
  Pallas call, which it cannot look into, it takes our own count. No time of the vector unit is in it, and that is the
  unit which makes the products of a depthwise convolution: the roofline is a bound that such a program stays far from.
- schedule: the cycles that the compiler estimates for each of its operations, one after the other. It has none for
  Pallas calls; these are taken to fill three of the vector unit's four arithmetic slots with their products and sums.
"""

import dataclasses
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convmixer_jax.benchmarks.ours import FixedBatch, compile_timed, on_fixed_batch
from convmixer_jax.benchmarks.report import significant
from convmixer_jax.config import to_plain
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError, lookup
from convmixer_jax.ops.choice import AUTO, OPS, compiler_options
from convmixer_jax.runs import provenance
from convmixer_jax.runs.memory import gigabytes
from convmixer_jax.training.assembly import choose_ops
from convmixer_jax.training.mesh import mesh_over, replicated

# What a TPU may have: all but what asks for options of the CPU's compiler, and so is made for it.
ROWS = tuple(name for name in OPS if not compiler_options(name, "cpu"))

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Chip:
    """Of one chip: FLOP/s of bfloat16 products, bytes/s of its memory, cycles/s.

    vector_slots: arithmetic instructions on float32 values that the vector unit can make in a cycle.
    """

    flops_per_sec: float
    bytes_per_sec: float
    cycles_per_sec: float
    vector_slots: int

    def roofline(self, flops: float, bytes_accessed: float) -> float:
        """Returns the seconds that neither the matrix units nor the memory let it fall below."""
        return max(flops / self.flops_per_sec, bytes_accessed / self.bytes_per_sec)

    def vector_cycles(self, flops: float) -> float:
        """Returns the cycles of a Pallas call: three of four slots are filled.

        So the compiler schedules the kernels of pallas_tpu.py for v5e, copies into their scratch included: 5.1 million
        cycles forward and 5.6 for the kernel's gradient of 16.3 GFLOP (k 9, 1536 channels, 32x32, batch 64).
        """
        return flops / (0.75 * self.vector_slots)


# cloud.google.com/tpu/docs/v5e: 197 TFLOP/s in bfloat16, 819 GB/s; four matrix units of 128 x 128, which at two
# operations a cycle puts the clock at 1.5 GHz. The vector unit: 8 x 128 lanes of four slots
# (jax-ml.github.io/scaling-book/tpus). Float32 operands are rounded to bfloat16, by JAX's default precision.
CHIPS = {"v5e": Chip(197e12, 819e9, 197e12 / (4 * 128 * 128 * 2), 8 * 128 * 4)}


def absent_devices(topology: str) -> list[jax.Device]:
    """Returns the devices of a topology like "v5e:2x4", which need not be there.

    Raises UserError where the compiler is not installed or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError('the TPU compiler is not installed: pip install "jax[tpu]", which needs no TPU')
    # Otherwise it asks the cloud's metadata server, for minutes, what TPU this machine is a part of, and refuses where
    # another process has loaded it, as if there were a TPU to be shared.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    _, _, size = topology.partition(":")
    alone = {"chips_per_host_bounds": (1, 1, 1), "num_slices": 1} if size == "1x1" else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **alone)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"--topology is {topology!r}: {error}; v5e:1x1, v5e:2x2 and v5e:2x4 exist") from error
    return list(found.devices)


def computations(text: str) -> dict[str, list[str]]:
    """Returns the instructions of each computation of a compiled program's text, but for the insides of fusions.

    These have no cost of their own: their fusion has it.
    """
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        begins = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if begins:
            name = begins[1]
            found[name] = []
        elif line.startswith(" ") and name:
            found[name].append(line)
    inside = set(re.findall(r"fusion\(.*?calls=%?([\w.\-]+)", text))
    return {name: lines for name, lines in found.items() if name not in inside}


def read_program(text: str) -> dict[str, Any]:
    """Returns what a compiled program's text tells: {cycles, pallas_flops, collectives: {kind: number}}.

    cycles: estimated by the compiler, of all operations but Pallas calls; the body of a loop counts once.
    """
    lines = [line for instructions in computations(text).values() for line in instructions]
    cycles = pallas_flops = 0
    collectives: Counter[str] = Counter()
    for line in lines:
        cycles += sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', line)))
        if 'custom_call_target="tpu_custom_call"' in line:
            pallas_flops += sum(map(int, re.findall(r'"cost_estimate":\{"flops":"(\d+)"', line)))
        made = re.search(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", line)
        if made:
            collectives[made[1]] += 1
    return {"cycles": cycles, "pallas_flops": pallas_flops, "collectives": dict(collectives)}


def memory_parts(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Returns bytes of {arguments, outputs, temporaries, total}; outputs: those that take no argument's place."""
    memory = compiled.memory_analysis()
    assert memory is not None
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
    }
    return parts | {"total": sum(parts.values())}


def compile_for(mesh: Mesh, config: ConfigDict, fixed: FixedBatch) -> tuple[jax.stages.Compiled, dict[str, Any]]:
    """Returns the dispatch of a run on a fixed batch, compiled for the mesh, and facts about it; see compile_timed."""
    experiment = on_fixed_batch(config, fixed, mesh)
    height, width, channels = experiment.dataset.image_shape
    whole = replicated(mesh)

    def abstract(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    size = config.batch_size
    data = {
        "image": abstract((size, height, width, channels), jnp.dtype(config.dtype)),
        "target": abstract((size, experiment.dataset.num_classes), jnp.float32),
    }
    seed, count = abstract((), np.uint32), abstract((), np.int32)
    return compile_timed(experiment.dispatch, size // mesh.size, experiment.abstract_state, seed, data, {}, count)


def with_ops(config: ConfigDict, name: str) -> ConfigDict:
    """Returns the config with that implementation."""
    config = config.copy_and_resolve_references()
    config.model.ops = name
    return config


def measure_row(name: str, mesh: Mesh, config: ConfigDict, fixed: FixedBatch, chip: Chip) -> dict[str, Any]:
    """Returns {name, ...} of one implementation, or {name, note} where it cannot be compiled."""
    config = with_ops(config, name)
    _, lacking = choose_ops(config, fixed.of(DATASETS[config.dataset]), mesh)
    if lacking:
        return {"name": name, "note": lacking}
    try:
        compiled, facts = compile_for(mesh, config, fixed)
    except jax.errors.JaxRuntimeError as error:
        return {"name": name, "note": " ".join(str(error).split())[:300]}
    costs, text = compiled.cost_analysis() or {}, read_program(compiled.as_text() or "")
    flops, bytes_accessed = costs["flops"], costs["bytes accessed"]
    cycles = text["cycles"] + chip.vector_cycles(text["pallas_flops"])
    return {
        "name": name,
        "flops": flops,
        "bytes": bytes_accessed,
        "memory": memory_parts(compiled),
        "collectives": text["collectives"],
        "pallas_flops": text["pallas_flops"],
        "compiler_cycles": text["cycles"],
        "roofline_seconds": chip.roofline(flops, bytes_accessed),
        "schedule_seconds": cycles / chip.cycles_per_sec,
        "compile_seconds": facts["compile_seconds"],
    }


def measure_tpu(config: ConfigDict, fixed: FixedBatch, topology: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns {rows: one for each of `names`, chosen: what auto takes, ...} of an update of config on a topology.

    names: of ROWS; none of them: all. FLOPs, bytes and memory are of one chip. Raises UserError where nothing can be
    compiled for it.
    """
    chip = lookup(CHIPS, topology.partition(":")[0], "--topology")
    for name in names:
        lookup(dict.fromkeys(ROWS), name, "--ops")
    jax.config.update("jax_platforms", "cpu")  # a TPU of this machine is left alone
    mesh = mesh_over(absent_devices(topology), config.fsdp_devices)
    rows = [measure_row(name, mesh, config, fixed, chip) for name in names or ROWS]
    chosen, _ = choose_ops(with_ops(config, AUTO), fixed.of(DATASETS[config.dataset]), mesh)
    return {
        "benchmark": "tpu",
        "topology": topology,
        "chips": mesh.size,
        "chip": dataclasses.asdict(chip),
        "batch_size_per_chip": config.batch_size // mesh.size,
        "chosen": chosen,
        "rows": rows,
        "config": to_plain(config),
        "machine": provenance.describe(),
    }


def row_line(row: dict[str, Any], width: int, images: int) -> str:
    """Returns a row as a line of `tpu_table`."""
    if "note" in row:
        return f"{row['name']:<{width}}  not compiled: {row['note']}"
    seconds = max(row["roofline_seconds"], row["schedule_seconds"])
    made = ", ".join(f"{number} {kind}" for kind, number in row["collectives"].items())
    return "  ".join((
        f"{row['name']:<{width}}",
        f"{row['flops'] / 1e12:>8.2f}",
        f"{gigabytes(row['bytes']):>10}",
        f"{gigabytes(row['memory']['total']):>9}",
        f"{gigabytes(row['memory']['temporaries']):>11}",
        f"{1e3 * row['roofline_seconds']:>8.1f} ms",
        f"{1e3 * row['schedule_seconds']:>8.1f} ms",
        f"{significant(images / seconds):>8}",
        f"{row['compile_seconds']:>6.0f} s",
        made or "none",
    ))  # fmt: skip


def tpu_table(measured: dict[str, Any]) -> list[str]:
    """Returns the lines for what `measure_tpu` returns."""
    rows, chip = measured["rows"], measured["chip"]
    width = max(len(row["name"]) for row in rows)
    heads = f"{'TFLOP':>8}  {'bytes':>10}  {'memory':>9}  {'temporaries':>11}  {'roofline':>11}  {'schedule':>11}"
    return [
        f"{'a chip':<{width}}  {heads}  {'images/s':>8}  {'compile':>8}  collectives",
        *(row_line(row, width, measured["batch_size_per_chip"]) for row in rows),
        f"{measured['chips']} chips of {measured['topology']}, none of them here: compiled, not run; "
        f"{measured['batch_size_per_chip']} images a chip; auto takes {measured['chosen']}",
        f"roofline: {chip['flops_per_sec'] / 1e12:.0f} TFLOP/s, {chip['bytes_per_sec'] / 1e9:.0f} GB/s, without the "
        "vector unit; schedule: the compiler's estimates of cycles, of Pallas calls ours; images/s: by the larger",
    ]
