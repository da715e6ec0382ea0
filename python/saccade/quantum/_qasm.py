"""Circuits in OpenQASM 3."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from saccade.quantum._angle import Angle, Symbol
from saccade.quantum._operation import BARRIER, CUT, Operation
from saccade.quantum._standard import standard

if TYPE_CHECKING:
    from saccade.quantum.circuit import Circuit

# words of the language, the gates of stdgates.inc, and our register
_WORDS = """let const if else for while return def gate qubit bit int uint float angle bool complex
array input output measure reset barrier delay box ctrl negctrl inv pow gphase U pi tau euler in
id h x y z s sdg t tdg sx rx ry rz p cx cy cz ch cp crx cry crz swap ccx cswap cu u1 u2 u3 CX phase
cphase q"""
_RESERVED = frozenset(_WORDS.split())


def to_qasm3(circuit: Circuit) -> str:
    """Write a circuit; shared parameters and features become inputs of the program."""
    if circuit.amplitudes is not None:
        raise ValueError("OpenQASM 3 has no amplitude encoding: prepare the state by gates.")
    steps = [s for operation in circuit.operations for s in standard(operation)]
    names: dict[Symbol, str] = {}
    for symbol in dict.fromkeys(s for o in steps for a in o.angles for s, _ in a.terms):
        names[symbol] = _identifier(symbol, set(names.values()))
    lines = ["OPENQASM 3.0;", 'include "stdgates.inc";']
    lines += [f"input float[64] {name};" for name in names.values()]
    lines.append(f"qubit[{circuit.n_wires}] q;")
    lines += [_line(o, names) for o in steps if o.name != CUT]
    return "\n".join(lines) + "\n"


def _identifier(symbol: Symbol, taken: set[str]) -> str:
    text = re.sub(r"\W+", "_", str(symbol)).strip("_")
    if not text or text[0].isdigit() or text in _RESERVED:
        text = f"p_{text}"
    while text in taken:
        text += "_"
    return text


def _line(o: Operation, names: dict[Symbol, str]) -> str:
    qubits = ", ".join(f"q[{w}]" for w in o.all_wires)
    if o.name == BARRIER:
        return f"barrier {qubits};"
    angles = ", ".join(_expression(a, names) for a in o.angles)
    if o.name == "gphase":
        return f"gphase({angles});"
    return f"{o.title}({angles}) {qubits};" if angles else f"{o.title} {qubits};"


def _expression(given: Angle, names: dict[Symbol, str]) -> str:
    text = ""
    for symbol, coefficient in given.terms:
        sign = (" - " if text else "-") if coefficient < 0 else (" + " if text else "")
        factor = "" if abs(coefficient) == 1 else f"{abs(coefficient)!r}*"
        text += f"{sign}{factor}{names[symbol]}"
    if not text:
        return repr(given.constant)
    if given.constant:
        text += f" {'-' if given.constant < 0 else '+'} {abs(given.constant)!r}"
    return text
