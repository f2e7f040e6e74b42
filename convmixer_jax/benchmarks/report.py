"""The tables that people read: one line per side, the figures that hold for all of them below.

print("\n".join(speed_table(measured)))
"""

from typing import Any

from convmixer_jax.runs.memory import gigabytes


def rate_columns(rate: dict[str, Any] | None) -> str:
    """Returns the median of images per second and its quartiles in two columns, empty for None."""
    if rate is None:
        return f"{'-':>10}  {'-':>19}"
    between = "{:,.0f} - {:,.0f}".format(*rate["quartiles"])
    return f"{rate['median']:>10,.0f}  {between:>19}"


def significant(value: float) -> str:
    """Returns a rate with three digits at least: 1,234 or 56.7 or 8.91."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def row_line(row: dict[str, Any], width: int) -> str:
    """Returns a side as a line of `speed_table`; only the note where it is not available."""
    if "note" in row:
        return f"{row['name']:<{width}}  not measured: {row['note']}"
    low, high = row["quartiles"]
    share, ratio, compiling = row.get("share_of_product"), row.get("ratio"), row.get("compile_seconds")
    on_device = row["device_peak_bytes"]
    return "  ".join((
        f"{row['name']:<{width}}",
        f"{significant(row['images_per_sec']):>9}",
        f"{significant(low) + ' - ' + significant(high):>17}",
        f"{'-' if ratio is None else f'{ratio:.2f}':>9}",
        f"{'-' if share is None else f'{share:.0%}':>10}",
        f"{'-' if compiling is None else f'{compiling:.1f} s':>8}",
        f"{gigabytes(row['host_peak_bytes']):>9}",
        f"{'-' if on_device is None else gigabytes(on_device):>9}",
    ))  # fmt: skip


def machine_lines(measured: dict[str, Any]) -> list[str]:
    """Returns what it was measured on, and how."""
    machine, settings = measured["machine"], measured["settings"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("jax", "flax", "python"))
    torch = next((f", torch {row['version']}" for row in measured["rows"] if "version" in row), "")
    devices = f"{len(machine['devices'])} x {machine['devices'][0]}"
    return [
        f"{machine['processor']}, {machine['cores']} cores; {devices}; {versions}{torch}",
        f"{settings['repetitions']} calls of each in turn, medians; allocator {settings['allocator']} for every side; "
        "memory is of the whole process, compilation included",
    ]


def side_lines(measured: dict[str, Any]) -> list[str]:
    """Returns the heading and one line for each side."""
    rows = measured["rows"]
    width = max(len(row["name"]) for row in rows)
    heads = f"{'images/s':>9}  {'quartiles':>17}  {'ours over':>9}  {'of product':>10}  {'compile':>8}"
    heading = f"{measured['benchmark']:<{width}}  {heads}  {'host':>9}  {'device':>9}"
    return [heading, *(row_line(row, width) for row in rows)]


def speed_table(measured: dict[str, Any]) -> list[str]:
    """Returns the lines for what the functions of speed.py return."""
    lines = side_lines(measured)
    if "train_over_step" in measured:
        lines.append(f"train over step: {measured['train_over_step']:.2f}")
    against = measured.get("against")
    if against:
        lines.append(f"ours over the fastest of the same dtype ({against['fastest']}): {against['ratio']:.2f}")
    if "product_flops_per_sec" in measured:
        lines.append(
            f"{significant(measured['flops_per_image'] / 1e6)} MFLOP an image, counted by hand; "
            f"a product of large matrices reaches {measured['product_flops_per_sec'] / 1e9:,.0f} GFLOP/s"
        )
    return lines + machine_lines(measured)
