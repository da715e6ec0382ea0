"""Spiking neurons as layers, with the names of SpikingJelly and snnTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from saccade.ops import _checks
from saccade.ops import _spiking_checks as _arguments
from saccade.ops.spiking import lif


class _Node(nn.Module):
    """Keeps the potential from one call to the next, until it is reset."""

    v: Tensor | None
    v_seq: Tensor | None

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate: str = "sigmoid",
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        alpha: float | None = None,
        decay_input: bool = True,
    ) -> None:
        super().__init__()
        if step_mode not in ("s", "m"):
            raise ValueError(f'step_mode must be "s" or "m", got {step_mode!r}.')
        _arguments.surrogate_code(surrogate, alpha)
        self.v_threshold = _checks.finite_number("v_threshold", v_threshold)
        self.v_reset = None if v_reset is None else _checks.finite_number("v_reset", v_reset)
        self.surrogate = surrogate
        self.alpha = alpha
        self.detach_reset = _arguments.flag("detach_reset", detach_reset)
        self.decay_input = _arguments.flag("decay_input", decay_input)
        self.store_v_seq = _arguments.flag("store_v_seq", store_v_seq)
        self.step_mode = step_mode
        self.reset()

    def reset(self) -> None:
        """Forget the potential."""
        self.v = None
        self.v_seq = None

    def time_constant(self) -> float | Tensor:
        """Tau in steps."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        steps = x if self.step_mode == "m" else x.unsqueeze(0)
        spikes, self.v, *v_seq = lif(
            steps,
            self.v,
            tau=self.time_constant(),
            v_threshold=self.v_threshold,
            v_reset=self.v_reset,
            decay_input=self.decay_input,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
            alpha=self.alpha,
            store_v=self.store_v_seq,
        )
        self.v_seq = v_seq[0] if v_seq else None
        return spikes if self.step_mode == "m" else spikes.squeeze(0)

    def extra_repr(self) -> str:
        return (
            f"v_threshold={self.v_threshold}, v_reset={self.v_reset}, "
            f"surrogate={self.surrogate!r}, detach_reset={self.detach_reset}, "
            f"step_mode={self.step_mode!r}"
        )


class LIFNode(_Node):
    """Leaky integrate-and-fire neurons that keep their potential between calls.

    The arguments are SpikingJelly's, but the surrogate is a name and its width alpha.

    Args:
        tau: time constant in steps, >= 1 or math.inf. Default 2.
        decay_input: whether the input decays too. Default True.
        v_threshold: potential that fires. Default 1.
        v_reset: potential after a spike; None: subtract v_threshold. Default 0.
        surrogate: as in :func:`saccade.ops.lif`. Default "sigmoid".
        detach_reset: no gradient through the spike of the reset. Default False.
        step_mode: "s": x is one step [B, ...]; "m": x is [T, B, ...]. Default "s".
        store_v_seq: keep the potentials after every step of a call in `v_seq`. Default False.
        alpha: width of the surrogate; None: its default.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of its range.

    Source:
        SpikingJelly, arXiv 2310.16620.

    >>> LIFNode(step_mode="m")(torch.full((2, 1, 1), 2.0)).flatten()
    tensor([1., 1.])
    """

    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate: str = "sigmoid",
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        alpha: float | None = None,
    ) -> None:
        super().__init__(
            v_threshold, v_reset, surrogate, detach_reset, step_mode, store_v_seq, alpha,
            decay_input,
        )  # fmt: skip
        if isinstance(tau, bool) or not isinstance(tau, (int, float)):
            raise TypeError(f"tau must be a number, got {tau!r}.")
        if not tau >= 1:
            raise ValueError(f"tau must be at least 1 step, or math.inf, got {tau}.")
        self.tau = float(tau)

    def time_constant(self) -> float | Tensor:
        """Tau in steps."""
        return self.tau


class IFNode(_Node):
    """Integrate-and-fire neurons: :class:`LIFNode` without a leak.

    >>> IFNode(step_mode="m")(torch.full((4, 1, 1), 0.5)).flatten()
    tensor([0., 1., 0., 1.])
    """

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate: str = "sigmoid",
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        alpha: float | None = None,
    ) -> None:
        super().__init__(
            v_threshold, v_reset, surrogate, detach_reset, step_mode, store_v_seq, alpha
        )

    def time_constant(self) -> float | Tensor:
        """No leak."""
        return math.inf


class ParametricLIFNode(_Node):
    """:class:`LIFNode` with one learnable time constant, tau = 1 / sigmoid(w).

    Args:
        init_tau: tau at the start, > 1. Default 2.
        decay_input: as all that follow, see :class:`LIFNode`.
        v_threshold: see there.
        v_reset: see there.
        surrogate: see there.
        detach_reset: see there.
        step_mode: see there.
        store_v_seq: see there.
        alpha: see there.

    Source:
        PLIF, arXiv 2007.05785, equation 8.

    >>> ParametricLIFNode(init_tau=2.0).w
    Parameter containing:
    tensor(-0., requires_grad=True)
    """

    def __init__(
        self,
        init_tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate: str = "sigmoid",
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        alpha: float | None = None,
    ) -> None:
        super().__init__(
            v_threshold, v_reset, surrogate, detach_reset, step_mode, store_v_seq, alpha,
            decay_input,
        )  # fmt: skip
        tau = _checks.finite_number("init_tau", init_tau)
        if not tau > 1:
            raise ValueError(f"init_tau must be above 1, got {init_tau}.")
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1)))

    def time_constant(self) -> float | Tensor:
        """Tau in steps."""
        return 1 + torch.exp(-self.w)


class Leaky(nn.Module):
    """snnTorch's leaky neurons over all steps at once, with the reset in the step of its spike.

    This is LIF with tau = 1 / (1 - beta), whose input does not decay, and whose reset is detached;
    snnTorch's Leaky with reset_delay=False, but for two things: a potential that equals the
    threshold fires here and not there, and one that exceeds it after a subtraction is there
    subtracted from once more.

    Args:
        beta: what remains of the potential after a step, 0 <= beta <= 1.
        threshold: potential that fires. Default 1.
        surrogate: as in :func:`saccade.ops.lif`. Default "atan".
        reset_mechanism: "subtract" (the threshold) or "zero". Default "subtract".
        alpha: width of the surrogate; None: its default.

    Raises:
        ValueError: an argument is out of its range.

    Source:
        Eshraghian et al., Training Spiking Neural Networks Using Lessons From Deep Learning, arXiv
        2109.12894, section 2.

    >>> spikes, mem = Leaky(beta=0.5)(torch.full((2, 1, 1), 0.75))
    >>> spikes.flatten(), mem
    (tensor([0., 1.]), tensor([[0.1250]]))
    """

    def __init__(
        self,
        beta: float,
        threshold: float = 1.0,
        surrogate: str = "atan",
        reset_mechanism: str = "subtract",
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        self.beta = _checks.finite_number("beta", beta)
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be between 0 and 1, got {beta}.")
        if reset_mechanism not in ("subtract", "zero"):
            raise ValueError(
                f'reset_mechanism must be "subtract" or "zero", got {reset_mechanism!r}.'
            )
        _arguments.surrogate_code(surrogate, alpha)
        self.threshold = _checks.finite_number("threshold", threshold)
        self.surrogate = surrogate
        self.reset_mechanism = reset_mechanism
        self.alpha = alpha

    def forward(self, x: Tensor, mem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[T, B, ...] and the potential before, to spikes and the potential after."""
        spikes, mem = lif(
            x,
            mem,
            tau=math.inf if self.beta == 1 else 1 / (1 - self.beta),
            v_threshold=self.threshold,
            v_reset=0.0 if self.reset_mechanism == "zero" else None,
            decay_input=False,
            detach_reset=True,
            surrogate=self.surrogate,
            alpha=self.alpha,
        )[:2]
        return spikes, mem

    def extra_repr(self) -> str:
        """The options."""
        return (
            f"beta={self.beta}, threshold={self.threshold}, surrogate={self.surrogate!r}, "
            f"reset_mechanism={self.reset_mechanism!r}"
        )


def reset_net(net: nn.Module) -> None:
    """Forget the potentials of all spiking neurons of a network.

    Args:
        net: any module.

    >>> net = nn.Sequential(LIFNode())
    >>> _ = net(torch.ones(1, 1))
    >>> reset_net(net)
    >>> net[0].v is None
    True
    """
    for module in net.modules():
        if isinstance(module, _Node):
            module.reset()
