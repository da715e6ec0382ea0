"""Selective state spaces as layers: scans with their projections, and the Mamba block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from saccade import ops

# Smallest step that a layer starts with.
_STEP_FLOOR = 1e-4


class MambaState(NamedTuple):
    """What a Mamba block remembers between steps: [B, D, W - 1] inputs and the state [B, D, N]."""

    conv: Tensor
    scan: Tensor


def _auto_rank(dt_rank: int | None, width: int) -> int:
    return math.ceil(width / 16) if dt_rank is None else dt_rank


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"{name} must be an int, got {size!r}.")
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def _first_steps(*shape: int, dt_min: float, dt_max: float) -> Tensor:
    """Biases whose softplus is uniform in logarithm between dt_min and dt_max."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(
            f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max, got {dt_min}, {dt_max}."
        )
    steps = (torch.rand(shape) * math.log(dt_max / dt_min) + math.log(dt_min)).exp()
    steps = steps.clamp(min=_STEP_FLOOR)
    # the inverse of softplus
    return steps + torch.log(-torch.expm1(-steps))


class SelectiveScan(nn.Module):
    r"""A selective scan whose step, B and C are projections of its input: [B, L, D] -> [B, L, D].

    .. math:: (\delta_t, B_t, C_t) = W_x u_t, \quad \Delta_t = \mathrm{softplus}(W_\Delta \delta_t
              + b), \quad y = \mathrm{S6}(u, \Delta, A, B, C) + D u

    A = -exp(`A_log`) starts at -1 ... -N. `x_proj`, `dt_proj`, `A_log` and `D` are named as in
    published Mamba checkpoints.

    Args:
        channels: D.
        state: N, numbers of the state of a channel. Default 16.
        dt_rank: rank of the projection to the step; None: D / 16, rounded up.
        dt_min: smallest step at the start, above 0. Default 0.001.
        dt_max: largest step at the start. Default 0.1.

    Raises:
        TypeError: a size is not an int.
        ValueError: a size is below 1, or the steps are out of order.

    Source:
        Mamba, arXiv 2312.00752, algorithm 2 and section 3.6.

    >>> SelectiveScan(8, state=4)(torch.randn(2, 10, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        channels: int,
        state: int = 16,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        _positive(channels=channels, state=state)
        self.channels, self.state = channels, state
        self.dt_rank = _auto_rank(dt_rank, channels)
        _positive(dt_rank=self.dt_rank)
        self.x_proj = nn.Linear(channels, self.dt_rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, channels)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        with torch.no_grad():
            self.dt_proj.bias.copy_(_first_steps(channels, dt_min=dt_min, dt_max=dt_max))

    def scan(
        self, u: Tensor, z: Tensor | None, initial_state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[B, L, D] and gate of that shape to result and last state; views, no copies."""
        parts = self.x_proj(u).split([self.dt_rank, self.state, self.state], -1)
        # the bias goes through softplus with the operator, in its precision
        delta = nn.functional.linear(parts[0], self.dt_proj.weight)
        A = -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp()
        out, last_state = ops.selective_scan(
            u.mT, delta.mT, A, parts[1].mT, parts[2].mT, self.D,
            z=None if z is None else z.mT, delta_bias=self.dt_proj.bias, delta_softplus=True,
            return_last_state=True, initial_state=initial_state,
        )  # fmt: skip
        return out.mT, last_state

    def forward(self, u: Tensor, initial_state: Tensor | None = None) -> Tensor:
        """Scan u [B, L, D] from initial_state [B, D, N], default zeros."""
        self._check("u", u, self.channels)
        return self.scan(u, None, initial_state)[0]

    def _check(self, name: str, x: Tensor, size: int) -> None:
        if x.dim() != 3 or x.shape[-1] != size:
            raise ValueError(f"{name} must have shape [B, L, {size}], got {tuple(x.shape)}.")

    def extra_repr(self) -> str:
        """What print shows."""
        return f"channels={self.channels}, state={self.state}, dt_rank={self.dt_rank}"


class Mamba(SelectiveScan):
    r"""The Mamba block, a causal map of sequences [B, L, C] -> [B, L, C].

    .. math:: (x, z) = W_{in} v, \quad y = W_{out}\big(
              \mathrm{SelectiveScan}(\mathrm{silu}(\mathrm{conv}(x))) \odot \mathrm{silu}(z)\big)

    The state dictionary (`in_proj`, `conv1d`, `x_proj`, `dt_proj`, `A_log`, `D`, `out_proj`) is
    that of published Mamba checkpoints.

    Args:
        embed_dim: C, channels in and out.
        state: N. Default 16.
        kernel_size: W, taps of the convolution, 1 to 16. Default 4.
        expand: D = expand * C. Default 2.
        dt_rank: rank of the projection to the step; None: C / 16, rounded up.
        dt_min: smallest step at the start, above 0. Default 0.001.
        dt_max: largest step at the start. Default 0.1.
        conv_bias: bias of the convolution. Default True.
        bias: biases of the projections in and out. Default False.

    Raises:
        TypeError: a size is not an int.
        ValueError: a size is below 1, or the steps are out of order.

    Source:
        Mamba, arXiv 2312.00752, section 3.4 and figure 3.

    >>> block = Mamba(8, state=4)
    >>> x = torch.randn(2, 10, 8)
    >>> y, state = block(x[:, :9], return_state=True)
    >>> torch.allclose(block.step(x[:, 9], state)[0], block(x)[:, 9], atol=1e-5)
    True
    """

    def __init__(
        self,
        embed_dim: int,
        state: int = 16,
        kernel_size: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        _positive(embed_dim=embed_dim, expand=expand, kernel_size=kernel_size)
        channels = expand * embed_dim
        super().__init__(channels, state, _auto_rank(dt_rank, embed_dim), dt_min, dt_max)
        self.embed_dim, self.kernel_size = embed_dim, kernel_size
        self.in_proj = nn.Linear(embed_dim, 2 * channels, bias=bias)
        # a module for its parameters' names and start: ops.causal_conv1d does the work
        self.conv1d = nn.Conv1d(channels, channels, kernel_size, groups=channels, bias=conv_bias)
        self.out_proj = nn.Linear(channels, embed_dim, bias=bias)

    def initial_state(self, batch: int) -> MambaState:
        """The state of B sequences that have not begun: zeros."""
        weight = self.in_proj.weight
        kind = torch.promote_types(weight.dtype, torch.float32)
        return MambaState(
            weight.new_zeros(batch, self.channels, self.kernel_size - 1),
            weight.new_zeros(batch, self.channels, self.state, dtype=kind),
        )

    def run(self, x: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        """Result and state after the last position."""
        inner, gate = self.in_proj(x).chunk(2, -1)
        conv = None if state is None else state.conv.to(inner.dtype)
        u, past = ops.causal_conv1d(
            inner.mT, self.conv1d.weight.squeeze(1), self.conv1d.bias, activation="silu",
            initial_states=conv, return_final_states=True,
        )  # fmt: skip
        y, last = self.scan(u.mT, gate, None if state is None else state.scan)
        return self.out_proj(y), MambaState(past, last)

    def forward(  # type: ignore[override]
        self, x: Tensor, state: MambaState | None = None, return_state: bool = False
    ) -> Tensor | tuple[Tensor, MambaState]:
        """Go on from `state` with x [B, L, C]; with return_state also return the state after it."""
        self._check("x", x, self.embed_dim)
        out, after = self.run(x, state)
        return (out, after) if return_state else out

    def step(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """One position [B, C] after `state`: the result [B, C] and the new state.

        The same as forward with L = 1: constant time and memory for each position.
        """
        if x.dim() != 2 or x.shape[-1] != self.embed_dim:
            raise ValueError(f"x must have shape [B, {self.embed_dim}], got {tuple(x.shape)}.")
        out, after = self.run(x.unsqueeze(1), state)
        return out.squeeze(1), after

    def extra_repr(self) -> str:
        """What print shows."""
        return f"embed_dim={self.embed_dim}, kernel_size={self.kernel_size}, {super().extra_repr()}"


class SelectiveScan2d(nn.Module):
    r"""Selective scans along several paths over a map, added: [B, D, H, W] -> [B, D, H, W].

    Each path has projections of its own to step, B and C. No copy of the map in another order is
    made. The parameters (`x_proj_weight`, `dt_projs_weight`, `dt_projs_bias`, `A_logs`, `Ds`) and
    the default order of paths are those of VMamba's checkpoints.

    Args:
        channels: D.
        state: N. Default 16.
        dt_rank: rank of the projection to the step; None: D / 16, rounded up.
        directions: k names out of "lr", "rl", "tb", "bt". Default all four.
        dt_min: smallest step at the start, above 0. Default 0.001.
        dt_max: largest step at the start. Default 0.1.

    Raises:
        TypeError: a size is not an int.
        ValueError: a size is below 1, or the steps are out of order.

    Source:
        VMamba, arXiv 2401.10166, section 4.2 (SS2D).

    >>> SelectiveScan2d(8, state=4)(torch.randn(2, 8, 5, 6)).shape
    torch.Size([2, 8, 5, 6])
    """

    def __init__(
        self,
        channels: int,
        state: int = 16,
        dt_rank: int | None = None,
        directions: Sequence[str] = ("lr", "tb", "rl", "bt"),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        _positive(channels=channels, state=state)
        self.channels, self.state, self.directions = channels, state, tuple(directions)
        self.dt_rank = _auto_rank(dt_rank, channels)
        _positive(dt_rank=self.dt_rank)
        k = len(self.directions)
        self.x_proj_weight = nn.Parameter(torch.empty(k, self.dt_rank + 2 * state, channels))
        self.dt_projs_weight = nn.Parameter(torch.empty(k, channels, self.dt_rank))
        self.dt_projs_bias = nn.Parameter(_first_steps(k, channels, dt_min=dt_min, dt_max=dt_max))
        self.A_logs = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(k * channels, 1))
        self.Ds = nn.Parameter(torch.ones(k * channels))
        for weight in (self.x_proj_weight, self.dt_projs_weight):
            bound = weight.shape[-1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Scan x [B, D, H, W], contiguous or channels-last."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must have shape [B, {self.channels}, H, W], got {tuple(x.shape)}.")
        k, sizes = len(self.directions), [self.dt_rank, self.state, self.state]
        parts = torch.einsum("bdhw,kcd->bkchw", x, self.x_proj_weight).split(sizes, 2)
        delta = torch.einsum("bkrhw,kdr->bkdhw", parts[0], self.dt_projs_weight)
        A = -self.A_logs.to(torch.promote_types(self.A_logs.dtype, torch.float32)).exp()
        out: Tensor = ops.selective_scan(
            x.to(delta.dtype), delta, A.unflatten(0, (k, -1)), parts[1], parts[2],
            self.Ds.unflatten(0, (k, -1)), delta_bias=self.dt_projs_bias, delta_softplus=True,
            directions=self.directions,
        )  # fmt: skip
        return out

    def extra_repr(self) -> str:
        """What print shows."""
        return (
            f"channels={self.channels}, state={self.state}, dt_rank={self.dt_rank}, "
            f"directions={self.directions}"
        )
