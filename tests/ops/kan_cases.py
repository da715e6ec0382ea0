"""Problems that the tests of Kolmogorov-Arnold layers share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    basis: str
    options: dict[str, Any]
    num_basis: int
    learnable: bool = True  # the basis's tensors want gradients


CASES: dict[str, Case] = {
    **{
        f"bspline-{order}-{beyond}": Case(
            "bspline", {"order": order, "out_of_range": beyond}, order + 4, beyond != "extend"
        )
        for order in (1, 3, 5)
        for beyond in ("zero", "clamp", "extend")
    },
    "bspline-0": Case("bspline", {"order": 0}, 6, False),
    "bspline-one-interval": Case("bspline", {}, 4, False),
    "bspline-equal-steps": Case("bspline", {"out_of_range": "clamp"}, 40, False),
    "gaussian": Case("gaussian", {}, 8),
    "rswaf": Case("rswaf", {}, 7),
    "fasterkan": Case("rswaf", {"mode": "fasterkan"}, 8, False),
    "chebyshev": Case("chebyshev", {}, 6),
    "chebyshev-constant": Case("chebyshev", {}, 1),
    "fourier": Case("fourier", {}, 10),
    "fourier-constant": Case("fourier", {"include_dc": True}, 7),
    **{
        kind: Case("wavelet", {"kind": kind}, 1)
        for kind in ("mexican_hat", "morlet", "dog", "meyer", "shannon")
    },
}


class Problem(NamedTuple):
    """Named leaves, in float64, and constants."""

    tensors: dict[str, Tensor]
    constants: dict[str, Any]


def draw(case: Case, rows: int, inputs: int, outputs: int, extra: bool, seed: int = 0) -> Problem:
    """A layer's tensors; with `extra` also base weight, bias, and more parameters."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    n = case.num_basis
    tensors = {"x": 1.3 * normal(rows, inputs), "weight": normal(outputs, inputs, n)}
    if extra:
        tensors["base_weight"], tensors["bias"] = normal(outputs, inputs), normal(outputs)
    if case.learnable and case.basis == "bspline":
        count = n + case.options["order"] + 1
        steps = 0.2 + normal(inputs if extra else 1, count).abs()
        knots = steps.cumsum(-1)
        knots = 4 * (knots - knots[:, :1]) / (knots[:, -1:] - knots[:, :1]) - 2
        tensors["grid"] = knots if extra else knots[0]
    if case.basis == "gaussian":
        tensors["centres"] = torch.linspace(-2, 2, n, dtype=torch.float64)
        tensors["width"] = 0.4 + normal(n if extra else 1).abs()
    if case.basis == "rswaf" and case.learnable:
        tensors["centres"] = torch.linspace(-2, 2, n, dtype=torch.float64)
        tensors["inv_width"] = 0.4 + normal(n if extra else 1).abs()
    if case.basis == "wavelet":
        tensors["scale"] = 0.5 + normal(outputs, inputs).abs()
        tensors["shift"] = normal(outputs, inputs)
    return Problem(tensors, {"basis": case.basis, **case.options})
