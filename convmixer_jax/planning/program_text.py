"""What the text of a compiled program tells: the compiler's cycles, our Pallas calls, what crosses between devices.

read_program(compiled.as_text())               # {cycles, pallas_flops, collectives: {kind: number}}
read_collectives(compiled.as_text())           # with bytes
"""

import dataclasses
import math
import re
from collections import Counter
from typing import Any

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

# "%name = TYPE kind(", where TYPE may be a tuple; an asynchronous one counts where it starts.
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](\{[^}]*\})?")
# "  ROOT %name = TYPE operation(operands), ..."
INSTRUCTION = re.compile(r" +(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)")
# What moves nothing, or whose parts count by themselves.
FREE = {
    "parameter", "constant", "iota", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
    """An operation over devices.

    payload: bytes of the whole of its arrays. group: devices that it goes over. loops: how many it lies inside of.
    """

    kind: str
    payload: int
    group: int
    loops: int


def computations(text: str, fused: bool = False) -> dict[str, list[str]]:
    """Returns the instructions of each computation of a compiled program's text.

    fused: with the insides of fusions. These have no cost of their own: their fusion has it.
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
    inside = set() if fused else set(re.findall(r"fusion\(.*?calls=%?([\w.\-]+)", text))
    return {name: lines for name, lines in found.items() if name not in inside}


def array_sizes(given: str) -> list[tuple[int, str]]:
    """Returns (bytes, layout) of each array in an instruction's type, as HLO writes it: f32[128,10]{1,0:T(8,128)}."""
    sizes = []
    for name, bits, shape, layout in ARRAY.findall(given):
        values = math.prod(int(side) for side in shape.split(",") if side)
        sizes.append((values * (1 if name == "pred" else math.ceil(int(bits) / 8)), layout))
    return sizes


def array_bytes(given: str) -> list[int]:
    """Returns the bytes of each array in an instruction's type."""
    return [size for size, _ in array_sizes(given)]


def group_size(line: str) -> int:
    """Returns the devices of a group of a collective, in any of HLO's three notations; 1 where none is named."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return len(listed[1].split(","))
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]<=", line)
    if counted:
        return int(counted[1])
    named = re.search(r"replica_groups=mesh\[(.*?)\].*?\{([^}]*)\}", line)
    if not named:
        return 1
    sides = {axis: int(side) for axis, side in re.findall(r"'(\w+)'=(\d+)", named[1])}
    return math.prod(sides[axis] for axis in re.findall(r"'(\w+)'", named[2]))


def payload_bytes(kind: str, given: str, group: int, started: bool) -> int:
    """Returns the bytes of the whole of a collective's arrays. given: the type of its result."""
    arrays = array_bytes(given)
    if started and kind != "all-reduce":
        return max(arrays)  # its arguments are part of the result
    return sum(arrays) * (group if kind == "reduce-scatter" else 1)


def loops_around(found: dict[str, list[str]]) -> dict[str, int]:
    """Returns how many loops each computation lies inside of."""
    called_by: dict[str, tuple[str, int]] = {}
    for name, lines in found.items():
        for line in lines:
            for role, callee in re.findall(r"\b(body|condition|calls|to_apply)=%?([\w.\-]+)", line):
                called_by[callee] = (name, int(role == "body"))
            for branches in re.findall(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}", line):
                called_by |= {callee.strip(" %"): (name, 0) for callee in branches.split(",")}

    def loops(name: str) -> int:
        caller, more = called_by.get(name, (None, 0))
        return 0 if caller is None else loops(caller) + more

    return {name: loops(name) for name in found}


def read_collectives(text: str) -> list[Collective]:
    """Returns what crosses between devices, in the order of the text; what a loop repeats is there once."""
    everything, found = computations(text, fused=True), []
    loops = loops_around(everything)
    for name, lines in everything.items():
        for line in lines:
            made = COLLECTIVE.search(line)
            if made:
                group = group_size(line)
                payload = payload_bytes(made[2], made[1], group, started="-start(" in made[0])
                found.append(Collective(made[2], payload, group, loops[name]))
    return found


def traffic(text: str) -> int:
    """Returns the bytes that instructions read and write in the devices' memory; the body of a loop counts once.

    Each operand and result once, whole, but for what lies on the chip itself, which a TPU's compiler marks as memory
    space 1. XLA's own count, "bytes accessed", is no help with the gathers of random crops and warps: they made 2.6 TB
    for 32 images of 224 pixels, whatever the model.
    """
    total = 0
    for lines in computations(text).values():
        made = [found for found in map(INSTRUCTION.match, lines) if found]
        sizes = {name: off_chip_bytes(given) for name, given, *_ in (found.groups() for found in made)}
        for name, _, operation, rest in (found.groups() for found in made):
            if operation in FREE or operation.endswith("-done"):
                continue
            # What is begun has its operands in its result.
            read = [] if operation.endswith("-start") else operands(rest)
            total += sizes[name] + sum(sizes.get(operand, 0) for operand in read)
    return total


def off_chip_bytes(given: str) -> int:
    """Returns the bytes of a type's arrays that lie in the devices' memory."""
    return sum(size for size, marks in array_sizes(given) if "S(1)" not in marks)


def operands(rest: str) -> list[str]:
    """Returns the names in the parentheses of an instruction."""
    return re.findall(r"%([\w.\-]+)", rest.partition(")")[0])


def read_program(text: str) -> dict[str, Any]:
    """Returns what a compiled program's text tells: {cycles, pallas_flops, collectives: {kind: number}}.

    cycles: estimated by the compiler, of all operations but Pallas calls; the body of a loop counts once.
    """
    cycles = pallas_flops = 0
    for line in (line for lines in computations(text).values() for line in lines):
        cycles += sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', line)))
        if 'custom_call_target="tpu_custom_call"' in line:
            pallas_flops += sum(map(int, re.findall(r'"cost_estimate":\{"flops":"(\d+)"', line)))
    kinds = Counter(each.kind for each in read_collectives(text))
    return {"cycles": cycles, "pallas_flops": pallas_flops, "collectives": dict(kinds)}
