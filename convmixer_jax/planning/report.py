"""The lines that people read of a plan: whether it fits, what would, how long it takes, and on other slices.

print("\n".join(plan_lines(plan)))
"""

from typing import Any

from convmixer_jax.runs.memory import gigabytes


def rate(value: float) -> str:
    """Returns a rate or a time with three digits at least."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def milliseconds(seconds: float) -> str:
    """Returns seconds as "12.3 ms"."""
    return f"{rate(1e3 * seconds)} ms"


def memory_line(record: dict[str, Any], limit: int | None) -> str:
    """Returns what a program needs of the memory there is."""
    memory, there = record["memory"], "" if limit is None else f" of {gigabytes(limit)}"
    if memory is None:
        return f"memory on each device: not told{there}"
    return (
        f"memory on each device: {gigabytes(memory['total'])}{there} ({memory['total']:,} bytes): "
        f"{gigabytes(memory['held'])} state and data, {gigabytes(memory['temporary'])} temporaries"
    )


def sent_text(sent: dict[str, dict[str, int]]) -> str:
    """Returns what crosses between devices."""
    made = [f"{found['number']} {kind} of {found['bytes'] / 1e6:,.2f} MB" for kind, found in sent.items()]
    return ", ".join(made) or "nothing"


def work_lines(record: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    """Returns what an update does and how long it takes, as far as that is known."""
    if "flops" not in record:
        return []
    lines = [
        f"an update on each device: {record['flops'] / 1e12:,.3g} TFLOP, {gigabytes(int(record['traffic']))} "
        f"to and from memory; between devices: {sent_text(record['sent'])}; compiled in "
        f"{record['compile_seconds']:.0f} s"
    ]
    if "times" in record:
        times = record["times"]
        lines.append(
            f"least time of an update: {milliseconds(times['bound'])} (matrix units {milliseconds(times['matrix'])}, "
            f"memory {milliseconds(times['memory'])}, the compiler's cycles {milliseconds(times['schedule'])}; links "
            f"{milliseconds(times['links'])} on top)"
        )
    if "seconds" in record:
        how = f"at an assumed efficiency of {plan['efficiency']:.0%}" if "times" in record else "measured"
        lines.append(
            f"{how}: {milliseconds(record['seconds'])} an update, {rate(record['images_per_sec'])} images/s, "
            f"{rate(record['hours'])} hours for {plan['epochs']} epochs"
        )
    return lines


def as_flags(flags: str) -> str:
    """Returns the changes of a way as they are given to a command."""
    return f"--{flags.replace(' with ', ' --')}"


def way_lines(plan: dict[str, Any]) -> list[str]:
    """Returns what fits instead, and what does not although it should have."""
    if plan["request"]["fits"]:
        return []
    fitting = [way for way in plan["ways"] if way["fits"]]
    lines = [] if fitting else ["no change of one field was found that fits: a smaller model or more devices"]
    for way in plan["ways"]:
        needed = "an unknown amount" if way["memory"] is None else gigabytes(way["memory"]["total"])
        verdict = f"fits, {needed}" if way["fits"] else f"does not fit, {needed}"
        time = f", {rate(way['images_per_sec'])} images/s, {rate(way['hours'])} hours" if "hours" in way else ""
        lines.append(f"  {as_flags(way['flags'])}: compiled, {verdict}{time}")
    return lines + [f"proposed: {as_flags(way['flags'])}" for way in fitting[:1]]


def slice_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the table over slices."""
    heads = f"{'chips':>5}  {'batch':>6}  {'on each':>7}  {'memory':>9}  {'update':>9}  {'links':>8}  {'images/s':>9}"
    lines = [f"{heads}  hours"]
    for row in rows:
        if "note" in row:
            lines.append(f"{row['chips']:>5}  {row['note']}")
            continue
        memory = "-" if row["bytes"] is None else gigabytes(row["bytes"])
        cells = (
            f"{row['chips']:>5}",
            f"{row['batch_size']:>6}",
            f"{row['per_device']:>7}",
            f"{memory:>9}",
            f"{milliseconds(row['seconds']):>9}",
            f"{milliseconds(row['link_seconds']):>8}",
            f"{rate(row['images_per_sec']):>9}",
            f"{rate(row['hours'])}{'' if row['scaled'] else '  compiled for this slice'}",
        )
        lines.append("  ".join(cells))
    return lines


def batch_lines(plan: dict[str, Any]) -> list[str]:
    """Returns why the batch is not the recipe's, if it is not."""
    batch, planned = plan.get("batch_size"), plan["request"]
    if batch in (None, planned["batch_size"]):
        return []
    return [
        f"config.batch_size is {batch}, which {plan['devices']} devices cannot share: planned with "
        f"{planned['per_device']} images on each instead; --batch_size takes another"
    ]


def share_heading(table: dict[str, Any]) -> str:
    """Returns the line above a table with as many images on each device."""
    how = f" with {as_flags(table['flags'])}" if table["flags"] else ""
    return f"{table['per_device']} images on each device{how}, whatever the slice:"


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Returns the lines for what the functions of planner.py return."""
    request, absent = plan["request"], "topology" in plan
    where = f"{plan['topology']}, compiled for and not run" if absent else "this machine"
    told = f" ({plan['ops_told']})" if plan["ops_told"] else ""
    lines = [
        f"{plan['parameters']:,} parameters; operations {plan['ops']}{told}; input {plan['input']}; "
        f"{plan['updates']:,} updates of {request['batch_size']} images, {request['per_device']} on each of "
        f"{plan['devices']} x {plan['device_kind']} ({where})",
        *batch_lines(plan),
        f"does it fit? {'yes' if request['fits'] else 'no'}; {memory_line(request, plan['limit'])}",
        *way_lines(plan),
        *work_lines(request, plan),
    ]
    for way in [] if request["fits"] else [way for way in plan["ways"] if way["fits"]][:1]:
        lines += [f"with {as_flags(way['flags'])}:", *work_lines(way, plan)]
    for table in plan.get("constant_share", []):
        lines += [share_heading(table), *slice_lines(table["rows"])]
    if "constant_batch" in plan:
        lines += [f"a batch of {plan['batch_size']}, whatever the slice:", *slice_lines(plan["constant_batch"])]
    return lines + (absent_notes(plan) if absent else [])


def absent_notes(plan: dict[str, Any]) -> list[str]:
    """Returns what the figures for an absent slice rest on."""
    return [
        f"memory: {gigabytes(plan['published_bytes'])} published, {gigabytes(plan['limit'])} of it for a program, by "
        f"its compiler. times: published peaks, the compiler's cycles, links not hidden behind arithmetic, all divided "
        f"by {plan['efficiency']:g} (--efficiency); nothing was run on a TPU, and the host must keep up with images",
    ]
