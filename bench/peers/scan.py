"""Other ways to compute scans: a loop over time, mambapy's parallel scan, einsum over chunks.

Each is written from the definition. What depends on the tensors is timed: the softplus, the gate,
and for paths over a map the copies of it in another order.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.bench._suite import Case, Function, Inputs, Peer

# The functions that cases are about.
SELECTIVE, SSD, CONV = "selective_scan", "ssd_scan", "causal_conv1d"


def _along(name: str, x: Tensor) -> Tensor:
    """A map [..., H, W] as a sequence [..., L] in the order of a path."""
    x = (x.mT if name in ("tb", "bt") else x).flatten(-2)
    return x.flip(-1) if name in ("rl", "bt") else x


def _back(name: str, y: Tensor, height: int, width: int) -> Tensor:
    y = y.flip(-1) if name in ("rl", "bt") else y
    if name in ("tb", "bt"):
        return y.unflatten(-1, (width, height)).mT
    return y.unflatten(-1, (height, width))


class _Selective(Peer):
    """Selective scan from decays [B, L, D, N] and drives [B, L, D, N]."""

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """It knows the selective scan alone."""
        if case.kwargs["function"] != SELECTIVE:
            return "is a selective scan"
        return None

    def states(self, decay: Tensor, drive: Tensor) -> Tensor:
        """All states [B, L, D, N]."""
        raise NotImplementedError

    def sequence(
        self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor
    ) -> Tensor:
        """One path, without the gate."""
        step = F.softplus(delta + bias[:, None]).mT[..., None]
        states = self.states((step * A).exp(), step * B.mT[:, :, None] * u.mT[..., None])
        y = (states @ C.mT[..., None]).squeeze(-1)
        return y.mT + D[:, None] * u

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Return the callable."""
        names = case.kwargs.get("directions")

        def function(x: Inputs) -> Tensor:
            if names is None:
                y = self.sequence(*(x[n] for n in ("u", "delta", "A", "B", "C", "D", "delta_bias")))
                return y * F.silu(x["z"])
            total: Any = 0
            for k, name in enumerate(names):
                B, C, delta = (_along(name, x[n][:, k]) for n in ("B", "C", "delta"))
                u = _along(name, x["u"])
                y = self.sequence(u, delta, x["A"][k], B, C, x["D"][k], x["delta_bias"][k])
                total = total + _back(name, y, *x["u"].shape[-2:])
            result: Tensor = total * F.silu(x["z"])
            return result

        return function


class Loop(_Selective):
    """One step of time after the other, in torch."""

    name = "loop"

    def states(self, decay: Tensor, drive: Tensor) -> Tensor:
        """All states [B, L, D, N]."""
        state = torch.zeros_like(drive[:, 0])
        states = []
        # unbound: slices one at a time would make the gradient quadratic in L
        for a, b in zip(decay.unbind(1), drive.unbind(1), strict=True):
            state = a * state + b
            states.append(state)
        return torch.stack(states, 1)


class Mambapy(_Selective):
    """The parallel scan of mambapy: 2 log2 L passes over all states, in torch."""

    name = "mambapy"

    def version(self) -> str:
        """The package and its release."""
        found = importlib.util.find_spec("mambapy")
        return f"mambapy {metadata.version('mambapy')}" if found else "mambapy"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if importlib.util.find_spec("mambapy") is None:
            return "mambapy is not installed"
        return super().refusal(case, phase, device)

    def states(self, decay: Tensor, drive: Tensor) -> Tensor:
        """All states [B, L, D, N]."""
        states: Tensor = importlib.import_module("mambapy.pscan").pscan(decay, drive)
        return states


class Einsum(Peer):
    """SSD as matrix products: within chunks by masked attention, between them by a recurrence.

    The recurrence over chunks is a product with a matrix of decays too (listing 1 of the paper).
    """

    name = "einsum"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """It knows SSD alone."""
        return None if case.kwargs["function"] == SSD else "is an SSD scan"

    @staticmethod
    def _decays(log_decay: Tensor) -> Tensor:
        """[..., T] to [..., T, T]: the product of decays j + 1 ... i at row i, column j <= i."""
        steps = log_decay.shape[-1]
        full = torch.ones(steps, steps, dtype=torch.bool, device=log_decay.device)
        # sums of segments, not differences of long sums
        spread = log_decay[..., None].expand(*log_decay.shape, steps).masked_fill(~full.tril(-1), 0)
        return spread.cumsum(-2).masked_fill(~full.tril(), -torch.inf).exp()

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Return the callable."""
        chunk = case.kwargs["chunk_size"]

        def function(x: Inputs) -> Tensor:
            step = F.softplus(x["dt"] + x["dt_bias"])
            heads = step.shape[-1]
            group = heads // x["B"].shape[2]
            driven = (x["x"] * step[..., None]).unflatten(1, (-1, chunk))
            log_decay = (step * x["A"]).unflatten(1, (-1, chunk)).permute(0, 3, 1, 2)
            B, C = (x[n].repeat_interleave(group, 2).unflatten(1, (-1, chunk)) for n in ("B", "C"))
            total = log_decay.cumsum(-1)
            scores = torch.einsum("bcihn,bcjhn->bhcij", C, B) * self._decays(log_decay)
            within = torch.einsum("bhcij,bcjhp->bcihp", scores, driven)
            left = (total[..., -1:] - total).exp()
            states = torch.einsum("bcjhn,bhcj,bcjhp->bchpn", B, left, driven)
            between = self._decays(F.pad(total[..., -1], (1, 0)))[..., :-1, 1:]
            before = torch.einsum("bhzc,bchpn->bzhpn", between, states)
            across = torch.einsum("bcihn,bchpn,bhci->bcihp", C, before, total.exp())
            return (within + across).flatten(1, 2) + x["D"][:, None] * x["x"]

        return function


class GroupedConv(Peer):
    """torch's grouped convolution, padded, and silu."""

    name = "grouped-conv"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """It knows the convolution alone."""
        return None if case.kwargs["function"] == CONV else "is a convolution"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Return the callable."""
        channels, length = case.shapes["x"][1:]
        before = case.shapes["weight"][1] - 1

        def function(x: Inputs) -> Tensor:
            weight = x["weight"][:, None]
            y = F.conv1d(x["x"], weight, x["bias"], padding=before, groups=channels)
            return F.silu(y[..., :length])

        return function


class MambaSSM(Peer):
    """The kernels of mamba-ssm and causal-conv1d, which are for CUDA."""

    name = "mamba-ssm"

    def version(self) -> str:
        """The package and its release."""
        found = importlib.util.find_spec("mamba_ssm")
        return f"mamba-ssm {metadata.version('mamba_ssm')}" if found else "mamba-ssm"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if device.type != "cuda":
            return "mamba-ssm has no CPU kernels"
        package = "causal_conv1d" if case.kwargs["function"] == CONV else "mamba_ssm"
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
        return "mamba-ssm knows sequences alone" if "directions" in case.kwargs else None

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Return the callable."""
        if case.kwargs["function"] == CONV:
            conv = importlib.import_module("causal_conv1d").causal_conv1d_fn
            return lambda x: conv(x["x"], x["weight"], x["bias"], activation="silu")
        if case.kwargs["function"] == SSD:
            combined = importlib.import_module(
                "mamba_ssm.ops.triton.ssd_combined"
            ).mamba_chunk_scan_combined
            return lambda x: combined(
                x["x"], x["dt"], x["A"], x["B"], x["C"], case.kwargs["chunk_size"], D=x["D"],
                dt_bias=x["dt_bias"], dt_softplus=True,
            )  # fmt: skip
        scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
        return lambda x: scan(
            x["u"], x["delta"], x["A"].float(), x["B"], x["C"], x["D"].float(), z=x["z"],
            delta_bias=x["delta_bias"].float(), delta_softplus=True,
        )  # fmt: skip


PEERS: tuple[Peer, ...] = (Loop(), Mambapy(), Einsum(), GroupedConv(), MambaSSM())
