"""Benchmark of state-vector simulation: a batch through a variational circuit, and its gradient."""

from __future__ import annotations

import torch

import saccade
from saccade.bench._suite import (
    FORWARD,
    TRAINING,
    Case,
    Function,
    Inputs,
    Ours,
    SpeedTarget,
    Suite,
    Work,
)
from saccade.bench.peers.statevector import PEERS
from saccade.ops import Program, input_angle, instruction, param_angle, pauli_sums


def circuit(n: int, layers: int) -> Program:
    """RY of the inputs, then layers of RX, RY, RZ on every wire and a ring of CNOT."""
    steps = [instruction("ry", q, input_angle(q)) for q in range(n)]
    for layer in range(layers):
        for q in range(n):
            slot = 3 * (layer * n + q)
            steps += [
                instruction(name, q, param_angle(slot + k))
                for k, name in enumerate(("rx", "ry", "rz"))
            ]
        steps += [instruction("cx", (q, (q + 1) % n)) for q in range(n)]
    return Program(n, tuple(steps))


class Saccade(Ours):
    """The operator itself, on a backend; "auto" is what users get."""

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the circuit."""
        n = case.kwargs["n"]
        program = circuit(n, case.kwargs["layers"])
        sums = pauli_sums(["I" * q + "Z" + "I" * (n - 1 - q) for q in range(n)], n)

        def run(x: Inputs) -> torch.Tensor:
            double = x["params"].dtype == torch.float64
            return saccade.ops.statevector_expval(
                program, x["params"], x["inputs"], sums,
                dtype=torch.complex128 if double else torch.complex64, backend=self.backend,
            )  # fmt: skip

        return run


def make_case(name: str, origin: str, batch: int, n: int, layers: int) -> Case:
    """<Z> of every wire for every sample.

    Work: one 2x2 a wire and layer on every pair of amplitudes, 14 operations an amplitude; the
    first layer is a product state, 6 operations. The gradient undoes every 2x2 on two states and
    sums four products a pair. Elements are the inputs and the values; states stay in a cache.
    """
    amplitudes = float(batch * 2**n)
    passes = n * (layers - 1)
    forward = amplitudes * (14.0 * passes + 6 + 3 + n)
    backward = amplitudes * ((2 * 14.0 + 16) * passes + 30 + n)
    elements = batch * 2.0 * n + 3 * n * layers
    return Case(
        name,
        origin,
        {"inputs": (batch, n), "params": (3 * n * layers,)},
        {"n": n, "layers": layers},
        {
            FORWARD: Work(forward, elements),
            TRAINING: Work(forward + backward, 2 * elements),
        },
    )


CASES = (
    make_case("n8", "a quantum layer in a network: 64 samples, 8 qubits", 64, 8, 3),
    make_case("n12", "16 samples, 12 qubits", 16, 12, 3),
    make_case("n16", "one sample, 16 qubits", 1, 16, 3),
    make_case("n4", "a small quantum layer: 32 samples, 4 qubits", 32, 4, 2),
    make_case("n20", "one sample, 20 qubits", 1, 20, 3),
)


def tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """The error that the gate allows, relative to the largest entry of the tensor."""
    return {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]


SUITE = Suite(
    operator="statevector",
    cases=CASES,
    default_cases=("n8", "n12", "n16"),
    small=make_case("small", "warm-up and tests", 3, 3, 2),
    ours=Saccade,
    peers=PEERS,
    quick_peers=("torch-einsum", "qulacs", "lightning.qubit"),
    truth=Saccade("reference"),
    tolerance=tolerance,
    speed_targets=(
        SpeedTarget("n8", FORWARD, ("qulacs", "default.qubit", "lightning.qubit"), 25.0),
        SpeedTarget("n8", TRAINING, ("qulacs", "default.qubit", "lightning.qubit"), 35.0),
        SpeedTarget("n12", FORWARD, ("qulacs",), 12.0),
        SpeedTarget("n12", TRAINING, ("qulacs",), 15.0),
        SpeedTarget("n16", FORWARD, ("lightning.qubit",), 6.0),
        SpeedTarget("n16", TRAINING, ("lightning.qubit",), 8.0),
    ),
)
