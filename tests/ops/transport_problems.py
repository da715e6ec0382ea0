"""Problems that the tests of entropic transport share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# What a type may be off against float64 on the same inputs, relative to the largest entry.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 2e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}

# name: batch, n, m, options; weights are drawn unless `uniform`
CASES: dict[str, tuple[tuple[int, ...], int, int, dict[str, Any]]] = {
    "one": ((), 1, 1, {}),
    "one-row": ((2,), 1, 9, {}),
    "one-column": ((), 11, 1, {"rho": 0.5}),
    "odd": ((), 5, 7, {}),
    "prime": ((2, 3), 13, 31, {}),
    "whole-vectors": ((2,), 16, 48, {}),
    "uniform": ((3,), 24, 40, {"uniform": True}),
    "blocks": ((), 149, 523, {}),
    "entropy": ((2,), 17, 20, {"reg_type": "entropy"}),
    "both-relaxed": ((2,), 17, 20, {"rho": (0.3, 0.7)}),
    "both-relaxed-entropy": ((2,), 17, 20, {"rho": 0.4, "reg_type": "entropy"}),
    "rows-relaxed": ((), 20, 33, {"rho": (0.3, None)}),
    "columns-relaxed": ((), 20, 33, {"rho": (None, 0.2), "reg_type": "entropy"}),
    "scaling": ((2,), 20, 19, {"eps": 0.02, "eps_scaling": 0.5, "max_iter": 40}),
    "small-eps": ((2,), 20, 19, {"eps": 0.004, "max_iter": 30}),
    "tolerance": ((3,), 18, 18, {"tol": 1e-3, "max_iter": 500}),
    "masked": ((3,), 12, 14, {"mask": True}),
    "zero-weights": ((2,), 15, 18, {"zeros": True}),
    "forbidden": ((2,), 15, 18, {"forbidden": True}),
}


def make(case: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a case and its options."""
    batch, n, m, options = CASES[case]
    options = {"eps": 0.1, "max_iter": 60, **options}
    tensors = {"cost": torch.rand(*batch, n, m).to(dtype)}
    if not options.pop("uniform", False):
        zeros = options.pop("zeros", False)
        for name, count in (("a", n), ("b", m)):
            weight = torch.rand(*batch, count, dtype=torch.float64) + 0.1
            if zeros:
                weight[..., 1::4] = 0.0
            weight = weight / weight.sum(-1, keepdim=True)
            tensors[name] = weight.to(torch.float64 if dtype == torch.float64 else torch.float32)
    if options.pop("forbidden", False):
        tensors["cost"][..., 1:, 1:][torch.rand(*batch, n - 1, m - 1) < 0.3] = math.inf
    if options.pop("mask", False):
        rows, columns = torch.arange(n), torch.arange(m)
        sizes = [(12, 14), (7, 5), (1, 9)]
        options["mask"] = torch.stack([(rows < i)[:, None] & (columns < j) for i, j in sizes])
        for name in ("a", "b"):
            del tensors[name]
    return tensors, options


def close(got: Tensor, true: Tensor, tolerance: float, name: str) -> None:
    """Equal relative to the largest finite entry; infinities and NaN in the same places."""
    got, true = got.detach().double(), true.detach().double()
    assert got.shape == true.shape, f"{name} has shape {got.shape}, not {true.shape}"
    finite = true.isfinite()
    assert torch.equal(got.isfinite(), finite), f"{name} is finite elsewhere"
    assert torch.equal(got[~finite].nan_to_num(), true[~finite].nan_to_num()), name
    if finite.any():
        error = (got - true)[finite].abs().max().item()
        size = max(true[finite].abs().max().item(), 1e-3)
        assert error <= tolerance * size, f"{name} is off by {error:.2e} of {size:.2e}"


def centred(of_weight: Tensor, weight: Tensor) -> Tensor:
    """A gradient of weights up to a constant, over the weights that are not 0."""
    some = (weight != 0).to(of_weight.dtype)
    mean = (of_weight * some).sum(-1, keepdim=True) / some.sum(-1, keepdim=True)
    return (of_weight - mean) * some
