"""The Triton kernels in Triton's interpreter, against the reference loop.

Run as a process of its own: TRITON_INTERPRET=1 pytest tests/triton
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "needs TRITON_INTERPRET=1 before triton's import: TRITON_INTERPRET=1 pytest tests/triton",
        allow_module_level=True,
    )


import saccade

from ..cuda import test_logpolar_emulated as sampling
from ..cuda import test_logpolar_inverse_emulated as inversion
from ..cuda.test_logpolar_emulated import AREA, BORDER, MIP, REFLECTION

triton_rung = importlib.import_module("saccade.triton_kernels.logpolar")
ops = torch.ops.saccade_triton
Tensors = dict[str, Tensor]

# As for the emulated CUDA kernels: float32 positions, against float64 from the same numbers.
UNIT = 2e-4
SAMPLE = ("fixation", "theta0", "scale", "radii", "edges")
CASES = [
    sampling.Case("plain", size=(13, 11), rings=3, reach=7.0),
    sampling.Case("area", size=(9, 18), rings=2, rays=9, antialias=AREA, batch=1, reach=5.0),
    sampling.Case("mip", size=(17, 19), rings=3, antialias=MIP, reach=14.0, batch=1),
    sampling.Case("mip-border", size=(5, 9), rings=2, rays=5, padding=BORDER, antialias=MIP,
                  reach=25.0, batch=1),
    sampling.Case("border", size=(7, 9), rings=2, rays=16, padding=BORDER, antialias=AREA,
                  reach=6.0, batch=1),
    sampling.Case("reflection", size=(6, 9), rings=3, padding=REFLECTION, reach=40.0, batch=1),
    sampling.Case("normalized", size=(9, 7), rings=2, normalized=True, antialias=AREA, reach=0.8),
    sampling.Case("one-pixel", size=(1, 1), padding=BORDER, rings=2),
    sampling.Case("one-ring-one-ray", rings=1, rays=1),
    sampling.Case("many-channels", size=(8, 8), channels=7, rings=2, batch=1),
    sampling.Case("many-rays", size=(8, 8), rays=70, rings=1, batch=1, channels=1),
]  # fmt: skip
INVERSE_CASES = [
    *inversion.CASES[:-1],
    inversion.Case("many-channels", size=(9, 8), channels=6, batch=1, fixations=1),
]


def ids(case: Any) -> str:
    return str(case.name)


def forward_arguments(case: sampling.Case, tensors: Tensors) -> list[Any]:
    rest = (tensors[name] for name in SAMPLE)
    static = (case.rays, case.normalized, case.padding, case.antialias)
    return [tensors["image"], tensors.get("pyramid"), *rest, *static]


def backward_arguments(
    case: sampling.Case, tensors: Tensors, grad_out: Tensor, image: bool = True, pose: bool = True
) -> list[Any]:
    *given, _, normalized, padding, antialias = forward_arguments(case, tensors)
    return [grad_out, *given, normalized, padding, antialias, image, pose]


def inverse_arguments(case: inversion.Case, tensors: Tensors) -> list[Any]:
    static = (*case.size, case.normalized, case.law, case.offset, case.mean, 0.25)
    return [*tensors.values(), *static]


def inverse_backward_arguments(
    case: inversion.Case, tensors: Tensors, grad_out: Tensor, count: Tensor
) -> list[Any]:
    static = (case.normalized, case.law, case.offset, case.mean, True, True)
    return [grad_out, count, *tensors.values(), *static]


def gradient_like(true: Tensor) -> Tensor:
    return torch.randn(true.shape, generator=torch.Generator().manual_seed(1))


def close(found: Tensor, true: Tensor, unit: float, name: str) -> None:
    assert found.shape == true.shape, name
    error = (found.double() - true.double()).abs().max()
    assert error <= unit * (1 + true.abs().max()), f"{name}: {error}"


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_sampling_agrees_with_the_reference(case: sampling.Case) -> None:
    tensors = sampling.make(case)
    doubles = {name: tensor.double() for name, tensor in tensors.items()}
    leaves = {k: v.requires_grad_() for k, v in doubles.items() if k not in ("radii", "edges")}
    true = sampling.reference(case, doubles)
    found = triton_rung.sample_forward(*forward_arguments(case, tensors))
    close(found, true.detach(), UNIT, "out")
    grad_out = gradient_like(true)
    expected = torch.autograd.grad(
        true, list(leaves.values()), grad_out.double(), materialize_grads=True
    )
    grads = triton_rung.sample_backward(*backward_arguments(case, tensors, grad_out))
    named = dict(zip(("image", "pyramid", "fixation", "theta0", "scale"), grads, strict=True))
    for name, grad in zip(leaves, expected, strict=True):
        close(named[name], grad, UNIT, name)


@pytest.mark.parametrize("case", INVERSE_CASES, ids=ids)
def test_the_inverse_agrees_with_the_reference(case: inversion.Case) -> None:
    tensors = inversion.make(case)
    leaves = {name: t.double().requires_grad_(name != "radii") for name, t in tensors.items()}
    true, true_count = inversion.reference(case, leaves)
    out, count = triton_rung.inverse_forward(*inverse_arguments(case, tensors))
    assert torch.equal(count.double(), true_count)
    close(out, true.detach(), UNIT, "out")
    grad_out = gradient_like(true)
    wanted = {name: t for name, t in leaves.items() if name != "radii"}
    expected = torch.autograd.grad(
        true, list(wanted.values()), grad_out.double(), materialize_grads=True
    )
    grads = triton_rung.inverse_backward(
        *inverse_backward_arguments(case, tensors, grad_out, count)
    )
    for name, found, grad in zip(wanted, grads, expected, strict=True):
        close(found, grad, UNIT, name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8], ids=str)
def test_other_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    case = sampling.Case("types", size=(7, 9), rings=2, reach=4.0, batch=1)
    tensors = sampling.make(case, dtype)
    single = {**tensors, "image": tensors["image"].float()}
    out = triton_rung.sample_forward(*forward_arguments(case, tensors))
    true = triton_rung.sample_forward(*forward_arguments(case, single))
    assert out.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert torch.equal(out, true.to(out.dtype))
    wanted = dtype.is_floating_point
    grad_out = gradient_like(out).to(out.dtype)
    grads = triton_rung.sample_backward(*backward_arguments(case, tensors, grad_out, wanted))
    others = triton_rung.sample_backward(
        *backward_arguments(case, single, grad_out.float(), wanted)
    )
    assert grads[1].shape == (0,)
    assert wanted or grads[0].shape == (0,)
    for grad, other in zip(grads, others, strict=True):
        assert torch.equal(grad, other.to(grad.dtype))


def test_poses_that_are_not_finite_or_huge() -> None:
    case = sampling.Case("nan", size=(7, 9), rings=2, rays=5, reach=3.0)
    tensors = sampling.make(case)
    tensors["theta0"][1, 0] = torch.inf
    tensors["fixation"][0, 1] = torch.tensor([1e30, -1e30])
    out = triton_rung.sample_forward(*forward_arguments(case, tensors))
    assert out.isnan().flatten(2).all(2).tolist() == [[False, False], [True, False]]
    assert not out[0].isnan().any()
    assert not out[0, 1].any()
    arguments = backward_arguments(case, tensors, torch.ones_like(out))
    grads = triton_rung.sample_backward(*arguments)
    assert not any(grad.isnan().any() for grad in grads)
    assert not grads[2][1, 0].any()


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "none"])
def test_the_inverse_of_a_pose_that_is_not_finite(mean: bool) -> None:
    case = inversion.Case("nan", mean=mean, rings=2, rays=5)
    tensors = inversion.make(case)
    tensors["scale"][0, 1] = torch.nan
    tensors["scale"][1, 1] = 0.0
    true, true_count = inversion.reference(case, tensors)
    out, count = triton_rung.inverse_forward(*inverse_arguments(case, tensors))
    assert torch.equal(out.isnan(), true.isnan())
    assert torch.equal(count, true_count)
    arguments = inverse_backward_arguments(case, tensors, torch.ones_like(out), count)
    grads = triton_rung.inverse_backward(*arguments)
    assert not any(grad.isnan().any() for grad in grads)
    assert not grads[0][0, 1].any()
    assert not grads[0][1, 1].any()


def test_a_nan_stays_with_the_pixels_that_it_is_read_from() -> None:
    case = sampling.Case("one", size=(7, 9), rings=1, rays=1, batch=1, fixations=1, channels=1)
    tensors = sampling.make(case)
    tensors["fixation"][:], tensors["radii"][:], tensors["theta0"][:] = 2.5, 1.0, 0.0
    grad_out = torch.full((1, 1, 1, 1, 1), torch.nan)
    tensors["scale"][:] = 1.0
    grad, *_ = triton_rung.sample_backward(*backward_arguments(case, tensors, grad_out))
    assert grad.isnan().nonzero()[:, 2:].tolist() == [[2, 3], [2, 4], [3, 3], [3, 4]]


def test_the_functions_take_the_rung() -> None:
    image = torch.rand(1, 2, 8, 9).transpose(2, 3).requires_grad_()
    # no sample at an integer, where a bilinear image has no derivative
    fixation = torch.tensor([[[3.1, 4.2]]], requires_grad=True)
    found, true = (
        saccade.ops.logpolar_sample(
            image, fixation, out_size=(2, 5), r_max=3.0, layout="tr", backend=backend
        )
        for backend in ("triton", "reference")
    )
    close(found.detach(), true.detach(), UNIT, "out")
    grads = torch.autograd.grad(found.sum(), (image, fixation))
    for grad, other in zip(grads, torch.autograd.grad(true.sum(), (image, fixation)), strict=True):
        close(grad, other, UNIT, "gradient")
    view = torch.rand(2, 1, 2, 5).half()
    back, same = (
        torch.func.vmap(
            lambda x, backend=backend: saccade.ops.logpolar_inverse(
                x[None], torch.full((1, 2, 2), 2.0), (5, 4), backend=backend
            )
        )(view[:, None].expand(2, 2, 1, 2, 5))
        for backend in ("triton", "reference")
    )
    close(back, same, 2e-3, "inverse")


def test_ops_pass_opcheck() -> None:
    case = sampling.Case("check", size=(5, 4), rings=1, rays=3, batch=1, antialias=MIP)
    tensors = sampling.make(case)
    grad_out = torch.ones(1, 2, 3, 1, 3)
    other = inversion.Case("check", size=(3, 4), rings=2, rays=3)
    maps = inversion.make(other)
    out, count = triton_rung.inverse_forward(*inverse_arguments(other, maps))
    for op, arguments in (
        (ops.logpolar_sample_forward, forward_arguments(case, tensors)),
        (ops.logpolar_sample_backward, backward_arguments(case, tensors, grad_out)),
        (ops.logpolar_sample_backward, backward_arguments(case, tensors, grad_out, pose=False)),
        (ops.logpolar_inverse_forward, inverse_arguments(other, maps)),
        (ops.logpolar_inverse_backward, inverse_backward_arguments(other, maps, out, count)),
    ):
        utilities = ("test_schema", "test_faketensor")
        torch.library.opcheck(op.default, arguments, test_utils=utilities)


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0)], ids=str)
def test_nothing_to_do(shape: tuple[int, int, int]) -> None:
    batch, fixations, channels = shape
    sizes = {"batch": batch, "fixations": fixations, "channels": channels}
    case = sampling.Case("empty", size=(4, 5), rings=2, **sizes)
    tensors = sampling.make(case)
    out = triton_rung.sample_forward(*forward_arguments(case, tensors))
    grads = triton_rung.sample_backward(*backward_arguments(case, tensors, out))
    assert out.shape == (*shape, 2, 12)
    assert not any(grad.any() for grad in grads)
    other = inversion.Case("empty", size=(4, 5), rings=2, **sizes)
    maps = inversion.make(other)
    image, count = triton_rung.inverse_forward(*inverse_arguments(other, maps))
    true, true_count = inversion.reference(other, maps)
    assert torch.equal(image, true)
    assert torch.equal(count, true_count)
    arguments = inverse_backward_arguments(other, maps, image, count)
    assert not any(grad.any() for grad in triton_rung.inverse_backward(*arguments))


WRONG: dict[str, tuple[type[Exception], str, str, Any]] = {
    "float64": (NotImplementedError, "float64", "image", torch.zeros(1, 3, 5, 4).double()),
    "bfloat16": (NotImplementedError, "interpreter", "image", torch.zeros(1, 3, 5, 4).bfloat16()),
    "rank": (ValueError, r"\[B, C, H, W\]", "image", torch.zeros(3, 4)),
    "theta0": (ValueError, r"theta0 must have shape \(1, 2\)", "theta0", torch.zeros(3)),
    "scale": (TypeError, "scale must be torch.float32", "scale", torch.zeros(1, 2).double()),
    "edges": (ValueError, r"edges must have shape \(3,\)", "edges", torch.zeros(2)),
    "pyramid": (ValueError, "antialias 2 alone", "pyramid", torch.zeros(1, 3, 9)),
}


@pytest.mark.parametrize("name", WRONG)
def test_refuses_what_does_not_fit(name: str) -> None:
    error, sentence, argument, tensor = WRONG[name]
    case = sampling.Case("wrong", size=(5, 4), rings=2, batch=1)
    tensors = {**sampling.make(case), argument: tensor}
    with pytest.raises(error, match=sentence):
        triton_rung.sample_forward(*forward_arguments(case, tensors))
