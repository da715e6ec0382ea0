"""Random circuits over every gate, as programs and as Qiskit's circuits."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.ops._statevector_program import (
    ALIASES,
    GATES,
    ROTATIONS,
    Instruction,
    Program,
    Value,
    fixed_angle,
    input_angle,
    instruction,
    param_angle,
)

N_PARAMS, N_INPUTS = 5, 3
NAMES = [*GATES, *ALIASES, *ROTATIONS]


def wires_of(name: str) -> int:
    """How many wires an instruction of this name is given."""
    if name in ROTATIONS:
        return 2
    base, controls = ALIASES.get(name, (name, 0))
    own = {"pauli_rot": 3, "unitary": 2, "gphase": 0}.get(base, GATES[base].wires)
    return own + controls


def random_unitary(generator: random.Random, wires: int) -> Tensor:
    seed = torch.Generator().manual_seed(generator.randrange(2**31))
    parts = torch.randn(2, 2**wires, 2**wires, dtype=torch.float64, generator=seed)
    return torch.linalg.qr(torch.complex(parts[0], parts[1])).Q


def random_value(generator: random.Random) -> Value:
    scale, shift = generator.uniform(-2, 2), generator.uniform(-1, 1)
    return generator.choice(
        [
            fixed_angle(generator.uniform(-4, 4)),
            param_angle(generator.randrange(N_PARAMS), scale, shift),
            input_angle(generator.randrange(N_INPUTS), scale, shift),
        ]
    )


def random_instruction(generator: random.Random, name: str, n: int) -> Instruction | None:
    """An instruction on random wires of n; None where it has not room enough."""
    count = wires_of(name)
    if count > n and name in ("pauli_rot", "unitary"):
        count = n
    if count > n:
        return None
    wires = generator.sample(range(n), count)
    base = ALIASES.get(name, (name, 0))[0]
    free = sorted(set(range(n)) - set(wires))
    room = min(len(free), 3 - ALIASES.get(name, ("", 0))[1])
    if base == "unitary":
        room = min(room, 4 - count)
    controls = generator.sample(free, generator.choice([0, 0, 0, min(1, room), room]))
    if base == "gphase":
        controls = []
    values = [random_value(generator) for _ in range(GATES.get(base, GATES["rx"]).values)]
    pauli = "".join(generator.choice("IXYZ") for _ in wires) if name == "pauli_rot" else ""
    matrix = random_unitary(generator, count) if name == "unitary" else None
    return instruction(name, wires, values, controls=controls, pauli=pauli, matrix=matrix)


def random_program(n: int, length: int, seed: int, names: list[str] | None = None) -> Program:
    """`length` gates that take turns over all names, in random order."""
    generator = random.Random(seed)
    order = [name for _ in range(length // len(names or NAMES) + 1) for name in (names or NAMES)]
    generator.shuffle(order)
    drawn = [random_instruction(generator, name, n) for name in order[:length]]
    return Program(n, tuple(d for d in drawn if d is not None), N_PARAMS, N_INPUTS)


DAGGERS = {"s": "sdg", "t": "tdg", "sx": "sxdg"}
DAGGERS |= {dagger: gate for gate, dagger in DAGGERS.items()}


def _inverse(entry: Instruction) -> list[Instruction]:
    """Instructions that undo one."""
    if entry.name == "iswap":  # the fourth power is the identity
        return [entry] * 3
    values = tuple(replace(v, coefficient=-v.coefficient, offset=-v.offset) for v in entry.values)
    if entry.name == "rot":
        values = values[::-1]
    if entry.name == "u3":
        values = values[0], values[2], values[1]
    size = 2 ** len(entry.wires)
    matrix = (
        tuple(
            entry.matrix[column * size + row].conjugate()
            for row in range(size)
            for column in range(size)
        )
        if entry.matrix
        else ()
    )
    name = DAGGERS.get(entry.name, entry.name)
    return [replace(entry, name=name, values=values, matrix=matrix)]


def inverse(program: Program) -> Program:
    """The circuit that undoes one."""
    steps = [gate for entry in reversed(program.instructions) for gate in _inverse(entry)]
    return replace(program, instructions=tuple(steps))


def random_values(
    batch: int, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Parameters [P] and inputs [B, Pb]."""
    seeded = torch.Generator().manual_seed(seed)
    params = torch.randn(N_PARAMS, dtype=torch.float64, generator=seeded)
    inputs = torch.randn(batch, N_INPUTS, dtype=torch.float64, generator=seeded)
    return params.to(dtype), inputs.to(dtype)


def random_state(batch: int, n: int, seed: int) -> Tensor:
    seeded = torch.Generator().manual_seed(seed)
    parts = torch.randn(2, batch, 2**n, dtype=torch.float64, generator=seeded)
    state = torch.complex(parts[0], parts[1])
    return state / state.norm(dim=-1, keepdim=True)


def ring(n: int, layers: int) -> Program:
    """RY of the inputs, then layers of RX, RY, RZ on every wire and a ring of CNOT."""
    steps = [instruction("ry", q, input_angle(q)) for q in range(n)]
    for layer in range(layers):
        for q in range(n):
            slot = 3 * (layer * n + q)
            steps += [
                instruction(name, q, param_angle(slot + k))
                for k, name in enumerate(("rx", "ry", "rz"))
            ]
        steps += [instruction("cx", (q, (q + 1) % n)) for q in range(n)] if n > 1 else []
    return Program(n, tuple(steps))


def random_sums(n: int, count: int, seed: int) -> list[dict[str, float]]:
    generator = random.Random(seed)
    words = [
        "".join(generator.choice(letters) for _ in range(n))
        for letters in ["IZ", "IXYZ", "IIIX", "Z"]
        for _ in range(2)
    ]
    return [
        {word: generator.uniform(-1, 1) for word in generator.sample(words, 3)}
        for _ in range(count)
    ]


def _controlled(gate: Any, controls: int) -> Any:
    """Qiskit synthesises the control of a matrix, to some 1e-12: its own matrix is exact."""
    from qiskit.circuit import library

    if not isinstance(gate, library.UnitaryGate):
        return gate.control(controls, annotated=False)
    matrix = gate.to_matrix()
    whole = np.eye(len(matrix) << controls, dtype=complex)
    on = (np.arange(len(matrix)) << controls) | ((1 << controls) - 1)
    whole[np.ix_(on, on)] = matrix
    return library.UnitaryGate(whole)


def qiskit_state(program: Program, params: Tensor, inputs: Tensor) -> np.ndarray[Any, Any]:
    """Qiskit's statevector for one sample of inputs [Pb]: qubit k is wire k, so its order is
    little."""
    from qiskit import QuantumCircuit, QuantumRegister
    from qiskit.circuit import library
    from qiskit.quantum_info import Pauli, Statevector

    sources = {"param": params, "input": inputs}
    circuit = QuantumCircuit(QuantumRegister(program.n_wires))
    gates = {
        "id": library.IGate, "h": library.HGate, "x": library.XGate, "y": library.YGate,
        "z": library.ZGate, "s": library.SGate, "sdg": library.SdgGate, "t": library.TGate,
        "tdg": library.TdgGate, "sx": library.SXGate, "sxdg": library.SXdgGate,
        "rx": library.RXGate, "ry": library.RYGate, "rz": library.RZGate, "p": library.PhaseGate,
        "u3": library.UGate, "swap": library.SwapGate, "iswap": library.iSwapGate,
        "ecr": library.ECRGate,
    }  # fmt: skip
    for entry in program.instructions:
        angles = [
            v.offset + (v.coefficient * float(sources[v.source][v.index]) if v.coefficient else 0)
            for v in entry.values
        ]
        wires = list(entry.wires)
        if entry.name == "gphase":
            circuit.global_phase += angles[0]
            continue
        if entry.name == "rot":
            one = QuantumCircuit(1)
            one.rz(angles[0], 0)
            one.ry(angles[1], 0)
            one.rz(angles[2], 0)
            gate = one.to_gate()
        elif entry.name == "pauli_rot":
            # Qiskit reads a label from the right
            word = Pauli(entry.pauli[::-1]).to_matrix()
            eye = np.eye(len(word))
            matrix = math.cos(angles[0] / 2) * eye - 1j * math.sin(angles[0] / 2) * word
            gate = library.UnitaryGate(matrix)
        elif entry.name == "unitary":
            size = 2 ** len(wires)
            gate = library.UnitaryGate(np.array(entry.matrix).reshape(size, size))
            wires = wires[::-1]
        else:
            gate = gates[entry.name](*angles)
        if entry.controls:
            gate = _controlled(gate, len(entry.controls))
        circuit.append(gate, [*entry.controls, *wires])
    return np.asarray(Statevector(circuit).data)
