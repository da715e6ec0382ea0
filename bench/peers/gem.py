"""Other ways to project a gradient: GEM as published, torch with quadprog, and solvers alone.

The published method stores the memories with a column for each task, copies them to float64, forms
the products in numpy and calls quadprog on the dual. Its lower bound is set to 0 and its ridge
kept, so that everybody computes the same projection. How memories are stored is prepared before
timing starts; copies that a step makes are timed.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.bench._suite import Case, Function, Inputs, Peer, UnsupportedError

RIDGE = 1e-3


def _version(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        return package
    return f"{package} {metadata.version(package)}"


class _Solver(Peer):
    """A peer that stands on a package for the CPU and knows one of the problems."""

    package = "quadprog"
    problem = "projection"

    def version(self) -> str:
        """The package and its release."""
        return _version(self.package)

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if case.kwargs["problem"] != self.problem:
            return f"computes the {self.problem} alone"
        return None


def _dual(gram: np.ndarray, linear: np.ndarray) -> np.ndarray:
    import quadprog

    t = len(linear)
    symmetric = (gram + gram.T) / 2 + RIDGE * np.eye(t)
    dual: np.ndarray = quadprog.solve_qp(symmetric, -linear, np.eye(t), np.zeros(t))[0]
    return dual


class PublishedColumns(_Solver):
    """GEM as published: memories [P, t], float64 copies, products in numpy, quadprog."""

    name = "gem-columns"

    def store(self, memory: Tensor) -> Tensor:
        """How the memories lie in storage, seen as [P, t]."""
        return memory.mT.contiguous()

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Store the memories."""
        memories = self.store(inputs["memory"])

        def project(x: Inputs) -> Tensor:
            grad = x["grad"]
            if not bool((grad.unsqueeze(0) @ memories < 0).any()):
                return grad
            rows = memories.cpu().t().double().numpy()
            vector = grad.cpu().double().numpy()
            dual = _dual(np.dot(rows, rows.T), np.dot(rows, vector))
            return torch.from_numpy(np.dot(dual, rows) + vector).to(grad)

        return project


class PublishedRows(PublishedColumns):
    """The same steps where a memory lies in one piece, as [t, P]."""

    name = "gem-rows"

    def store(self, memory: Tensor) -> Tensor:
        """[P, t] as a view."""
        return memory.mT


class TorchProducts(_Solver):
    """Products and sum in torch in the type that is given; quadprog for the dual."""

    name = "torch-float32"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""

        def project(x: Inputs) -> Tensor:
            grad, memory = x["grad"], x["memory"]
            dot = memory @ grad
            if not bool((dot < 0).any()):
                return grad
            gram = memory @ memory.mT
            dual = _dual(gram.double().cpu().numpy(), dot.double().cpu().numpy())
            return grad + memory.mT @ torch.from_numpy(dual).to(grad)

        return project


class TorchAGEM(Peer):
    """A-GEM's closed form in torch, with the test on the host that published code makes."""

    name = "torch-agem"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        shape = case.shapes.get("memory")
        return None if shape is not None and shape[0] == 1 else "has one reference gradient"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""

        def project(x: Inputs) -> Tensor:
            grad, reference = x["grad"], x["memory"][0]
            dot = torch.dot(grad, reference)
            if dot.item() >= 0:
                return grad
            return grad - dot / torch.dot(reference, reference) * reference

        return project


def _numpy_batch(x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    return x["gram"].double().cpu().numpy(), x["linear"].double().cpu().numpy()


class Quadprog(_Solver):
    """A loop over quadprog."""

    name = "quadprog"
    problem = "quadratic"

    def solve(self, gram: np.ndarray, linear: np.ndarray, eye: Any, zeros: Any) -> np.ndarray:
        """One problem."""
        import quadprog

        dual: np.ndarray = quadprog.solve_qp(gram, -linear, eye, zeros)[0]
        return dual

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the constraints."""
        t = case.shapes["linear"][-1]
        eye, zeros = np.eye(t), np.zeros(t)

        def batch(x: Inputs) -> Tensor:
            grams, linears = _numpy_batch(x)
            duals = [self.solve(k, c, eye, zeros) for k, c in zip(grams, linears, strict=True)]
            return torch.from_numpy(np.stack(duals)).to(x["linear"].device)

        return batch


class Qpsolvers(Quadprog):
    """A loop over the qpsolvers package, which calls quadprog here."""

    name = "qpsolvers"
    package = "qpsolvers"

    def solve(self, gram: np.ndarray, linear: np.ndarray, eye: Any, zeros: Any) -> np.ndarray:
        """One problem."""
        import qpsolvers

        dual = qpsolvers.solve_qp(gram, linear, lb=zeros, solver="quadprog")
        if dual is None:
            raise UnsupportedError("found no solution")
        return np.asarray(dual)


class Nnls(Quadprog):
    """A loop over scipy's non-negative least squares on the Cholesky factor."""

    name = "scipy-nnls"
    package = "scipy"

    def solve(self, gram: np.ndarray, linear: np.ndarray, eye: Any, zeros: Any) -> np.ndarray:
        """One problem."""
        from scipy.linalg import solve_triangular
        from scipy.optimize import nnls

        factor = np.linalg.cholesky(gram)
        dual: np.ndarray = nnls(factor.T, solve_triangular(factor, -linear, lower=True))[0]
        return dual


PEERS: tuple[Peer, ...] = (
    PublishedColumns(),
    PublishedRows(),
    TorchProducts(),
    TorchAGEM(),
    Quadprog(),
    Nnls(),
    Qpsolvers(),
)
