"""The scan of Mamba-2: one decay for the whole state of a head (SSD)."""

from __future__ import annotations

import math
from typing import Any, Literal, overload

from torch import Tensor

from saccade.ops import _checks
from saccade.ops import _scan_checks as _arguments
from saccade.ops._autocast import autocast
from saccade.ops._scan_op import SSD_CHUNK, run
from saccade.ops.scan import choose_rung


@overload
def ssd_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int,
    D: Tensor | None = ..., z: Tensor | None = ..., dt_bias: Tensor | None = ...,
    initial_states: Tensor | None = ..., seq_idx: Tensor | None = ..., dt_softplus: bool = ...,
    dt_limit: tuple[float, float] = ..., return_final_states: Literal[False] = ..., *,
    backend: str = ...,
) -> Tensor: ...  # fmt: skip


@overload
def ssd_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int,
    D: Tensor | None = ..., z: Tensor | None = ..., dt_bias: Tensor | None = ...,
    initial_states: Tensor | None = ..., seq_idx: Tensor | None = ..., dt_softplus: bool = ...,
    dt_limit: tuple[float, float] = ..., return_final_states: bool = ..., *,
    backend: str = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    return_final_states: bool = False,
    *,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Run the state space dual recurrence of Mamba-2 (SSD): one decay for the state of a head.

    .. math:: S_t = e^{\Delta_t A_h} S_{t-1} + \Delta_t\, x_t B_t^\top, \quad
              y_t = (S_t C_t + D x_t) \odot \mathrm{silu}(z_t)

    The step :math:`\Delta` is dt + dt_bias, or softplus of it, clamped to dt_limit.

    Args:
        x: [B, L, H, P] for H heads of P channels, in float64, float32, float16 or bfloat16, any
            strides.
        dt: [B, L, H] in the type of x.
        A: [H].
        B: [B, L, G, N] in the type of x for G groups of H / G heads; 1 <= N <= 256.
        C: the shape and type of B.
        chunk_size: at least 1; here for the signature that models know. The result does not depend
            on it, and each kernel takes the chunks that suit it.
        D: [H] or [H, P]: skip connection. Default none.
        z: the shape and type of x: gate. Default none.
        dt_bias: [H]. Default none.
        initial_states: [B, H, P, N], the state before the first step. Default zeros.
        seq_idx: [B, L] integers: the state is forgotten where the number changes. Default: one
            sequence.
        dt_softplus: the step is softplus(dt + dt_bias), the sum itself above 20. Default False.
        dt_limit: lower and upper limit of the step, 0 <= lower <= upper. Default (0, inf).
        return_final_states: also return the state after the last step. Default False.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` says which
            and why); "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.

    Returns:
        out with the shape and type of x; with return_final_states also final_states [B, H, P, N]
        in float32 (float64 for float64). Both are differentiable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: shapes, types, devices or options do not fit together.
        NotImplementedError: sparse and nested tensors; forward-mode derivatives with a forced
            backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: 5 B L H P N flops on the CPU, where the state stays in the first-level cache; three
            times that with the backward pass.

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. Half types are computed in float32 and rounded once; the state is never rounded.
        A, D, dt_bias and initial_states may have any floating type and are used in float32 (float64
        for float64), under autocast too; autocast casts x, dt, B, C and z.

        Double backward recomputes the reference formula, with its memory and time, and only where
        create_graph=True asks for it. Forward-mode derivatives run on the reference. vmap folds the
        mapped axis into the heads.

    Source:
        Mamba-2, arXiv 2405.21060, section 3.2 and listing 1.

    >>> import torch
    >>> x, dt = torch.randn(1, 10, 2, 4), torch.rand(1, 10, 2)
    >>> B = torch.randn(1, 10, 1, 8)
    >>> ssd_scan(x, dt, -torch.rand(2), B, B, chunk_size=64).shape
    torch.Size([1, 10, 2, 4])
    """
    signals: tuple[Any, ...] = (x, dt, B, C, z)
    if isinstance(x, Tensor):
        signals = autocast(x.device.type, signals)
    x, dt, B, C, z = signals
    _arguments.flag("dt_softplus", dt_softplus)
    low, high = _arguments.limits(dt_limit)
    _checks.positive_ints("chunk_size", chunk_size, 1)
    _checks.floating_tensor("x", x)
    _arguments.rank("x", x, (4,), "[B, L, H, P]")
    batch, length, heads, width = x.shape
    _arguments.signal("dt", dt, "x", x)
    _checks.shape("dt", dt, (batch, length, heads), "[B, L, H]")
    _arguments.signal("B", B, "x", x)
    _arguments.signal("C", C, "x", x)
    _arguments.rank("B", B, (4,), "[B, L, G, N]")
    groups, state = B.shape[2:]
    _arguments.groups("B", groups, "H", heads)
    _arguments.state("B", state)
    for name, tensor in (("B", B), ("C", C)):
        _checks.shape(name, tensor, (batch, length, groups, state), "[B, L, G, N]")
    if z is not None:
        _arguments.signal("z", z, "x", x)
        _checks.shape("z", z, x.shape, "[B, L, H, P]")
    A = _arguments.parameter("A", A, "x", x, (heads,), "[H]")
    if D is not None:
        by_channel = isinstance(D, Tensor) and D.dim() == 2
        shape, letters = ((heads, width), "[H, P]") if by_channel else ((heads,), "[H]")
        D = _arguments.parameter("D", D, "x", x, shape, letters)
        D = D if by_channel else D[:, None].expand(heads, width)
    if dt_bias is not None:
        dt_bias = _arguments.parameter("dt_bias", dt_bias, "x", x, (heads,), "[H]")
    if initial_states is not None:
        initial_states = _arguments.parameter(
            "initial_states", initial_states, "x", x, (batch, heads, width, state), "[B, H, P, N]"
        )
    if seq_idx is not None:
        seq_idx = _arguments.seq_idx(seq_idx, "x", x, (batch, length))

    rung = choose_rung("ssd_scan", backend, x)
    tensors = (x, dt, A, B, C, D, z, dt_bias, initial_states, seq_idx)
    saved = SSD_CHUNK.get(rung, 0)
    out, final_states = run("ssd_scan", rung, tensors, dt_softplus, low, high, saved)
    return (out, final_states) if return_final_states else out
