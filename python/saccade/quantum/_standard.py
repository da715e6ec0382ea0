"""Any gate by those of OpenQASM's stdgates.inc, global phases included."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace

from saccade.quantum._angle import AngleLike, angle
from saccade.quantum._operation import Operation, constant_matrix, make

# how many controls a gate may have in stdgates.inc
STANDARD: dict[str, tuple[int, ...]] = {
    "id": (0,), "sx": (0,), "s": (0,), "sdg": (0,), "t": (0,), "tdg": (0,), "gphase": (0,),
    "x": (0, 1, 2), "y": (0, 1), "z": (0, 1), "h": (0, 1),
    "rx": (0, 1), "ry": (0, 1), "rz": (0, 1), "p": (0, 1), "swap": (0, 1),
}  # fmt: skip
_PHASES = {"z": math.pi, "s": math.pi / 2, "t": math.pi / 4}
_PHASES |= {"sdg": -math.pi / 2, "tdg": -math.pi / 4}


def standard(operation: Operation) -> list[Operation]:
    """Return the same as gates of :data:`STANDARD`; barriers and marks stay."""
    if not operation.is_gate or len(operation.controls) in STANDARD.get(operation.name, ()):
        return [operation]
    return [step for part in once(operation) for step in standard(part)]


def _gate(
    name: str, wires: tuple[int, ...], *angles: AngleLike, controls: tuple[int, ...] = ()
) -> Operation:
    return Operation(name, wires, tuple(map(angle, angles)), controls)


def once(o: Operation) -> list[Operation]:
    """One step towards standard gates; what stands in a conjugation needs no controls."""
    name, c = o.name, o.controls
    if name == "unitary":
        return _one_qubit(o) if len(o.wires) == 1 else _synthesised(o)
    if name in ("u3", "rot"):
        return o.factors()
    if name == "pauli_rot":
        return _pauli_rotation(o)
    if name in ("iswap", "ecr", "swap"):
        return _exchange(o)
    if name == "gphase":  # under controls: a phase of the last one
        return [_gate("p", c[-1:], *o.angles, controls=c[:-1])]
    if name == "id":
        return []
    w = o.wires
    if name in _PHASES:
        return [_gate("p", w, _PHASES[name], controls=c)]
    if name in ("sx", "sxdg"):
        phase = math.pi / 2 if name == "sx" else -math.pi / 2
        return [_gate("h", w), _gate("p", w, phase, controls=c), _gate("h", w)]
    if name == "x":
        return [_gate("h", w), _gate("p", w, math.pi, controls=c), _gate("h", w)]
    if name == "y":
        return [_gate("sdg", w), _gate("x", w, controls=c), _gate("s", w)]
    if name == "h":
        inner = _gate("z", w, controls=c)
        return [_gate("ry", w, -math.pi / 4), inner, _gate("ry", w, math.pi / 4)]
    (t,) = o.angles
    if name == "ry":
        return [_gate("sdg", w), _gate("rx", w, t, controls=c), _gate("s", w)]
    if name == "rx":
        return [_gate("h", w), _gate("rz", w, t, controls=c), _gate("h", w)]
    if name == "rz":
        rest = _gate("p", c[-1:], t * -0.5, controls=c[:-1])
        return [_gate("p", w, t, controls=c), rest]
    return _phase(o)


def _phase(o: Operation) -> list[Operation]:
    """P(t) under k controls by those under k - 1 (Barenco et al. 1995, lemma 7.5)."""
    (t,), last, rest = o.angles, o.controls[-1:], o.controls[:-1]
    flip = _gate("x", last, controls=rest)
    half = _gate("p", o.wires, t * 0.5, controls=last)
    return [
        half,
        flip,
        _gate("p", o.wires, t * -0.5, controls=last),
        flip,
        _gate("p", o.wires, t * 0.5, controls=rest),
    ]


def _pauli_rotation(o: Operation) -> list[Operation]:
    before: list[Operation] = []
    for wire, letter in zip(o.wires, o.pauli, strict=True):
        if letter == "Y":
            before.append(_gate("sdg", (wire,)))
        if letter != "Z":
            before.append(_gate("h", (wire,)))
    before += [
        _gate("x", (second,), controls=(first,))
        for first, second in zip(o.wires, o.wires[1:], strict=False)
    ]
    rotation = _gate("rz", o.wires[-1:], *o.angles, controls=o.controls)
    return [*before, rotation, *(step.inverse() for step in reversed(before))]


def _exchange(o: Operation) -> list[Operation]:
    a, b = o.wires
    if o.name == "ecr":
        echo = make("rzx", (a, b), (math.pi / 4,))
        return [echo, _gate("x", (a,), controls=o.controls), echo.inverse()]
    cx = _gate("x", (a,), controls=(b,))
    if o.name == "swap":
        return [cx, _gate("x", (b,), controls=(*o.controls, a)), cx]
    # iswap: exp(i (XX + YY) pi/4)
    return [
        replace(make(name, (a, b), (-math.pi / 2,)), controls=o.controls) for name in ("rxx", "ryy")
    ]


def _one_qubit(o: Operation) -> list[Operation]:
    """A 2x2 matrix as e^(ia) u3(t, p, l)."""
    m = o.matrix
    t = 2 * math.atan2(abs(m[2]), abs(m[0]))
    # the larger entry of the first column has the more certain phase
    if abs(m[0]) >= abs(m[2]):
        a = cmath.phase(m[0])
        p, q = (
            (cmath.phase(m[2]) - a, cmath.phase(-m[1]) - a)
            if abs(m[2]) > 1e-12
            else (0.0, cmath.phase(m[3]) - a)
        )
    else:
        a = cmath.phase(-m[1]) if abs(m[0]) <= 1e-12 else cmath.phase(m[0])
        p, q = cmath.phase(m[2]) - a, cmath.phase(-m[1]) - a
    phase = _gate("gphase", (), a, controls=o.controls)
    whole = _gate("u3", o.wires, t, p, q, controls=o.controls)
    return [phase, whole]


def _synthesised(o: Operation) -> list[Operation]:
    from saccade.quantum._from_qiskit import synthesise

    return synthesise(constant_matrix(o).numpy(), o.all_wires)
