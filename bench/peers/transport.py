"""Other ways to a plan: POT on torch tensors, the loop that papers print, and exact solvers.

Entropic ones make 100 sweeps without a test of convergence. Gradients of POT are those of the
unrolled loop, which is the only way that it differentiates a plan. The exact solvers of POT, lapx
and scipy take numpy arrays, which share the tensors' memory; a batch is a loop unless its name
says otherwise.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from importlib import metadata

import numpy as np
import torch
from torch import Tensor

from saccade.bench._suite import TRAINING, Case, Function, Inputs, Peer

SWEEPS = 100


def _uniform(count: int, like: Tensor) -> Tensor:
    return torch.full((count,), 1.0 / count, dtype=like.dtype, device=like.device)


class TorchLog(Peer):
    """Two logsumexp a sweep, for any batch, as papers print it."""

    name = "torch-log"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        return None if case.kwargs["problem"] == "plan" else "computes plans alone"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""
        eps = case.kwargs["eps"]

        def plan(x: Inputs) -> Tensor:
            scaled = -x["cost"] / eps
            n, m = scaled.shape[-2:]
            g = torch.zeros_like(scaled[..., 0, :])
            for _ in range(SWEEPS):
                f = -math.log(n) - torch.logsumexp(scaled + g.unsqueeze(-2), -1)
                g = -math.log(m) - torch.logsumexp(scaled + f.unsqueeze(-1), -2)
            return torch.exp(scaled + f.unsqueeze(-1) + g.unsqueeze(-2))

        return plan


class _Pot(Peer):
    """A peer of POT."""

    problem, rank = "plan", 2

    def version(self) -> str:
        """The package and its release."""
        if importlib.util.find_spec("ot") is None:
            return "POT"
        return f"POT {metadata.version('POT')}"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if importlib.util.find_spec("ot") is None:
            return "POT is not installed"
        shape = case.shapes.get("cost")
        if case.kwargs["problem"] != self.problem:
            return f"computes {self.problem} alone"
        if shape is not None and len(shape) != self.rank:
            return "takes one problem" if self.rank == 2 else "takes batches"
        return None


class PotLog(_Pot):
    """ot.bregman.sinkhorn_log on torch tensors."""

    name = "pot-log"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""
        import ot

        eps = case.kwargs["eps"]

        def plan(x: Inputs) -> Tensor:
            cost = x["cost"]
            a, b = (_uniform(count, cost) for count in cost.shape)
            result: Tensor = ot.bregman.sinkhorn_log(
                a, b, cost, eps, numItermax=SWEEPS, stopThr=0.0, warn=False
            )
            return result

        return plan


class PotKernel(_Pot):
    """ot.sinkhorn on torch tensors: products with exp(-C / eps), which a small eps breaks."""

    name = "pot-kernel"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""
        import ot

        eps = case.kwargs["eps"]

        def plan(x: Inputs) -> Tensor:
            cost = x["cost"]
            a, b = (_uniform(count, cost) for count in cost.shape)
            result: Tensor = ot.sinkhorn(
                a, b, cost, eps, numItermax=SWEEPS, stopThr=0.0, warn=False
            )
            return result

        return plan


class PotBatchLog(_Pot):
    """ot.batch.solve_batch in the logarithmic domain."""

    name = "pot-batch-log"
    rank = 3

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""
        import ot

        eps = case.kwargs["eps"]

        def plan(x: Inputs) -> Tensor:
            grad = "autodiff" if x["cost"].requires_grad else "detach"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result: Tensor = ot.batch.solve_batch(
                    x["cost"], eps, max_iter=SWEEPS, tol=0.0, method="log_sinkhorn", grad=grad
                ).plan
            return result

        return plan


class PotPoints(_Pot):
    """ot.bregman.empirical_sinkhorn2 in its lazy form, a batch of rows of the cost at a time."""

    name = "pot-points"
    problem = "points"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if phase == TRAINING:
            return "has no gradient in its lazy form"
        return super().refusal(case, phase, device)

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""
        import ot

        eps = case.kwargs["eps"]

        def value(x: Inputs) -> Tensor:
            result: Tensor = ot.bregman.empirical_sinkhorn2(
                x["x"], x["y"], eps, numIterMax=SWEEPS, stopThr=0.0, isLazy=True, batchSize=256,
                warn=False,
            )  # fmt: skip
            return result

        return value


class PotEmd(_Pot):
    """ot.emd, a network simplex in float64."""

    name = "pot-emd"
    problem = "emd"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        return super().refusal(case, phase, device) if device.type == "cpu" else "runs on the CPU"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""
        import ot

        def value(x: Inputs) -> Tensor:
            cost, a, b = (x[k].double().numpy() if k in x else [] for k in ("cost", "a", "b"))
            _, log = ot.emd(a, b, cost, numItermax=10_000_000, log=True)
            return torch.as_tensor(log["cost"])

        return value


class _Matching(Peer):
    """A peer that solves one assignment of numpy arrays at a time."""

    package, module = "lapx", "lap"

    def version(self) -> str:
        """The package and its release."""
        if importlib.util.find_spec(self.module) is None:
            return self.package
        return f"{self.package} {metadata.version(self.package)}"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.package} is not installed"
        if device.type != "cpu":
            return "runs on the CPU"
        return None if case.kwargs["problem"] == "assignment" else "computes assignments alone"

    def total(self, cost: np.ndarray) -> float:
        """The total of the best matching."""
        raise NotImplementedError

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""

        def totals(x: Inputs) -> Tensor:
            cost = x["cost"].float().numpy() if x["cost"].itemsize < 4 else x["cost"].numpy()
            problems = cost.reshape(-1, *cost.shape[-2:])
            return torch.tensor([self.total(one) for one in problems]).reshape(cost.shape[:-2])

        return totals


class Lapx(_Matching):
    """lap.lapjv, in float64."""

    name = "lapx"

    def total(self, cost: np.ndarray) -> float:
        """The total of the best matching."""
        import lap

        return float(lap.lapjv(cost)[0])


class LapxFloat32(_Matching):
    """lap.lapjvs, in float32."""

    name = "lapx-float32"

    def total(self, cost: np.ndarray) -> float:
        """The total of the best matching."""
        import lap

        return float(lap.lapjvs(cost)[0])


class LapxBatch(_Matching):
    """lap.lapjvs_batch, which shares problems out to Python threads."""

    name = "lapx-batch"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        reason = super().refusal(case, phase, device)
        return reason or (None if len(case.shapes["cost"]) == 3 else "takes batches")

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Nothing depends on sizes."""
        import lap

        def totals(x: Inputs) -> Tensor:
            found, *_ = lap.lapjvs_batch(
                x["cost"].float().numpy(), n_threads=torch.get_num_threads()
            )
            return torch.from_numpy(found)

        return totals


class Scipy(_Matching):
    """scipy.optimize.linear_sum_assignment."""

    name = "scipy"
    package = module = "scipy"

    def total(self, cost: np.ndarray) -> float:
        """The total of the best matching."""
        from scipy.optimize import linear_sum_assignment

        return float(cost[linear_sum_assignment(cost)].sum(dtype=np.float64))


PEERS: tuple[Peer, ...] = (
    TorchLog(),
    PotLog(),
    PotKernel(),
    PotBatchLog(),
    PotPoints(),
    PotEmd(),
    Lapx(),
    LapxFloat32(),
    LapxBatch(),
    Scipy(),
)
