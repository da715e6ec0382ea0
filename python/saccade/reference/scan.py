"""Selective scans and the causal convolution before them: one step of time after the other.

S6: Mamba (arXiv 2312.00752, equations 2a, 2b and algorithm 2). SSD: Mamba-2 (arXiv 2405.21060,
section 3.2, equation 6). Shapes are those of the compiled operators.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def _up(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """To the type of computation; a complex tensor to the complex type of that precision."""
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


def _accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def scan_order(direction: int, length: int, height: int) -> list[int]:
    """Positions of a map of `height` rows in the order in which a path visits them.

    Args:
        direction: 0 row by row, 1 the same backwards, 2 column by column, 3 the same backwards.
        length: L = H * W.
        height: H.

    >>> scan_order(2, 6, 2)
    [0, 3, 1, 4, 2, 5]
    """
    width = length // height
    order = [s % height * width + s // height for s in range(length)]
    if direction < 2:
        order = list(range(length))
    return order[::-1] if direction % 2 else order


def _coefficient(tensor: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """B or C as [B, K, D, N, L] or, constant, [1, K, D, N, 1]."""
    tensor = _up(tensor, dtype)
    if tensor.dim() == 3:
        return tensor[None, ..., None]
    return tensor.repeat_interleave(channels // tensor.shape[2], 2)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    delta_softplus: bool = False,
    directions: Sequence[int] = (0,),
    height: int = 1,
) -> tuple[Tensor, Tensor]:
    """Run the diagonal recurrence of S6 along K paths over one map and add the results.

    Args:
        u: [B, D, L].
        delta: [B, K, D, L].
        A: [K, D, N], real or complex.
        B: [B, K, G, N, L] with G groups of channels, or constant [K, D, N].
        C: as B.
        D: [K, D].
        z: [B, D, L].
        delta_bias: [K, D].
        initial_state: [B, K, D, N].
        seq_idx: [B, L], integers: the state is forgotten where the number changes along the path.
        delta_softplus: the step is softplus(delta + delta_bias), its argument itself above 20.
        directions: K codes, see scan_order.
        height: H.

    Returns:
        out [B, D, L] in the type of u, last_state [B, K, D, N] in at least float32.
    """
    dtype = _accumulation_dtype(u.dtype)
    batch, channels, length = u.shape
    signal, A = u.to(dtype), _up(A, dtype)
    B, C = _coefficient(B, channels, dtype), _coefficient(C, channels, dtype)
    step = delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[..., None]
    if delta_softplus:
        step = F.softplus(step)
    start = A.new_zeros(batch, *A.shape) if initial_state is None else _up(initial_state, A.dtype)

    total, states = torch.zeros_like(signal), []
    # time unbound: the gradient of one slice at a time would be of the size of all of them
    inputs, B_steps, C_steps = signal.unbind(-1), B.unbind(-1), C.unbind(-1)
    for k, direction in enumerate(directions):
        order, steps = scan_order(direction, length, height), step[:, k].unbind(-1)
        state = start[:, k]
        outputs: list[Tensor] = [signal] * length
        for s, p in enumerate(order):
            if seq_idx is not None and s > 0:
                border = seq_idx[:, p] != seq_idx[:, order[s - 1]]
                state = torch.where(border[:, None, None], torch.zeros_like(state), state)
            dt = steps[p][..., None]
            drive = B_steps[p if len(B_steps) > 1 else 0][:, k] * inputs[p][..., None]
            state = (dt * A[k]).exp() * state + dt * drive
            y = (C_steps[p if len(C_steps) > 1 else 0][:, k] * state).sum(-1)
            # a complex state stands for itself and its conjugate
            outputs[p] = 2 * y.real if y.is_complex() else y
        if length:
            total = total + torch.stack(outputs, -1)
        if D is not None:
            total = total + D[k].to(dtype)[:, None] * signal
        states.append(state)
    if z is not None:
        total = total * F.silu(z.to(dtype))
    return total.to(u.dtype), torch.stack(states, 1)


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_softplus: bool = False,
    dt_min: float = 0.0,
    dt_max: float = float("inf"),
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of SSD: one decay for the whole [P, N] state of a head.

    Args:
        x: [B, L, H, P].
        dt: [B, L, H].
        A: [H].
        B: [B, L, G, N].
        C: [B, L, G, N].
        D: [H, P].
        z: [B, L, H, P].
        dt_bias: [H].
        initial_states: [B, H, P, N].
        seq_idx: [B, L], integers: the state is forgotten where the number changes.
        dt_softplus: the step is softplus(dt + dt_bias).
        dt_min: the step is at least this,
        dt_max: and at most this.

    Returns:
        out [B, L, H, P] in the type of x, final_states [B, H, P, N] in at least float32.
    """
    dtype = _accumulation_dtype(x.dtype)
    batch, length, heads, width = x.shape
    signal, A = x.to(dtype), A.to(dtype)
    B, C = (t.to(dtype).repeat_interleave(heads // t.shape[2], 2) for t in (B, C))
    step = dt.to(dtype)
    if dt_bias is not None:
        step = step + dt_bias.to(dtype)
    if dt_softplus:
        step = F.softplus(step)
    step = step.clamp(dt_min, dt_max)
    state = signal.new_zeros(batch, heads, width, B.shape[-1])
    if initial_states is not None:
        state = initial_states.to(dtype)
    outputs = []
    # time unbound: the gradient of one slice at a time would be of the size of all of them
    signals, steps, Bs, Cs = (t.unbind(1) for t in (signal, step, B, C))
    for t in range(length):
        if seq_idx is not None and t > 0:
            border = seq_idx[:, t] != seq_idx[:, t - 1]
            state = torch.where(border[:, None, None, None], torch.zeros_like(state), state)
        decay = (steps[t] * A).exp()[..., None, None]
        drive = (steps[t][..., None] * signals[t])[..., None] * Bs[t][..., None, :]
        state = decay * state + drive
        outputs.append((state * Cs[t][..., None, :]).sum(-1))
    total = torch.stack(outputs, 1) if outputs else torch.zeros_like(signal)
    if D is not None:
        total = total + D.to(dtype) * signal
    if z is not None:
        total = total * F.silu(z.to(dtype))
    return total.to(x.dtype), state


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    silu: bool = False,
) -> Tensor:
    """Convolve every channel with a filter of its own that looks at the past alone.

    Args:
        x: [B, D, L].
        weight: [D, W]; its last entry meets the present.
        bias: [D].
        initial_states: [B, D, W-1], what came before x; zeros where absent.
        seq_idx: [B, L], integers: entries of another number than the present's count as zero.
        silu: apply silu to the result.

    Returns:
        [B, D, L] in the type of x.
    """
    dtype = _accumulation_dtype(x.dtype)
    batch, channels, length = x.shape
    width = weight.shape[-1]
    if initial_states is None:
        initial_states = x.new_zeros(batch, channels, width - 1)
    signal = torch.cat([initial_states.to(dtype), x.to(dtype)], -1)
    out = torch.zeros(batch, channels, length, dtype=dtype, device=x.device)
    if bias is not None:
        out = out + bias.to(dtype)[:, None]
    for w in range(width):
        term = weight[:, w, None].to(dtype) * signal[..., w : w + length]
        if seq_idx is not None:
            back = width - 1 - w
            there = F.pad(seq_idx, (back, 0))[:, :length] == seq_idx
            there = there & (torch.arange(length, device=x.device) >= back)
            term = torch.where(there[:, None], term, torch.zeros_like(term))
        out = out + term
    return (F.silu(out) if silu else out).to(x.dtype)
