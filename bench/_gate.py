"""The correctness gate: nothing is timed before it agrees with the reference.

Outputs and gradients are compared, and the reference runs in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.bench._suite import FORWARD, TRAINING, Function, Inputs


class GateError(RuntimeError):
    """Our own results are wrong, so there is nothing to report."""


@dataclass(frozen=True)
class Verdict:
    """The worst error of all tensors, relative to the largest entry of the true one."""

    error: float
    tolerance: float
    tensor: str

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance

    @property
    def text(self) -> str:
        """The verdict as part of a sentence."""
        return (
            f"{self.tensor} is off by {self.error:.1e} of its largest entry, "
            f"{self.tolerance:.0e} is allowed"
        )


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs of a function, one or many, as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def require_grad(inputs: Inputs, constants: tuple[str, ...] = ()) -> Inputs:
    """Leaves on the same storage; those of a floating type ask for gradients, less `constants`."""
    return {
        k: v.detach().requires_grad_(v.is_floating_point() and k not in constants)
        for k, v in inputs.items()
    }


def step(function: Function, inputs: Inputs, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A training step without the optimiser: forward, then the gradients that are asked for."""
    leaves = [t for t in inputs.values() if t.requires_grad]
    return torch.autograd.grad(as_tuple(function(inputs)), leaves, cotangents)


def draw_cotangents(function: Function, inputs: Inputs) -> tuple[Tensor, ...]:
    """Run the forward pass and draw gradients of its outputs from N(0, 1)."""
    with torch.no_grad():
        return _draw_like(as_tuple(function(inputs)))


def _draw_like(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(o.shape, generator=generator).to(o) for o in outputs)


def _name_outputs(outputs: tuple[Tensor, ...]) -> Inputs:
    return {f"output {i}": output for i, output in enumerate(outputs)}


def _name_gradients(leaves: Inputs, gradients: tuple[Tensor, ...]) -> Inputs:
    names = [f"the gradient of {k}" for k, v in leaves.items() if v.requires_grad]
    return dict(zip(names, gradients, strict=True))


def evaluate(
    function: Function,
    inputs: Inputs,
    cotangents: tuple[Tensor, ...],
    phase: str,
    constants: tuple[str, ...] = (),
) -> Inputs:
    """Name and return what a pass computes: the outputs, or the gradients of the inputs."""
    if phase == TRAINING:
        leaves = require_grad(inputs, constants)
        return _name_gradients(leaves, step(function, leaves, cotangents))
    with torch.no_grad():
        return _name_outputs(as_tuple(function(inputs)))


def solve(
    function: Function,
    inputs: Inputs,
    dtype: torch.dtype,
    constants: tuple[str, ...] = (),
    training: bool = True,
) -> tuple[tuple[Tensor, ...], dict[str, Inputs]]:
    """Draw gradients of the outputs, and compute the truth of both passes in one evaluation.

    A problem without a training step (`training` is False) has the truth of the forward alone.

    Returns:
        The gradients in `dtype`, and the named tensors of each pass.
    """
    leaves = require_grad(inputs, constants)
    outputs = as_tuple(function(leaves))
    cotangents = tuple(c.to(dtype) for c in _draw_like(outputs))
    forward = _name_outputs(tuple(output.detach() for output in outputs))
    if not training:
        return cotangents, {FORWARD: forward}
    asked = [t for t in leaves.values() if t.requires_grad]
    # The contestants' gradients come rounded to dtype, so the truth starts from the same numbers.
    gradients = torch.autograd.grad(
        outputs, asked, [c.to(o) for c, o in zip(cotangents, outputs, strict=True)]
    )
    return cotangents, {FORWARD: forward, TRAINING: _name_gradients(leaves, gradients)}


def judge(results: Inputs, truth: Inputs, tolerance: float) -> Verdict:
    """Compare with the truth; NaN, a missing or a misshapen tensor is an infinite error."""
    worst = Verdict(0.0, tolerance, "nothing")
    for name, true in truth.items():
        error = float("inf")
        if name in results and results[name].shape == true.shape:
            difference = (results[name].double() - true.double()).abs().max()
            relative = difference / true.double().abs().max().clamp_min(1e-30)
            error = float(relative.nan_to_num(float("inf")))
        if error > worst.error:
            worst = Verdict(error, tolerance, name)
    return worst
