"""Selective scans: the diagonal recurrence of Mamba (S6) and the scalar one of Mamba-2 (SSD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from saccade import _load
from saccade.ops import _checks
from saccade.ops import _scan_checks as _arguments
from saccade.ops._autocast import autocast
from saccade.ops._scan_op import CHUNK, computation_dtype, run
from saccade.ops._select import cuda_obstacle, offer, select_reverse_mode, triton_obstacle


def _gpu_limits(tensor: Tensor) -> str | None:
    if tensor.dtype == torch.float64:
        return "the GPU kernels compute in float32, float64 needs the reference"
    return None


def _cpu(tensor: Tensor) -> str | None:
    if tensor.device.type not in ("cpu", "meta"):
        return f"the tensors are on {tensor.device}"
    return None if _load.has("_C") else _load.reason("_C")


def _cuda(tensor: Tensor) -> str | None:
    return cuda_obstacle(tensor) or _gpu_limits(tensor)


def _triton(tensor: Tensor) -> str | None:
    if tensor.device.type == "cpu" and tensor.dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 wrongly"
    return triton_obstacle("scan", tensor) or _gpu_limits(tensor)


# "scan" is the word that stands for all of them.
for _word in ("scan", "selective_scan", "causal_conv1d"):
    offer(_word, cpu=_cpu, cuda=_cuda, triton=_triton)
# Triton's kernels use tensor cores, those in CUDA run the recurrence step by step
offer("ssd_scan", cpu=_cpu, triton=_triton, cuda=_cuda)


def choose_rung(operator: str, backend: str, tensor: Tensor) -> str:
    """The rung that runs; there is nothing to launch on an empty tensor."""
    rung = select_reverse_mode(operator, backend, tensor)
    return "reference" if rung in ("cuda", "triton") and tensor.numel() == 0 else rung


@overload
def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ...,
    z: Tensor | None = ..., delta_bias: Tensor | None = ..., delta_softplus: bool = ...,
    return_last_state: Literal[False] = ..., *, initial_state: Tensor | None = ...,
    reverse: bool = ..., seq_idx: Tensor | None = ..., directions: Sequence[str] | None = ...,
    backend: str = ...,
) -> Tensor: ...  # fmt: skip


@overload
def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ...,
    z: Tensor | None = ..., delta_bias: Tensor | None = ..., delta_softplus: bool = ...,
    return_last_state: bool = ..., *, initial_state: Tensor | None = ...,
    reverse: bool = ..., seq_idx: Tensor | None = ..., directions: Sequence[str] | None = ...,
    backend: str = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    initial_state: Tensor | None = None,
    reverse: bool = False,
    seq_idx: Tensor | None = None,
    directions: Sequence[str] | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Run the selective state space recurrence of Mamba (S6) over a sequence or a map.

    .. math:: h_t = e^{\Delta_t A} h_{t-1} + \Delta_t B_t u_t, \quad
              y_t = (C_t \cdot h_t + D u_t)\, \mathrm{silu}(z_t)

    Every channel has a state of N numbers of its own; the step is :math:`\Delta` = delta +
    delta_bias, or softplus of it. On a map the recurrence runs along up to any number of paths, row
    by row or column by column, and the results are added before the gate z: what VMamba calls
    cross-scan and cross-merge, without a copy of the map in another order.

    Args:
        u: [B, D, L] in float64, float32, float16 or bfloat16, any strides; with directions
            [B, D, H, W].
        delta: the shape and type of u; with k directions [B, k, D, H, W].
        A: [D, N] with 1 <= N <= 256; with directions [k, D, N]. A complex A runs on the reference
            alone and stands for itself and its conjugate.
        B: [B, N, L] in the type of u; [B, G, N, L] for G groups of D / G channels; or constant
            [D, N]. With directions [B, k, N, H, W], [B, k, G, N, H, W] or [k, D, N]. For a complex
            A real and imaginary parts alternate: [B, N, 2L], [B, G, N, 2L] or complex [D, N].
        C: as B; one of the two may be constant and the other not.
        D: [D], with directions [k, D]: skip connection. Default none.
        z: the shape and type of u: gate. Default none.
        delta_bias: [D], with directions [k, D]. Default none.
        delta_softplus: the step is softplus(delta + delta_bias), the sum itself above 20. Default
            False.
        return_last_state: also return the state after the last step. Default False.
        initial_state: [B, D, N], with directions [B, k, D, N]: the state before the first step.
            Default zeros.
        reverse: run from the end to the start. Default False.
        seq_idx: [B, L] integers: the state is forgotten where the number changes, so that several
            sequences share one row. Default: one sequence.
        directions: names out of "lr" and "rl" (row by row, forwards and backwards), "tb" and "bt"
            (column by column). Default None: u is a sequence.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` says which
            and why); "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.

    Returns:
        out with the shape, type and memory layout (channels first or last) of u; with
        return_last_state also last_state, shaped as initial_state, in float32 (float64 for
        float64). Both are differentiable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or options do not fit together.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives with a forced
            backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: B D L N exponentials and 3 B D L N multiply-adds a direction, about four times that
        with the backward pass. Saved for it: the state at every 32nd step (16th on a GPU), and the
        inputs.

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. Half types are computed in float32 and rounded once; the state is never rounded.
        A, D, delta_bias, initial_state and constant B and C may have any floating type and are
        used in float32 (float64 for float64), under autocast too; autocast casts the other inputs.

        Double backward recomputes the reference formula, with its memory and time, and only where
        create_graph=True asks for it. Forward-mode derivatives run on the reference. vmap folds the
        mapped axis into the channels. torch.compile traces one graph; batch and length may be
        dynamic.

    Source:
        Mamba, arXiv 2312.00752, equations 2a and 2b, algorithm 2; paths over a map: VMamba, arXiv
        2401.10166, section 4.2.

    >>> import torch
    >>> u, delta = torch.randn(2, 8, 10), torch.rand(2, 8, 10)
    >>> A, B = -torch.rand(8, 4), torch.randn(2, 4, 10)
    >>> out, state = selective_scan(u, delta, A, B, B, return_last_state=True)
    >>> out.shape, state.shape
    (torch.Size([2, 8, 10]), torch.Size([2, 8, 4]))
    """
    coefficients: tuple[Any, ...] = (B, C)
    if isinstance(u, Tensor):
        u, delta, z = autocast(u.device.type, (u, delta, z))
        coefficients = tuple(
            t if _is_constant(t, directions) else autocast(u.device.type, (t,))[0]
            for t in coefficients
        )
    _arguments.flag("delta_softplus", delta_softplus)
    _arguments.flag("reverse", reverse)
    codes = _arguments.paths(directions, reverse, seq_idx is not None)
    _checks.floating_tensor("u", u)
    on_map = directions is not None
    k = (len(codes),) if on_map else ()
    _arguments.rank("u", u, (4 if on_map else 3,), "[B, D, H, W]" if on_map else "[B, D, L]")
    batch, channels, *dims = u.shape
    spot, path = ("H, W", f"k = {len(codes)}, ") if on_map else ("L", "")

    _arguments.signal("delta", delta, "u", u)
    _checks.shape("delta", delta, (batch, *k, channels, *dims), f"[B, {path}D, {spot}]")
    if z is not None:
        _arguments.signal("z", z, "u", u)
        _checks.shape("z", z, u.shape, f"[B, D, {spot}]")
    complex_state = isinstance(A, Tensor) and A.is_complex()
    if complex_state and backend not in ("auto", "reference"):
        raise RuntimeError(
            f"selective_scan cannot run with backend={backend!r}: a complex A runs on the "
            "reference alone."
        )
    if not complex_state:
        _checks.floating_tensor("A", A)
    _arguments.rank("A", A, (len(k) + 2,), f"[{path}D, N]")
    state = A.shape[-1]
    _arguments.state("A", state)
    A = _parameter("A", A, u, (*k, channels, state), f"[{path}D, N]")
    B, C = (
        _coefficient(name, tensor, u, k, state, complex_state)
        for name, tensor in zip("BC", coefficients, strict=True)
    )
    if B.dim() == C.dim() == 5 and B.shape[2] != C.shape[2]:
        raise ValueError(f"B and C must have equally many groups, got {B.shape[2]}, {C.shape[2]}.")
    if D is not None:
        D = _parameter("D", D, u, (*k, channels), f"[{path}D]")
    if delta_bias is not None:
        delta_bias = _parameter("delta_bias", delta_bias, u, (*k, channels), f"[{path}D]")
    if initial_state is not None:
        shape = (batch, *k, channels, state)
        initial_state = _parameter("initial_state", initial_state, u, shape, f"[B, {path}D, N]")
    if seq_idx is not None:
        seq_idx = _arguments.seq_idx(seq_idx, "u", u, (batch, *dims))

    height = 1
    if on_map:
        height = max(dims[0], 1)
        u, delta = u.flatten(-2), delta.flatten(-2)
        z = None if z is None else z.flatten(-2)
    else:
        delta, A = delta.unsqueeze(1), A.unsqueeze(0)
        D = None if D is None else D.unsqueeze(0)
        delta_bias = None if delta_bias is None else delta_bias.unsqueeze(0)
        initial_state = None if initial_state is None else initial_state.unsqueeze(1)

    rung = "reference" if complex_state else choose_rung("selective_scan", backend, u)
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    out, last_state = run(
        "selective_scan", rung, tensors, delta_softplus, codes, height, CHUNK.get(rung, 0)
    )
    if on_map:
        out = out.unflatten(-1, dims)
    else:
        last_state = last_state.squeeze(1)
    return (out, last_state) if return_last_state else out


def _is_constant(tensor: Any, directions: Sequence[str] | None) -> bool:
    return isinstance(tensor, Tensor) and tensor.dim() == (2 if directions is None else 3)


def _parameter(name: str, tensor: Tensor, u: Tensor, shape: Sequence[int], letters: str) -> Tensor:
    if not isinstance(tensor, Tensor) or not tensor.is_complex():
        return _arguments.parameter(name, tensor, "u", u, shape, letters)
    _checks.shape(name, tensor, shape, letters)
    return tensor


def _coefficient(
    name: str, tensor: Any, u: Tensor, k: tuple[int, ...], state: int, complex_state: bool
) -> Tensor:
    """B or C as [B, K, G, N, L] or, constant, [K, D, N]."""
    batch, channels, *dims = u.shape
    path = f"k = {k[0]}, " if k else ""
    spot = "H, W" if k else "L"
    if isinstance(tensor, Tensor) and tensor.dim() == len(k) + 2:
        if complex_state != tensor.is_complex():
            raise TypeError(f"a constant {name} must be complex where A is, got {tensor.dtype}.")
        constant = _parameter(name, tensor, u, (*k, channels, state), f"[{path}D, N]")
        return constant if k else constant.unsqueeze(0)
    _arguments.signal(name, tensor, "u", u)
    rank = 2 + len(k) + len(dims)
    forms = f"[{path}D, N], [B, {path}N, {spot}] or [B, {path}G, N, {spot}]"
    _arguments.rank(name, tensor, (rank, rank + 1), forms)
    if tensor.dim() == rank:
        tensor = tensor.unsqueeze(1 + len(k))
    group_count = tensor.shape[1 + len(k)]
    _arguments.groups(name, group_count, "D", channels)
    if complex_state:
        dims[-1] = 2 * dims[-1]
    expected = (batch, *k, group_count, state, *dims)
    _checks.shape(name, tensor, expected, f"[B, {path}G, N, {spot}]")
    variable: Tensor = tensor.flatten(-2) if k else tensor.unsqueeze(1)
    if complex_state:
        pairs = variable.to(computation_dtype(u.dtype)).unflatten(-1, (-1, 2))
        variable = torch.view_as_complex(pairs.contiguous())
    return variable
