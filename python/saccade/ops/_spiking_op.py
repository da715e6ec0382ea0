"""Between lif and the kernels: fakes, vmap rules, autograd, double backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops._kernels import namespace, teach_vmap
from saccade.ops._select import with_signature
from saccade.reference.spiking import BIT_SPIKES, BYTE_SPIKES, FLOAT_SPIKES, state_dtype

INPUTS = 7
"""Tensors that the operators take first: x, v0, tau, v_threshold, weight, bias, residual."""
_STATIC = 9  # what forward and backward share: from tau_value to smooth
_V0, _RESIDUAL = 1, 6


def _forward_fake(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    store_v, spike_code, row = arguments[-3:]
    state = state_dtype(x.dtype)
    neurons = x.shape[1:]
    if spike_code == BIT_SPIKES:
        # numel() would make dynamic sizes static
        rows = neurons[0] * neurons[1] * neurons[2] // row
        spikes = x.new_empty((x.shape[0], rows, (row + 7) // 8), dtype=torch.uint8)
    else:
        spikes = x.new_empty(x.shape, dtype=torch.uint8 if spike_code == BYTE_SPIKES else x.dtype)
    v_seq = x.new_empty(x.shape if store_v else (0,), dtype=state)
    return spikes, x.new_empty(neurons, dtype=state), v_seq


def _backward_fake(
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    grad_v_seq: Tensor | None,
    x: Tensor,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    inputs: tuple[Tensor | None, ...] = (x, *arguments[: INPUTS - 1])
    wanted = arguments[-1]
    state = state_dtype(x.dtype)
    grads = []
    for i, tensor in enumerate(inputs):
        dtype = x.dtype if i in (0, _RESIDUAL) else state
        shape: Sequence[int] = (0,)
        if wanted >> i & 1 and i == _V0:
            shape = x.shape[1:]
        elif wanted >> i & 1 and tensor is not None:
            shape = tensor.shape
        grads.append(x.new_empty(shape, dtype=dtype))
    return tuple(grads)


def _fold(tensor: Tensor | None, mapped: int | None, axis: int, size: int) -> Tensor | None:
    """Move the mapped axis in front of `axis` and join the two."""
    if tensor is None:
        return None
    if mapped is None:
        tensor, mapped = tensor.expand(size, *tensor.shape), 0
    return tensor.movedim(mapped, axis).flatten(axis, axis + 1)


def _fold_inputs(
    inputs: Sequence[Tensor | None], dims: Sequence[int | None], size: int
) -> list[Tensor | None]:
    """The mapped axis becomes part of the channels, which every input has."""
    folded: list[Tensor | None] = []
    for i, (tensor, mapped) in enumerate(zip(inputs, dims, strict=True)):
        if i in (0, _RESIDUAL):
            folded.append(_fold(tensor, mapped, 2, size))
        elif i == _V0:
            folded.append(_fold(tensor, mapped, 1, size))
        elif tensor is not None and folded[0] is not None:
            rows = tensor if mapped is None else tensor.movedim(mapped, 0)
            folded.append(rows.expand(size, folded[0].shape[2] // size).flatten())
        else:
            folded.append(None)
    return folded


def _unfold(tensor: Tensor, axis: int, size: int) -> Tensor:
    sizes = list(tensor.shape)
    sizes[axis : axis + 1] = (size, sizes[axis] // size)
    return tensor.reshape(sizes)


def _forward_rule(op: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        x, *rest = _fold_inputs(args[:INPUTS], in_dims[:INPUTS], size)
        spikes, v_last, v_seq = op(x, *rest, *args[INPUTS:])
        store_v, spike_code, _ = args[-3:]
        axis: int = 2
        if spike_code == BIT_SPIKES and x is not None:
            # rows lie within a channel, or within the channels of one sample
            spikes = spikes.unflatten(1, (x.shape[1], spikes.shape[1] // x.shape[1]))
        spikes = _unfold(spikes, axis, size)
        if spike_code == BIT_SPIKES:
            spikes, axis = spikes.movedim(2, 0).flatten(2, 3), 0
        return (
            (spikes, _unfold(v_last, 1, size), _unfold(v_seq, 2, size) if store_v else v_seq),
            (axis, 1, 2 if store_v else None),
        )

    return rule


def _backward_rule(op: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        grads = [
            _fold(tensor, mapped, axis, size)
            for tensor, mapped, axis in zip(args[:3], in_dims[:3], (2, 1, 2), strict=True)
        ]
        given, dims = args[3 : 3 + INPUTS], in_dims[3 : 3 + INPUTS]
        results: list[Tensor] = []
        out_dims: list[int | None] = []
        folded = _fold_inputs(given, dims, size)
        outputs = op(*grads, *folded, *args[3 + INPUTS :])
        wanted = args[-1]
        for i, result in enumerate(outputs):
            if not wanted >> i & 1:
                results.append(result)
                out_dims.append(None)
                continue
            axis = 2 if i in (0, _RESIDUAL) else 1 if i == _V0 else 0
            result = _unfold(result, axis, size)
            if axis == 0 and given[i].numel() == (1 if dims[i] is None else size):
                result = result.sum(1, keepdim=True)  # one number served all channels
            results.append(result)
            out_dims.append(axis)
        return tuple(results), tuple(out_dims)

    return rule


def _register_vmap(space: str) -> None:
    """Teach vmap the operators of one namespace."""
    ops = getattr(torch.ops, space)
    forward, backward = ops.lif_forward.default, ops.lif_backward.default
    torch.library.register_vmap(forward, _forward_rule(forward))
    torch.library.register_vmap(backward, _backward_rule(backward))


if _load.has("_C"):
    torch.library.register_fake("saccade::lif_forward", _forward_fake)
    torch.library.register_fake("saccade::lif_backward", _backward_fake)
teach_vmap("spiking", _register_vmap)


def call(rung: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Run a kernel's forward without autograd."""
    op = namespace("spiking", rung).lif_forward.default
    result: tuple[Tensor, Tensor, Tensor] = op(*arguments)
    return result


class Lif(torch.autograd.Function):
    """The kernels with their gradients: the arguments of lif_forward, then the rung.

    The potentials are computed again by the backward pass: only the inputs are saved.
    """

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        return call(arguments[-1], *arguments[:-1])

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        ctx.save_for_backward(*inputs[:INPUTS])
        ctx.set_materialize_grads(False)
        ctx.static = inputs[INPUTS : INPUTS + _STATIC]
        ctx.rest = len(inputs) - INPUTS
        ctx.store_v, ctx.spike_code, _, ctx.rung = inputs[INPUTS + _STATIC :]
        silent = [output[0]] if ctx.spike_code != FLOAT_SPIKES else []
        if not ctx.store_v:
            silent.append(output[2])
        ctx.mark_non_differentiable(*silent)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        spikes, v_last, v_seq = grads
        spikes = spikes if ctx.spike_code == FLOAT_SPIKES else None
        v_seq = v_seq if ctx.store_v else None
        inputs = ctx.saved_tensors
        wanted = sum(1 << i for i in range(INPUTS) if ctx.needs_input_grad[i])
        arguments = (spikes, v_last, v_seq, *inputs, *ctx.static, wanted, ctx.rung)
        # the second Function costs a graph node and memory: only create_graph=True needs it
        run = LifBackward.apply if torch.is_grad_enabled() else LifBackward.forward
        found = run(*arguments)
        kept = (grad if wanted >> i & 1 else None for i, grad in enumerate(found))
        return *kept, *(None for _ in range(ctx.rest))


class LifBackward(torch.autograd.Function):
    """lif_backward, itself differentiable: its gradient is the reference formula's, recomputed."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        op = namespace("spiking", arguments[-1]).lif_backward.default
        grads: tuple[Tensor, ...] = op(*arguments[:-1])
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[: 3 + INPUTS])
        ctx.static, ctx.wanted = inputs[3 + INPUTS : -2], inputs[-2]

    @staticmethod
    def backward(ctx: Any, *grad_grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        cotangents, inputs = saved[:3], saved[3:]
        came = [i for i, tensor in enumerate(cotangents) if tensor is not None]
        present = [i for i, tensor in enumerate(inputs) if tensor is not None]
        wanted = [i for i in present if ctx.wanted >> i & 1]

        def forward(*given: Tensor) -> tuple[Tensor, ...]:
            full: list[Any] = list(inputs)
            for i, tensor in zip(present, given, strict=True):
                full[i] = tensor
            arguments: tuple[Any, ...] = (*full, *ctx.static, True, FLOAT_SPIKES, 1)
            results = reference.lif(*arguments)
            return tuple(results[i] for i in came)

        def gradient(*arguments: Tensor) -> tuple[Tensor, ...]:
            pullback: Callable[..., Any] = torch.func.vjp(forward, *arguments[len(came) :])[1]
            grads = pullback(arguments[: len(came)])
            return tuple(grads[present.index(i)] for i in wanted)

        given = (*(cotangents[i] for i in came), *(inputs[i] for i in present))
        pullback: Callable[..., Any] = torch.func.vjp(gradient, *given)[1]
        found = pullback(tuple(grad_grads[i] for i in wanted))
        full: list[Tensor | None] = [None] * (3 + INPUTS)
        for place, grad in zip([*came, *(3 + i for i in present)], found, strict=True):
            full[place] = grad
        return *full, *(None for _ in range(_STATIC + 2))
