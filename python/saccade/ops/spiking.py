"""Spiking neurons over T steps: integrate and fire, leaky or not, with surrogate gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops import _spiking_checks as _arguments
from saccade.ops._kernels import wanted
from saccade.ops._select import cuda_obstacle, offer, select_reverse_mode, triton_obstacle
from saccade.ops._spiking_op import Lif, call
from saccade.reference.spiking import BIT_SPIKES, DECAY_INPUT, INTEGRATE, LEAK

Potential: TypeAlias = float | Tensor
Result: TypeAlias = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]


def _limits(x: Tensor) -> str | None:
    if x.dtype == torch.float64:
        return "the GPU kernels compute in float32, float64 needs the reference"
    return None


def _cpu(x: Tensor) -> str | None:
    if x.device.type not in ("cpu", "meta"):
        return f"the tensors are on {x.device}"
    return None if _load.has("_C") else _load.reason("_C")


def _cuda(x: Tensor) -> str | None:
    return cuda_obstacle(x) or _limits(x)


def _triton(x: Tensor) -> str | None:
    return triton_obstacle("spiking", x) or _limits(x)


offer("spiking", cpu=_cpu, cuda=_cuda, triton=_triton)


def lif(
    x: Tensor,
    v0: Tensor | None = None,
    *,
    tau: Potential = 2.0,
    v_threshold: Potential = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = False,
    surrogate: str = "atan",
    alpha: float | None = None,
    store_v: bool = False,
    spike_dtype: torch.dtype | str | None = None,
    smooth: bool = False,
    backend: str = "auto",
) -> Result:
    r"""Run T steps of leaky integrate-and-fire neurons in one pass, with surrogate gradients.

    .. math:: h_t = v_{t-1} + (x_t - (v_{t-1} - v_r)) / \tau, \quad
              s_t = [h_t - \theta \ge 0], \quad
              v_t = s_t v_r + (1 - s_t) h_t

    With decay_input=False the input is not divided: :math:`h_t = v_{t-1} - (v_{t-1} - v_r) / \tau +
    x_t`. With v_reset=None the reset is soft: :math:`v_t = h_t - s_t \theta`, and :math:`v_r = 0`.
    With tau=math.inf nothing leaks: :math:`h_t = v_{t-1} + x_t`. Backwards the step has the
    surrogate's derivative :math:`g'(h - \theta)`:

    sigmoid (4) :math:`\alpha \sigma (1 - \sigma)` at :math:`\alpha d`; atan (2)
    :math:`\alpha / 2 / (1 + (\pi \alpha d / 2)^2)`; piecewise_quadratic (1)
    :math:`\max(0, \alpha - \alpha^2 |d|)`; piecewise_exp (1) :math:`\alpha / 2\, e^{-\alpha |d|}`;
    soft_sign (2) :math:`\alpha / 2 / (1 + \alpha |d|)^2`; super_spike (1)
    :math:`\alpha / (1 + |d|)^2`; erf (2) :math:`\alpha \pi^{-1/2} e^{-(\alpha d)^2}`; rectangle (1)
    :math:`\alpha` where :math:`|d| < 1 / (2 \alpha)`. In parentheses the default alpha.

    Args:
        x: input currents [T, B, ...] in float64, float32, float16 or bfloat16; axis 2 holds
            channels C where tau or v_threshold is per channel.
        v0: potential before the first step, [B, ...]; None: v_reset (0 for a soft reset).
        tau: time constant in steps, >= 1 or math.inf; or a tensor, without axes or [C], with its
            gradient. Default 2.
        v_threshold: potential that fires, finite; or a tensor, without axes or [C], with its
            gradient. Default 1.
        v_reset: potential after a spike; None: subtract v_threshold. Default 0.
        decay_input: whether the input decays too. Default True.
        detach_reset: no gradient through the spike of the reset. Default False.
        surrogate: a name above. Default "atan".
        alpha: its width, > 0; None: its default.
        store_v: also return the potentials after every step. Default False.
        spike_dtype: None: spikes in the type of x, with gradient; torch.uint8; or "bits": 8 a byte
            along the last axis, low bit first, the last byte of a row filled with zeros.
        smooth: put the surrogate's smooth step in place of the spike, so that the gradient is that
            of the function: for gradient checks. Default False.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` says which
            and why); "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.

    Returns:
        spikes, the shape of x (as bits [T, B, ..., ceil(W / 8)] for a last axis W), the last
        potential [B, ...], and with store_v all potentials [T, B, ...]. Potentials are float32
        (float64 for float64), whatever the type of x. Channels-last x gives channels-last results.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or sizes do not fit together.
        NotImplementedError: sparse and nested tensors; smooth or forward-mode derivatives with a
            forced backend that lacks them.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: one pass over memory. Forward reads x and writes spikes; backward reads x and the
        gradient of the spikes and writes the gradient of x. Only the inputs are saved: backward
        charges the neurons again.

        Spikes and potentials have the very bits of the loop in plain torch, on every rung: no
        operation is fused, tau divides. A NaN never fires, but stays in the potential.

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. Half types are computed in float32. Autocast leaves the operator alone.

        Double backward recomputes the reference formula, and only where create_graph=True asks
        for it. Forward-mode derivatives run on the reference. vmap folds the mapped axis into the
        channels. torch.compile traces one graph; all sizes may be dynamic.

    Source:
        PLIF, arXiv 2007.05785, equations 3 to 7; surrogate gradients, arXiv 1901.09948.

    >>> import torch
    >>> spikes, v = lif(torch.full((5, 1), 0.5), tau=math.inf)
    >>> spikes.flatten().tolist(), v.item()
    ([0.0, 1.0, 0.0, 1.0, 0.0], 0.5)
    """
    return _run(
        x,
        v0,
        tau=tau,
        v_threshold=v_threshold,
        v_reset=v_reset,
        decay_input=decay_input,
        detach_reset=detach_reset,
        surrogate=surrogate,
        alpha=alpha,
        store_v=store_v,
        spike_dtype=spike_dtype,
        smooth=smooth,
        backend=backend,
    )


def affine_lif(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    v0: Tensor | None = None,
    **lif_options: Any,
) -> Result:
    r"""Scale and shift the channels, add a residual, and run :func:`lif`, in the same pass.

    .. math:: u_t = w x_t + b + r_t, \quad s, v = \mathrm{lif}(u)

    A batch norm whose statistics are known is this :math:`w` and :math:`b`: its output is neither
    written nor saved.

    Args:
        x: [T, B, C, ...], as in :func:`lif`.
        weight: w, [C], given together with bias.
        bias: b, [C].
        residual: r, the shape and type of x; None: nothing is added.
        v0: potential before the first step, [B, C, ...].
        lif_options: every other keyword of :func:`lif`.

    Returns:
        What :func:`lif` returns.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or sizes do not fit together.

    Notes:
        u is rounded after each operation, from left to right, as the loop in torch does. Gradients
        of weight and bias are summed in a fixed order. Only the inputs are saved.

    Source:
        SEW ResNet, arXiv 2102.04159, section 3 (the residual); else as :func:`lif`.

    >>> import torch
    >>> x, one = torch.full((2, 1, 3), 0.5), torch.ones(3)
    >>> affine_lif(x, one, one, residual=x)[0].unique()
    tensor([1.])
    """
    return _run(x, v0, weight, bias, residual, **lif_options)


def _memory_order(x: Tensor) -> list[int]:
    """Axes 1, 2, ... of x as they lie in memory, if x[t] is dense, else as they are numbered."""
    axes = list(range(1, x.dim()))
    if x.is_contiguous():
        return axes
    order = sorted(axes, key=x.stride, reverse=True)
    expected = 1
    for axis in reversed(order):
        if x.shape[axis] != 1 and x.stride(axis) != expected:
            return axes
        expected = expected * x.shape[axis]
    return order


class _Layout:
    """Neurons in the order of memory, as [A, C, I]: views, where x[t] is dense."""

    def __init__(self, x: Tensor, order: Sequence[int], channels: bool) -> None:
        self.order = order
        self.sizes = [x.shape[axis] for axis in order]
        place = order.index(2) if channels else 0
        if channels:
            self.folded = [
                math.prod(self.sizes[:place]),
                x.shape[2],
                math.prod(self.sizes[place + 1 :]),
            ]
        else:
            self.folded = [1, 1, math.prod(self.sizes)]
        self.natural = list(order) == list(range(1, x.dim()))

    def fold(self, tensor: Tensor) -> Tensor:
        """[T, B, ...] to [T, A, C, I]."""
        if not self.natural:
            tensor = tensor.permute(0, *self.order)
        return tensor.reshape(tensor.shape[0], *self.folded)

    def unfold_state(self, tensor: Tensor) -> Tensor:
        """[A, C, I] to [B, ...], as a view."""
        if self.natural:  # one node of the graph instead of three
            return tensor.reshape(self.sizes)
        return self.unfold(tensor.unsqueeze(0)).squeeze(0)

    def unfold(self, tensor: Tensor) -> Tensor:
        """[T, A, C, I] to [T, B, ...], as a view."""
        tensor = tensor.reshape(tensor.shape[0], *self.sizes)
        if self.natural:
            return tensor
        inverse = [0] * (len(self.order) + 1)
        for place, axis in enumerate(self.order):
            inverse[axis] = place + 1
        return tensor.permute(inverse)


def _run(
    x: Tensor,
    v0: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    tau: Potential = 2.0,
    v_threshold: Potential = 1.0,
    v_reset: float | None = 0.0,
    decay_input: bool = True,
    detach_reset: bool = False,
    surrogate: str = "atan",
    alpha: float | None = None,
    store_v: bool = False,
    spike_dtype: torch.dtype | str | None = None,
    smooth: bool = False,
    backend: str = "auto",
) -> Result:
    _arguments.input_tensor(x)
    v0 = _arguments.start(v0, x)
    tau_value, tau_tensor = _arguments.time_constant(tau, x)
    threshold_value, threshold_tensor = _arguments.threshold(v_threshold, x)
    reset = None if v_reset is None else _checks.finite_number("v_reset", v_reset)
    code, width = _arguments.surrogate_code(surrogate, alpha)
    for name, given in (("decay_input", decay_input), ("detach_reset", detach_reset)):
        _arguments.flag(name, given)
    for name, given in (("store_v", store_v), ("smooth", smooth)):
        _arguments.flag(name, given)
    spike_code = _arguments.spike_kind(spike_dtype, smooth)
    if weight is not None or bias is not None:
        weight = _arguments.per_channel("weight", weight, x, one_for_all=False)
        bias = _arguments.per_channel("bias", bias, x, one_for_all=False)
    if residual is not None:
        _checks.floating_tensor("residual", residual)
        _checks.like("residual", residual, "x", x)
        _checks.shape("residual", residual, x.shape, "that of x")

    rung = select_reverse_mode("spiking", backend, x)
    if smooth and rung in ("cuda", "triton"):
        if backend != "auto":
            raise NotImplementedError(
                f"smooth=True runs on the CPU and on the reference, got backend={backend!r}."
            )
        rung = "reference"

    bits = spike_code == BIT_SPIKES
    order = list(range(1, x.dim())) if bits else _memory_order(x)
    channels = any(p is not None and p.shape[0] != 1 for p in (tau_tensor, threshold_tensor)) or (
        weight is not None
    )
    layout = _Layout(x, order, channels)
    charge = INTEGRATE if tau_value == math.inf else DECAY_INPUT if decay_input else LEAK
    tensors: tuple[Any, ...] = (
        layout.fold(x),
        None if v0 is None else layout.fold(v0.unsqueeze(0)).squeeze(0),
        tau_tensor,
        threshold_tensor,
        weight,
        bias,
        None if residual is None else layout.fold(residual),
    )
    arguments: tuple[Any, ...] = (
        tau_value,
        threshold_value,
        0.0 if reset is None else reset,
        width,
        charge,
        reset is not None,
        detach_reset,
        code,
        smooth,
        store_v,
        spike_code,
        # an empty axis has no rows
        max(x.shape[-1], 1) if bits else 1,
    )
    if rung == "reference":
        spikes, v_last, v_seq = reference.lif(*tensors, *arguments)
    elif wanted(*tensors):
        if torch.compiler.is_dynamo_compiling():
            # Dynamo refuses one tensor in two places, and weight may be bias
            tensors = tuple(None if t is None else t.view_as(t) for t in tensors)
        spikes, v_last, v_seq = Lif.apply(*tensors, *arguments, rung)
    else:
        spikes, v_last, v_seq = call(rung, *tensors, *arguments)
    if bits:
        spikes = spikes.reshape(*x.shape[:-1], (x.shape[-1] + 7) // 8)
    else:
        spikes = layout.unfold(spikes)
    v_last = layout.unfold_state(v_last)
    return (spikes, v_last, layout.unfold(v_seq)) if store_v else (spikes, v_last)
