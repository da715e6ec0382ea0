"""Quantum circuits: building, encodings, Qiskit in and out, cutting, hybrid networks."""

from saccade.nn.statevector import QuantumLayer
from saccade.quantum._angle import Angle, feature, param
from saccade.quantum._from_qiskit import from_qiskit
from saccade.quantum.circuit import Circuit
from saccade.quantum.cutting import CutCircuit, cut
from saccade.quantum.executors import PrimitiveExecutor

__all__ = [
    "Angle",
    "Circuit",
    "CutCircuit",
    "PrimitiveExecutor",
    "QuantumLayer",
    "cut",
    "feature",
    "from_qiskit",
    "param",
]
