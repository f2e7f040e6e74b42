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
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convmixer_jax.benchmarks.ours import FixedBatch, compile_timed, on_fixed_batch
from convmixer_jax.benchmarks.report import significant
from convmixer_jax.config import to_plain
from convmixer_jax.data.datasets import named_dataset
from convmixer_jax.errors import lookup
from convmixer_jax.ops.choice import AUTO, OPS, compiler_options
from convmixer_jax.planning.absent import absent_mesh
from convmixer_jax.planning.chips import Chip, chip_of
from convmixer_jax.planning.program_text import read_program
from convmixer_jax.runs import provenance
from convmixer_jax.runs.memory import gigabytes
from convmixer_jax.training.assembly import choose_ops
from convmixer_jax.training.mesh import replicated

# What a TPU may have: all but what asks for options of the CPU's compiler, and so is made for it.
ROWS = tuple(name for name in OPS if not compiler_options(name, "cpu"))


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
    _, lacking = choose_ops(config, fixed.of(named_dataset(config.dataset, "config.dataset")), mesh)
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
    chip = chip_of(topology)
    for name in names:
        lookup(dict.fromkeys(ROWS), name, "--ops")
    jax.config.update("jax_platforms", "cpu")  # a TPU of this machine is left alone
    mesh = absent_mesh(topology, config.fsdp_devices)
    rows = [measure_row(name, mesh, config, fixed, chip) for name in names or ROWS]
    chosen, _ = choose_ops(with_ops(config, AUTO), fixed.of(named_dataset(config.dataset, "config.dataset")), mesh)
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
