"""Circuits as Qiskit's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saccade._extras import require
from saccade.quantum._angle import Angle, Symbol
from saccade.quantum._operation import BARRIER, CUT, Operation, constant_matrix
from saccade.quantum._standard import standard

if TYPE_CHECKING:
    from saccade.quantum.circuit import Circuit

# fmt: off
CLASSES: dict[tuple[str, int], str] = {
    ("id", 0): "IGate", ("h", 0): "HGate", ("x", 0): "XGate", ("y", 0): "YGate",
    ("z", 0): "ZGate", ("s", 0): "SGate", ("sdg", 0): "SdgGate", ("t", 0): "TGate",
    ("tdg", 0): "TdgGate", ("sx", 0): "SXGate", ("sxdg", 0): "SXdgGate",
    ("rx", 0): "RXGate", ("ry", 0): "RYGate", ("rz", 0): "RZGate", ("p", 0): "PhaseGate",
    ("u3", 0): "UGate", ("swap", 0): "SwapGate", ("iswap", 0): "iSwapGate", ("ecr", 0): "ECRGate",
    ("x", 1): "CXGate", ("y", 1): "CYGate", ("z", 1): "CZGate", ("h", 1): "CHGate",
    ("s", 1): "CSGate", ("sdg", 1): "CSdgGate", ("sx", 1): "CSXGate", ("rx", 1): "CRXGate",
    ("ry", 1): "CRYGate", ("rz", 1): "CRZGate", ("p", 1): "CPhaseGate", ("u3", 1): "CU3Gate",
    ("swap", 1): "CSwapGate", ("x", 2): "CCXGate", ("z", 2): "CCZGate",
    ("x", 3): "C3XGate", ("sx", 3): "C3SXGate",
}
PAIRS = {"XX": "RXXGate", "YY": "RYYGate", "ZZ": "RZZGate", "ZX": "RZXGate"}
# fmt: on


@dataclass
class Exported:
    """A circuit of Qiskit's and what each of its parameters is here.

    Attributes:
        circuit: the QuantumCircuit.
        columns: (parameter, "param" or "input", index), in the order of circuit.parameters.
    """

    circuit: Any
    columns: list[tuple[Any, str, int]]


def library() -> Any:
    """Qiskit's gates."""
    return require("qiskit.circuit.library", extra="quantum", purpose="Qiskit's circuits")


def to_qiskit(circuit: Circuit, state: Tensor | None = None) -> Exported:
    """Translate a circuit, with its state's preparation if there is one."""
    q = require("qiskit.circuit", extra="quantum", purpose="to_qiskit")
    result = q.QuantumCircuit(circuit.n_wires)
    if state is not None:
        if state.numel() != 2**circuit.n_wires:
            raise ValueError(
                f"state must have 2**{circuit.n_wires} = {2**circuit.n_wires} amplitudes, "
                f"got shape {tuple(state.shape)}."
            )
        result.append(preparation(state), range(circuit.n_wires))
    elif circuit.amplitudes is not None:
        raise ValueError("amplitude encoding depends on the sample: hand its state to to_qiskit.")
    names = _parameters(circuit, q)
    for operation in circuit.operations:
        _append(result, operation, names)
    columns = {
        parameter: (
            symbol.source,
            circuit._slots[symbol.key] if symbol.source == "param" else int(symbol.key),
        )
        for symbol, parameter in names.items()
    }
    return Exported(result, [(p, *columns[p]) for p in result.parameters])


def preparation(state: Tensor) -> Any:
    """The gate that makes a state [2**n], given with wire 0 most significant."""
    n = state.numel().bit_length() - 1
    axes = tuple(reversed(range(n)))
    little = state.detach().reshape((2,) * n).permute(axes).reshape(-1)
    return library().StatePreparation(little.to(torch.complex128).cpu().numpy(), normalize=True)


def _parameters(circuit: Circuit, q: Any) -> dict[Symbol, Any]:
    symbols = {s for o in circuit.operations for a in o.angles for s, _ in a.terms}
    theta = q.ParameterVector("theta", circuit.n_params)
    x = q.ParameterVector("x", circuit.n_inputs)
    found = {}
    for symbol in symbols:
        if isinstance(symbol.key, str):
            found[symbol] = q.Parameter(symbol.key)
        else:
            found[symbol] = (theta if symbol.source == "param" else x)[symbol.key]
    return found


def _append(result: Any, o: Operation, names: dict[Symbol, Any]) -> None:
    if o.name == BARRIER:
        result.barrier(*o.wires)
    elif o.name == "gphase":
        result.global_phase += expression(o.angles[0], names)
    elif o.name != CUT:
        gate, wires = _gate(o, names)
        if gate is not None:
            result.append(gate, wires)
        else:
            steps = o.factors() if o.name in ("u3", "rot") else standard(o)
            for step in steps:
                _append(result, step, names)


def _gate(o: Operation, names: dict[Symbol, Any]) -> tuple[Any, tuple[int, ...]]:
    """Qiskit's gate and its qubits; None where it has none."""
    gates = library()
    angles = [expression(a, names) for a in o.angles]
    count = len(o.controls)
    if (o.name, count) in CLASSES:
        return getattr(gates, CLASSES[o.name, count])(*angles), o.all_wires
    if o.name == "p":
        return gates.MCPhaseGate(angles[0], count), o.all_wires
    if o.name == "unitary":
        # first wire most significant there, least significant in Qiskit
        matrix = constant_matrix(o).numpy()
        return gates.UnitaryGate(matrix, check_input=False), o.all_wires[::-1]
    if o.name != "pauli_rot" or count:
        return None, ()
    if o.pauli in PAIRS:
        return getattr(gates, PAIRS[o.pauli])(*angles), o.wires
    if o.pauli == "XZ":
        return gates.RZXGate(*angles), o.wires[::-1]
    if len(o.pauli) == 1:
        return getattr(gates, f"R{o.pauli}Gate")(*angles), o.wires
    info = require("qiskit.quantum_info", extra="quantum", purpose="to_qiskit")
    word = info.SparsePauliOp(o.pauli[::-1])
    return gates.PauliEvolutionGate(word, time=angles[0] / 2), o.wires


def expression(given: Angle, names: dict[Symbol, Any]) -> Any:
    """A number, or Qiskit's expression."""
    if not given.terms:
        return given.constant
    parts = [names[s] if c == 1.0 else c * names[s] for s, c in given.terms]
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result + given.constant if given.constant else result
