"""Other simulators on the same circuit: Qulacs, PennyLane's devices, Qiskit Aer and plain torch.

Circuits are built before timing starts. What has no batch loops over the samples; what has no
adjoint for several observables gets the sum of them that the gradient asks for.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.bench._suite import FORWARD, Case, Function, Inputs, Peer


class _Package(Peer):
    """A peer from the package index that runs on the CPU."""

    package: str
    module: str

    def version(self) -> str:
        """The package and its release."""
        if importlib.util.find_spec(self.module) is None:
            return self.package
        return f"{self.package} {metadata.version(self.package)}"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.package} is not installed"
        return None if device.type == "cpu" else "runs on the CPU"


class _Loop(torch.autograd.Function):
    """values [B, n] sample by sample, and gradients of a weighted sum of a sample's values."""

    @staticmethod
    def forward(ctx: Any, runner: Any, inputs: Tensor, params: Tensor) -> Tensor:
        ctx.runner = runner
        ctx.save_for_backward(inputs, params)
        rows = [runner.values(np.concatenate([x, params.numpy()])) for x in inputs.numpy()]
        return torch.from_numpy(np.stack(rows)).to(inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        inputs, params = ctx.saved_tensors
        angles = params.numpy()
        rows = np.stack(
            [
                ctx.runner.gradient(np.concatenate([x, angles]), g)
                for x, g in zip(inputs.numpy(), grad.double().numpy(), strict=True)
            ]
        )
        n = inputs.shape[1]
        of_inputs = torch.from_numpy(rows[:, :n]).to(inputs)
        return None, of_inputs, torch.from_numpy(rows[:, n:].sum(0)).to(params)


class _QulacsRunner:
    """One parametric circuit; Qulacs' rotations turn the other way."""

    def __init__(self, n: int, layers: int) -> None:
        from qulacs import Observable, ParametricQuantumCircuit, QuantumState

        self.n = n
        self.state = QuantumState(n)
        self.circuit = ParametricQuantumCircuit(n)
        for q in range(n):
            self.circuit.add_parametric_RY_gate(q, 0.0)
        for _ in range(layers):
            for q in range(n):
                self.circuit.add_parametric_RX_gate(q, 0.0)
                self.circuit.add_parametric_RY_gate(q, 0.0)
                self.circuit.add_parametric_RZ_gate(q, 0.0)
            for q in range(n):
                self.circuit.add_CNOT_gate(q, (q + 1) % n)
        self.observables = []
        for q in range(n):
            observable = Observable(n)
            observable.add_operator(1.0, f"Z {q}")
            self.observables.append(observable)

    def _set(self, angles: np.ndarray) -> None:
        for k, angle in enumerate(angles):
            self.circuit.set_parameter(k, -float(angle))

    def values(self, angles: np.ndarray) -> np.ndarray:
        """<Z> of every wire."""
        self._set(angles)
        self.state.set_zero_state()
        self.circuit.update_quantum_state(self.state)
        return np.array([o.get_expectation_value(self.state) for o in self.observables])

    def gradient(self, angles: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Of the weighted sum, one backward sweep."""
        from qulacs import Observable

        self._set(angles)
        total = Observable(self.n)
        for q, weight in enumerate(weights):
            total.add_operator(float(weight), f"Z {q}")
        return -np.array(self.circuit.backprop(total))


class Qulacs(_Package):
    """A loop over the samples; the gradient by its `backprop`."""

    name, package, module = "qulacs", "qulacs", "qulacs"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the circuit."""
        runner = _QulacsRunner(case.kwargs["n"], case.kwargs["layers"])
        return lambda x: _Loop.apply(runner, x["inputs"], x["params"])


class PennyLane(_Package):
    """A torch QNode with the samples broadcast over the inputs."""

    package, module = "pennylane", "pennylane"

    def __init__(self, device: str, method: str, **options: Any) -> None:
        self.name, self.method, self.options = device, method, options

    def version(self) -> str:
        """PennyLane's release, and that of its fast devices."""
        text = super().version()
        if self.name != "lightning.qubit" or importlib.util.find_spec(self.module) is None:
            return text
        return f"{text}, lightning {metadata.version('pennylane-lightning')}"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Lightning is a package of its own."""
        lightning = importlib.util.find_spec("pennylane_lightning") is not None
        if self.name == "lightning.qubit" and not lightning:
            return "pennylane-lightning is not installed"
        return super().refusal(case, phase, device)

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the QNode."""
        import pennylane as qml

        n, layers = case.kwargs["n"], case.kwargs["layers"]
        device = qml.device(self.name, wires=n, **self.options)

        @qml.qnode(device, interface="torch", diff_method=self.method)
        def node(x: Tensor, angles: Tensor) -> Any:
            for q in range(n):
                qml.RY(x[:, q], wires=q)
            for layer in range(layers):
                for q in range(n):
                    k = 3 * (layer * n + q)
                    qml.RX(angles[k], wires=q)
                    qml.RY(angles[k + 1], wires=q)
                    qml.RZ(angles[k + 2], wires=q)
                for q in range(n):
                    qml.CNOT(wires=[q, (q + 1) % n])
            return [qml.expval(qml.PauliZ(q)) for q in range(n)]

        return lambda x: torch.stack(list(node(x["inputs"], x["params"])), -1).to(x["params"].dtype)


class Aer(_Package):
    """A list of bound circuits in one job of qiskit-aer's state-vector method; no gradient."""

    name, package, module = "qiskit-aer", "qiskit-aer", "qiskit_aer"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """It has no gradient but the parameter shift's."""
        return super().refusal(case, phase, device) or (
            None if phase == FORWARD else "has no gradient"
        )

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build one circuit with parameters."""
        from qiskit import QuantumCircuit
        from qiskit.circuit import ParameterVector
        from qiskit.quantum_info import Pauli
        from qiskit_aer import AerSimulator

        n, layers = case.kwargs["n"], case.kwargs["layers"]
        angles = ParameterVector("a", n + 3 * n * layers)
        qc = QuantumCircuit(n)
        for q in range(n):
            qc.ry(angles[q], q)
        for layer in range(layers):
            for q in range(n):
                k = n + 3 * (layer * n + q)
                qc.rx(angles[k], q)
                qc.ry(angles[k + 1], q)
                qc.rz(angles[k + 2], q)
            for q in range(n):
                qc.cx(q, (q + 1) % n)
        for q in range(n):
            qc.save_expectation_value(Pauli("Z"), [q], label=f"z{q}")
        simulator = AerSimulator(method="statevector", precision="single")

        def run(x: Inputs) -> Tensor:
            rows = torch.cat([x["inputs"], x["params"].expand(len(x["inputs"]), -1)], 1)
            binds = [{angles[k]: rows[:, k].tolist() for k in range(len(angles))}]
            result = simulator.run([qc], parameter_binds=binds).result()
            values = [[result.data(b)[f"z{q}"] for q in range(n)] for b in range(len(x["inputs"]))]
            return torch.tensor(values, dtype=x["params"].dtype)

        return run


class TorchEinsum(Peer):
    """Plain torch: one matrix a wire and layer, an einsum each, CNOT as an index."""

    name = "torch-einsum"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Make the index of a ring of CNOT."""
        n, layers = case.kwargs["n"], case.kwargs["layers"]
        bits = index = torch.arange(2**n, device=inputs["params"].device)
        for q in range(n):
            control, target = n - 1 - q, n - 1 - (q + 1) % n
            index = index ^ ((index >> control & 1) << target)
        # where an amplitude comes from is the inverse of where it goes to
        inverse = torch.argsort(index)
        signs = torch.stack([1 - 2 * (bits >> (n - 1 - q) & 1) for q in range(n)], -1)

        def rotations(angles: Tensor) -> Tensor:
            """exp(-i t P / 2) for P = X, Y, Z in the last axis but two of [..., 3, 2, 2]."""
            c, s = torch.cos(angles / 2), torch.sin(angles / 2)
            zero = torch.zeros_like(s[..., 0])
            x = [c[..., 0] + 0j, -1j * s[..., 0], -1j * s[..., 0], c[..., 0] + 0j]
            y = [c[..., 1] + 0j, -s[..., 1] + 0j, s[..., 1] + 0j, c[..., 1] + 0j]
            z = [torch.complex(c[..., 2], -s[..., 2]), zero + 0j, zero + 0j]
            z.append(torch.complex(c[..., 2], s[..., 2]))
            rows = [torch.stack(e, -1).reshape(*angles.shape[:-1], 2, 2) for e in (x, y, z)]
            return torch.stack(rows, -3)

        def run(data: Inputs) -> Tensor:
            x, params = data["inputs"], data["params"]
            batch = len(x)
            turns = rotations(params.reshape(layers, n, 3))
            merged = turns[..., 2, :, :] @ turns[..., 1, :, :] @ turns[..., 0, :, :]
            psi = torch.ones((batch, 1), dtype=merged.dtype, device=x.device)
            for q in range(n):
                one = torch.stack([torch.cos(x[:, q] / 2), torch.sin(x[:, q] / 2)], -1)
                psi = (psi[:, :, None] * one[:, None, :]).reshape(batch, -1)
            for layer in range(layers):
                for q in range(n):
                    view = psi.reshape(batch, 2**q, 2, -1)
                    psi = torch.einsum("ij,bajc->baic", merged[layer, q], view)
                psi = psi.reshape(batch, -1)[:, inverse]
            p = psi.real.square() + psi.imag.square()
            return p @ signs.to(p.dtype)

        return run


PEERS: tuple[Peer, ...] = (
    Qulacs(),
    PennyLane("lightning.qubit", "adjoint", c_dtype=np.complex64),
    PennyLane("default.qubit", "backprop"),
    Aer(),
    TorchEinsum(),
)
