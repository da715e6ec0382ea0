"""The CUDA kernels' source of the inverse map, run on the CPU, against the reference."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from saccade.reference.logpolar import logpolar_inverse

from .test_logpolar_emulated import Poses, Tensors, _address, _struct, pointer

LOGARITHMIC, LINEAR, TABLE = range(3)
Inversion = _struct(
    "Inversion", poses=Poses,
    **dict.fromkeys(("channels", "rings", "rays", "height", "width"), ctypes.c_int), map=pointer,
    radii=pointer, law=ctypes.c_int, offset=ctypes.c_float, fill=ctypes.c_float,
    mean=ctypes.c_bool,
)  # fmt: skip
Gradients = _struct(
    "InversionGradients",
    **dict.fromkeys(("out", "count", "map", "partial", "fixation", "theta0", "scale"), pointer),
)


@dataclass(frozen=True)
class Case:
    name: str
    size: tuple[int, int] = (13, 11)
    batch: int = 2
    fixations: int = 2
    channels: int = 3
    rings: int = 5
    rays: int = 12
    law: int = LOGARITHMIC
    offset: float = 0.0
    normalized: bool = False
    mean: bool = True
    reach: float = 7.0


CASES = [
    Case("log"),
    Case("log-offset", offset=1.3, mean=False),
    Case("linear", law=LINEAR),
    Case("table", law=TABLE, mean=False, rings=6),
    Case("normalized", normalized=True, reach=0.9),
    Case("one-ring", rings=1, law=LINEAR),
    Case("one-ray", rays=1),
    Case("many-channels", channels=35, batch=1, fixations=1),
]


def make(case: Case) -> Tensors:
    generator = torch.Generator().manual_seed(len(case.name))
    shape = (case.batch, case.fixations, case.channels, case.rings, case.rays)
    places = torch.rand(case.batch, case.fixations, 2, generator=generator)
    angles = torch.rand(case.batch, case.fixations, generator=generator)
    extent = torch.tensor([case.size[1], case.size[0]]).float()
    ratio = torch.arange(case.rings) / max(case.rings - 1, 1)
    radii = case.reach * 0.2 ** (1 - ratio)
    if case.law == LINEAR:
        radii = case.reach * (0.2 + 0.8 * ratio)
    elif case.law == LOGARITHMIC:
        inner, outer = 0.2 * case.reach + case.offset, case.reach + case.offset
        radii = inner * (outer / inner) ** ratio - case.offset
    return {
        "map": torch.randn(shape, generator=generator),
        "fixation": places - 0.5 if case.normalized else places * extent,
        "theta0": angles * 6 - 3,
        "scale": 0.6 + angles.flip(1) * 0.7,
        "radii": radii,
    }


def reference(case: Case, tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    return logpolar_inverse(
        *tensors.values(), *case.size, case.normalized, case.law, case.offset, case.mean, 0.25
    )


def run(
    library: ctypes.CDLL, case: Case, tensors: Tensors, grad_out: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, Tensors]:
    poses = Poses(
        case.batch, case.fixations,
        *(_address(tensors[name]) for name in ("fixation", "theta0", "scale")), case.normalized,
    )  # fmt: skip
    inversion = Inversion(
        poses, case.channels, case.rings, case.rays, *case.size, _address(tensors["map"]),
        _address(tensors["radii"]), case.law, case.offset, 0.25, case.mean,
    )  # fmt: skip
    out = torch.full_like(grad_out, torch.nan)
    count = torch.full((case.batch, *case.size), torch.nan) if case.mean else None
    addresses = (pointer(_address(out)), pointer(_address(count)))
    assert library.run_inverse(ctypes.byref(inversion), *addresses) == 0
    grads = {name: torch.full_like(t, torch.nan) for name, t in tensors.items() if name != "radii"}
    grads["map"].zero_()
    partial = torch.full((case.batch * case.fixations, case.size[0], 4), torch.nan)
    gradients = Gradients(
        _address(grad_out), _address(count), _address(grads["map"]), _address(partial),
        *(_address(grads[name]) for name in ("fixation", "theta0", "scale")),
    )  # fmt: skip
    assert library.run_inverse_backward(ctypes.byref(inversion), ctypes.byref(gradients)) == 0
    return out, count, grads


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return emulate("logpolar")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_the_reference(library: ctypes.CDLL, case: Case) -> None:
    tensors = make(case)
    leaves = {name: t.double().requires_grad_(name != "radii") for name, t in tensors.items()}
    true, true_count = reference(case, leaves)
    grad_out = torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    out, count, grads = run(library, case, tensors, grad_out)
    if count is not None:
        assert torch.equal(count.double(), true_count)
    torch.testing.assert_close(out.double(), true, atol=1e-4, rtol=1e-4)
    wanted = [t for name, t in leaves.items() if name != "radii"]
    expected = torch.autograd.grad(true, wanted, grad_out.double())
    for (name, found), grad in zip(grads.items(), expected, strict=True):
        error = (found.double() - grad).abs().max()
        assert error <= 2e-4 * (1 + grad.abs().max()), name


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "none"])
def test_a_pose_that_is_not_finite(library: ctypes.CDLL, mean: bool) -> None:
    case = Case("nan", mean=mean)
    tensors = make(case)
    tensors["scale"][0, 1] = torch.nan
    true, _ = reference(case, tensors)
    out, _, grads = run(library, case, tensors, torch.ones_like(true))
    assert torch.equal(out.isnan(), true.isnan())
    assert not any(grad.isnan().any() for grad in grads.values())
    assert not grads["map"][0, 1].any()


def test_same_bits_whatever_the_order_of_threads_and_blocks(library: ctypes.CDLL) -> None:
    case = CASES[0]
    tensors = make(case)
    grad_out = torch.ones(case.batch, case.channels, *case.size)
    forth = run(library, case, tensors, grad_out)
    library.set_reversed(1)
    try:
        back = run(library, case, tensors, grad_out)
    finally:
        library.set_reversed(0)
    assert torch.equal(forth[0], back[0])
    assert all(torch.equal(forth[2][name], back[2][name]) for name in forth[2])
