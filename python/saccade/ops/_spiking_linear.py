"""A linear layer over spikes: packed ones add rows of the weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops._kernels import wanted
from saccade.reference.spiking import unpack_spikes


def _fake(spikes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return weight.new_empty((spikes.shape[0], weight.shape[0]))


if _load.has("_C"):
    torch.library.register_fake("saccade::spike_linear", _fake)


class _SpikeLinear(torch.autograd.Function):
    """The kernel, with the gradients of a linear layer."""

    @staticmethod
    def forward(spikes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.saccade.spike_linear.default(spikes, weight, bias)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        spikes, weight, _ = inputs
        ctx.save_for_backward(spikes)
        ctx.inputs = weight.shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        (grad,) = grads
        (spikes,) = ctx.saved_tensors
        weight = bias = None
        if ctx.needs_input_grad[1]:
            weight = grad.T @ unpack_spikes(spikes, ctx.inputs, grad.dtype)
        if ctx.needs_input_grad[2]:
            bias = grad.sum(0)
        return None, weight, bias


def spike_linear(spikes: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""A linear layer over spikes, :math:`y = s W^T + b`.

    Bits, as :func:`saccade.ops.lif` makes them with spike_dtype="bits", add the columns of the
    weight whose bit is set, without a product. Other spikes go through torch's linear layer.

    Args:
        spikes: [..., ceil(I / 8)] in uint8, 8 a byte, low bit first; or [..., I], zeros and ones in
            uint8, bool or the type of weight.
        weight: W, [O, I].
        bias: b, [O], in the type of weight; None: 0.

    Returns:
        [..., O] in the type of weight.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types or devices do not fit together.

    Notes:
        Cost on the CPU: one addition for every set bit and output. A dense product is faster above
        about a third of set bits. Bits behind the last input are ignored. Deterministic; the order
        of additions is that of the inputs. weight and bias have gradients, and spikes of a floating
        type too. On other devices bits are unpacked.

    Source:
        Equation 1 of SpikingJelly, arXiv 2310.16620, with binary inputs.

    >>> import torch
    >>> spike_linear(torch.tensor([[5]], dtype=torch.uint8), torch.tensor([[1.0, 10.0, 100.0]]))
    tensor([[101.]])
    """
    if not isinstance(spikes, Tensor):
        raise TypeError(f"spikes must be a torch.Tensor, got {type(spikes).__name__}.")
    _checks.floating_tensor("weight", weight)
    if weight.dim() != 2:
        raise ValueError(f"weight must have rank 2, [O, I], got shape {tuple(weight.shape)}.")
    if bias is not None:
        _checks.floating_tensor("bias", bias)
        _checks.like("bias", bias, "weight", weight)
        _checks.shape("bias", bias, weight.shape[:1], "[O]")
    if spikes.device != weight.device:
        raise ValueError(
            f"spikes must be on the device of weight, {weight.device}, got {spikes.device}."
        )
    inputs = weight.shape[1]
    packed = (inputs + 7) // 8
    if spikes.dim() == 0 or spikes.shape[-1] not in (inputs, packed):
        raise ValueError(
            f"spikes must have a last axis of {inputs} spikes or {packed} bytes of bits, "
            f"got shape {tuple(spikes.shape)}."
        )
    if spikes.shape[-1] == inputs and inputs != packed:
        if spikes.dtype not in (torch.uint8, torch.bool, weight.dtype):
            raise TypeError(
                f"spikes must have the type uint8, bool or that of weight, {weight.dtype}, "
                f"got {spikes.dtype}."
            )
        return F.linear(spikes.to(weight.dtype), weight, bias)
    if spikes.dtype != torch.uint8:
        if spikes.shape[-1] == inputs and spikes.dtype in (torch.bool, weight.dtype):
            return F.linear(spikes.to(weight.dtype), weight, bias)
        raise TypeError(f"bits must be torch.uint8, got {spikes.dtype}.")
    rows = spikes.reshape(-1, packed)
    if spikes.device.type not in ("cpu", "meta") or not _load.has("_C"):
        out = reference.spike_linear(rows, weight, bias)
    elif wanted(weight, bias):
        out = _SpikeLinear.apply(rows, weight, bias)
    else:
        out = torch.ops.saccade.spike_linear.default(rows, weight, bias)
    return out.reshape(*spikes.shape[:-1], weight.shape[0])
