"""Amplitude encoding: columns of the inputs as the state that a circuit starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Amplitudes:
    """Which columns are amplitudes, and what is done to them."""

    n_wires: int
    start: int
    length: int
    pad: bool
    normalize: bool

    @property
    def stop(self) -> int:
        """The column after the last one."""
        return self.start + self.length

    @classmethod
    def of(
        cls, n_wires: int, start: int, length: int | None, pad: bool, normalize: bool
    ) -> Amplitudes:
        """Check the lengths."""
        size = 2**n_wires
        length = size if length is None else length
        if start < 0:
            raise ValueError(f"start must be at least 0, got {start}.")
        if not 1 <= length <= size:
            raise ValueError(f"length must be from 1 to 2**{n_wires} = {size}, got {length}.")
        if length < size and not pad:
            raise ValueError(f"length must be 2**{n_wires} = {size} unless pad=True, got {length}.")
        return cls(n_wires, start, length, pad, normalize)

    def state(self, inputs: Tensor | None) -> Tensor:
        """Return [B, 2**n]; differentiable."""
        if inputs is None or inputs.dim() < 1 or inputs.shape[-1] < self.stop:
            got = "None" if inputs is None else f"shape {tuple(inputs.shape)}"
            raise ValueError(f"inputs must have at least {self.stop} columns, got {got}.")
        chosen = inputs[..., self.start : self.stop]
        norms = torch.linalg.vector_norm(chosen, dim=-1, keepdim=True)
        if self.normalize:
            if bool((norms == 0).any()):
                raise ValueError("amplitudes must not all be 0: a sample has norm 0.")
            chosen = chosen / norms
        elif not bool(((norms - 1).abs() < 1e-4).all() | norms.isnan().any()):
            worst = norms.flatten()[(norms - 1).abs().argmax()].item() if norms.numel() else 1.0
            raise ValueError(
                f"amplitudes must have norm 1 unless normalize=True, got a norm of {worst:.6g}."
            )
        size = 2**self.n_wires
        return torch.nn.functional.pad(chosen, (0, size - self.length))
