"""Circuits as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saccade.quantum._operation import BARRIER, CUT, Operation

if TYPE_CHECKING:
    from saccade.quantum.circuit import Circuit

WIDTH = 100
MAX_COLUMNS = 400


def draw(circuit: Circuit) -> str:
    """Return a line a wire; a step stands in the first column that is free on its wires."""
    n = circuit.n_wires
    columns: list[dict[int, str]] = []
    links: list[set[int]] = []  # gaps below a wire that a column's gates cross
    free = [0] * n
    for operation in circuit.operations:
        cells = _cells(operation, n)
        low, high = min(cells), max(cells)
        at = max(free[low : high + 1])
        if at == len(columns):
            columns.append({})
            links.append(set())
        columns[at] |= cells
        if operation.is_gate and operation.wires:
            links[at] |= set(range(low, high))
        for wire in range(low, high + 1):
            free[wire] = at + 1
    hidden = max(0, len(columns) - MAX_COLUMNS)
    text = _lines(columns[:MAX_COLUMNS], links, n)
    return text + (f"\n... {hidden} more columns" if hidden else "")


def _cells(operation: Operation, n: int) -> dict[int, str]:
    if operation.name == BARRIER:
        return dict.fromkeys(operation.wires, "|")
    if operation.name == CUT:
        return {operation.wires[0]: "//"}
    angles = ", ".join(map(str, operation.angles))
    if operation.name == "gphase":
        return {w: f"gphase({angles})" if w == 0 else "" for w in range(n)}
    name = operation.pauli if operation.name == "pauli_rot" else operation.name.upper()
    if operation.name == "swap":
        cells = dict.fromkeys(operation.wires, "x")
    elif operation.name == "x" and operation.controls:
        cells = {operation.wires[0]: "(+)"}
    elif len(operation.wires) == 1:
        prefix = "R" if operation.name == "pauli_rot" else ""
        cells = {operation.wires[0]: f"{prefix}{name}" + (f"({angles})" if angles else "")}
    else:
        letters = operation.pauli or "".join(str(i) for i in range(len(operation.wires)))
        cells = {}
        for i, wire in enumerate(operation.wires):
            label = f"R{name}" if operation.name == "pauli_rot" else name
            cells[wire] = f"{label}:{letters[i]}"
        first = min(operation.wires)
        cells[first] += f"({angles})" if angles else ""
    return cells | dict.fromkeys(operation.controls, "o")


def _lines(columns: list[dict[int, str]], links: list[set[int]], n: int) -> str:
    label = len(str(n - 1)) + 2
    blocks: list[list[str]] = []
    rows = [""] * (2 * n - 1)
    for column, crossed in zip(columns, links, strict=False):
        width = max(map(len, column.values())) + 2
        if len(rows[0]) + width > WIDTH - label and rows[0]:
            blocks.append(rows)
            rows = [""] * (2 * n - 1)
        for wire in range(n):
            inside = wire in crossed and wire - 1 in crossed
            cell = column.get(wire, "|" if inside else "")
            rows[2 * wire] += cell.center(width, "-")
            if wire < n - 1:
                rows[2 * wire + 1] += ("|" if wire in crossed else "").center(width)
    blocks.append(rows)
    text = []
    for block in blocks:
        lines = [
            (f"{i // 2}: ".rjust(label) if i % 2 == 0 else " " * label) + line
            for i, line in enumerate(block)
        ]
        text.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(text)
