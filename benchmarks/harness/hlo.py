"""Collectives of a compiled program, read from its optimised HLO."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

_KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
# `-start` of an asynchronous pair has the operands; `-done` would count it twice.
_COLLECTIVE = re.compile(rf" = (.+?) ({_KINDS})(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+))\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|true_computation|false_computation)=%([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WHILE = re.compile(r"condition=%([\w.\-]+), body=%([\w.\-]+)")
_TRIPS = re.compile(r"s32\[\]\S* constant\((\d+)\)")


class Collective(NamedTuple):
    """What the collectives of one kind move in one call of the program.

    Attributes:
      calls: how often they run.
      bytes: of their results, on one device.
    """

    calls: int
    bytes: int


def collectives(text: str) -> dict[str, Collective]:
    """Count the collectives that one call of a program runs.

    A collective inside a loop runs as often as the loop does, which is the constant in
    the loop's condition; one in a branch is counted as if that branch were taken.

    Args:
      text: of `jax.stages.Compiled.as_text`.

    Returns:
      kind, such as "all-reduce" -> calls and bytes.
    """
    entry, lines = _computations(text)
    runs = _runs(entry, lines)
    found: dict[str, Collective] = {}
    for name, body in lines.items():
        for line in body:
            if match := _COLLECTIVE.search(line):
                shapes, kind = match.groups()
                before, times = found.get(kind, Collective(0, 0)), runs[name]
                size = times * _bytes(shapes)
                found[kind] = Collective(before.calls + times, before.bytes + size)
    return {kind: found[kind] for kind in sorted(found)}


def _bytes(shapes: str) -> int:
    """Add up the bytes of the arrays that a type names."""
    sizes = []
    for name, bits, dims in _ARRAY.findall(shapes):
        width = 1 if name == "pred" else max(1, int(bits) // 8)
        sizes.append(width * math.prod(int(d) for d in dims.split(",") if d))
    return sum(sizes)


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """Split a program: the name of its entry, and computation -> its lines."""
    entry, name, lines = "", "", defaultdict(list)
    for line in text.splitlines():
        if match := _HEADER.match(line):
            name = match.group(2)
            entry = name if match.group(1) else entry
        elif line == "}":
            name = ""
        elif name:
            lines[name].append(line)
    return entry, dict(lines)


def _runs(entry: str, lines: Mapping[str, list[str]]) -> dict[str, int]:
    """Count how often each computation runs in one call of the entry."""
    runs: dict[str, int] = defaultdict(int)

    def visit(name: str, times: int) -> None:
        runs[name] += times
        for line in lines.get(name, ()):
            for called, trips in _calls(line, lines):
                visit(called, times * trips)

    visit(entry, 1)
    return runs


def _calls(line: str, lines: Mapping[str, list[str]]) -> list[tuple[str, int]]:
    """List the computations that an instruction calls, and how often."""
    if match := _WHILE.search(line):
        condition, body = match.groups()
        bounds = _TRIPS.findall("\n".join(lines.get(condition, ())))
        # A loop whose end depends on data has no bound there; it is counted once.
        return [(body, max(map(int, bounds), default=1))]
    branches = [
        b.strip().lstrip("%") for x in _BRANCHES.findall(line) for b in x.split(",")
    ]
    return [(name, 1) for name in (*_CALLED.findall(line), *branches)]
