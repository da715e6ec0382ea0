"""Circuits over every gate, and their exact states."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from saccade.quantum import Circuit, feature, param
from saccade.reference.statevector import statevector as _run

# name: wires, angles
ONE_GATE = {
    "id": (1, 0), "h": (1, 0), "x": (1, 0), "y": (1, 0), "z": (1, 0), "s": (1, 0), "sdg": (1, 0),
    "t": (1, 0), "tdg": (1, 0), "sx": (1, 0), "sxdg": (1, 0),
    "rx": (1, 1), "ry": (1, 1), "rz": (1, 1), "p": (1, 1), "u": (1, 3), "rot": (1, 3),
    "cx": (2, 0), "cy": (2, 0), "cz": (2, 0), "ch": (2, 0), "cs": (2, 0), "csdg": (2, 0),
    "csx": (2, 0), "crx": (2, 1), "cry": (2, 1), "crz": (2, 1), "cp": (2, 1), "cu3": (2, 3),
    "swap": (2, 0), "iswap": (2, 0), "ecr": (2, 0),
    "rxx": (2, 1), "ryy": (2, 1), "rzz": (2, 1), "rzx": (2, 1),
    "ccx": (3, 0), "ccz": (3, 0), "cswap": (3, 0),
}  # fmt: skip
PAULIS = ("X", "Y", "YX", "XZ", "ZIY", "XYZ", "YYXZ")
CONTROLLED = (
    *((name, n) for name in ("h", "y", "x", "sx", "s", "rx", "ry", "rz", "p") for n in (2, 3)),
    *((name, 2) for name in ("u3", "rot", "swap", "sxdg")),
    *((name, 1) for name in ("rot", "iswap", "ecr", "t", "id", "sxdg")),
)


def single(name: str) -> Circuit:
    """One gate between layers that leave no symmetry."""
    wires, angles = ONE_GATE[name]
    return around(
        lambda c: getattr(c, name)(*range(wires), *(0.3 + 0.9 * i for i in range(angles)))
    )


def around(middle, n: int = 4) -> Circuit:
    circuit = Circuit(n)
    for wire in range(n):
        circuit.u(wire, 0.4 + 0.3 * wire, 1.1 - 0.5 * wire, 0.2 + wire)
    middle(circuit)
    for wire in range(n):
        circuit.ry(wire, 0.7 - 0.2 * wire)
    return circuit


def random_unitary(k: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    m = rng.normal(size=(2**k, 2**k)) + 1j * rng.normal(size=(2**k, 2**k))
    q, r = np.linalg.qr(m)
    return q * (np.diag(r) / abs(np.diag(r)))


def every(n: int, gates: int, seed: int) -> Circuit:
    """A random circuit over every gate that fits, with numbers, parameters and features."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(n)
    for wire in range(n):
        circuit.ry(wire, feature(wire))
    names = [name for name, (wires, _) in ONE_GATE.items() if wires <= n]
    for _ in range(gates):
        name = names[rng.integers(len(names))]
        wires, angles = ONE_GATE[name]
        chosen = [int(w) for w in rng.permutation(n)[:wires]]
        getattr(circuit, name)(*chosen, *(_angle(rng) for _ in range(angles)))
    if n > 1:
        chosen = [int(w) for w in rng.permutation(n)[: min(n, 3)]]
        circuit.pauli_rot("YXZ"[: len(chosen)], chosen, _angle(rng))
        circuit.unitary(random_unitary(2, seed), chosen[:2])
    return circuit.barrier().global_phase("a")


def _angle(rng: np.random.Generator):
    choices = [
        float(rng.uniform(-math.pi, math.pi)),
        param("a"),
        2 * param("b") + 0.3,
        param("c") - param("a") / 2,
        -0.7 * feature(0),
    ]
    return choices[rng.integers(len(choices))]


def values(circuit: Circuit, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Params [P] and inputs [batch, Pb]."""
    generator = torch.Generator().manual_seed(7)
    params = torch.randn(circuit.n_params, generator=generator, dtype=torch.float64)
    shape = (batch, circuit.n_inputs)
    return params, torch.randn(shape, generator=generator, dtype=torch.float64)


def state(circuit: Circuit, params=None, inputs=None, bit_order: str = "little") -> Tensor:
    """By the reference, complex128."""
    program = circuit.program()
    if params is None:
        params, inputs = torch.zeros(0, dtype=torch.float64), None
    return _run(program, params, inputs, None, torch.complex128, bit_order)
