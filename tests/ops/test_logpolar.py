"""Every rung against the reference in float64: results and every gradient, and gradcheck."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
import torch
from torch import Tensor

import saccade
from saccade import ops

pytestmark = pytest.mark.rungs("cpu", "cuda", "triton")

# One place for what a type may be off, relative to the largest entry, against float64 on the same
# inputs. Float32 rounds positions, by up to 1e-5 pixels here.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.float16: 5e-3,
    torch.bfloat16: 3e-2,
}

# name: B, N, C, H, W, R, T
SIZES = {
    "odd": (2, 3, 5, 19, 23, 9, 13),
    "one-pixel": (1, 1, 1, 1, 1, 3, 4),
    "one-row": (2, 2, 3, 1, 7, 4, 5),
    "one-column": (1, 2, 2, 6, 1, 4, 9),
    "one-ring": (2, 1, 3, 12, 9, 1, 17),
    "one-ray": (2, 2, 1, 11, 9, 7, 1),
    "one-sample": (1, 2, 4, 8, 8, 1, 1),
    "many-fixations": (1, 19, 1, 13, 17, 5, 8),
    "many-channels": (1, 1, 19, 12, 10, 4, 16),
    "usual": (2, 1, 3, 40, 48, 16, 32),
    "no-batch": (0, 2, 3, 8, 8, 4, 8),
    "no-fixation": (2, 0, 3, 8, 8, 4, 8),
    "no-channel": (2, 2, 0, 8, 8, 4, 8),
}
PADDING = ("zeros", "border", "reflection")
ANTIALIAS = ("none", "area", "mip")
UNITS = ("pixel", "normalized")


def make_pose(size: str, units: str, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Fixations inside and outside of the image, and any rotation and zoom, mirrored ones too."""
    batch, fixations, _, height, width, _, _ = SIZES[size]
    fixation = torch.rand(batch, fixations, 2, dtype=torch.float64) * 2.4 - 1.2
    if units == "pixel":
        fixation = ((fixation + 1) * torch.tensor([width, height]) - 1) / 2
    theta0 = torch.randn(batch, fixations, dtype=torch.float64)
    # the reference takes one scale at a time
    scale = torch.tensor([1.3, -0.45])[torch.randint(0, 2, (batch, fixations))].double()
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    return [t.to(device, dtype).requires_grad_() for t in (fixation, theta0, scale)]


def rings(size: str, units: str) -> dict[str, Any]:
    """From a fraction of a pixel to beyond the border."""
    _, _, _, height, width, _, _ = SIZES[size]
    r_max = 1.3 if units == "normalized" else 1 + 0.8 * max(height, width)
    return {"r_min": 0.05 * r_max, "r_max": r_max, "units": units}


def compare(pairs: dict[str, tuple[Tensor, Tensor]], limit: float) -> None:
    """Relative to the largest entry, and at least 1: sums over many samples grow."""
    for name, (got, true) in pairs.items():
        size = max(1.0, true.abs().max().item() if true.numel() else 0.0)
        torch.testing.assert_close(
            got.double(),
            true,
            rtol=limit,
            atol=limit * size,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def gradients(
    out: Tensor, exact: Tensor, inputs: list[Tensor], truths: list[Tensor], names: tuple[str, ...]
) -> dict[str, tuple[Tensor, Tensor]]:
    """The result and every gradient, beside their truths."""
    weight = torch.randn_like(out)
    got = torch.autograd.grad(out, inputs, weight)
    true = torch.autograd.grad(exact, truths, weight.double())
    pairs = {"out": (out, exact)}
    for name, tensor, a, b in zip(names, inputs, got, true, strict=True):
        assert (a.shape, a.dtype) == (tensor.shape, tensor.dtype), name
        pairs[f"gradient of {name}"] = (a, b)
    return pairs


def check_sample(
    size: str, dtype: torch.dtype, backend: str, device: torch.device, **kwargs: Any
) -> None:
    """Sampling and its gradients on a rung against the reference in float64."""
    batch, _, channels, height, width, R, T = SIZES[size]
    units = kwargs.pop("units")
    image = torch.randn(batch, channels, height, width, dtype=torch.float64).to(device, dtype)
    inputs = [image.requires_grad_(), *make_pose(size, units, dtype, device)]
    truths = [t.detach().double().requires_grad_() for t in inputs]

    def sample(given: list[Tensor], rung: str) -> Tensor:
        return ops.logpolar_sample(
            given[0],
            given[1],
            out_size=(R, T),
            theta0=given[2],
            scale=given[3],
            backend=rung,
            **rings(size, units),
            **kwargs,
        )

    out, exact = sample(inputs, backend), sample(truths, "reference")
    assert out.dtype == dtype
    assert out.is_contiguous()
    names = ("image", "fixation", "theta0", "scale")
    compare(gradients(out, exact, inputs, truths, names), TOLERANCE[dtype])


def check_inverse(
    size: str, dtype: torch.dtype, backend: str, device: torch.device, **kwargs: Any
) -> None:
    """The inverse and its gradients on a rung against the reference in float64."""
    batch, fixations, channels, height, width, R, T = SIZES[size]
    units = kwargs.pop("units")
    view = torch.randn(batch, fixations, channels, R, T, dtype=torch.float64).to(device, dtype)
    inputs = [view.requires_grad_(), *make_pose(size, units, dtype, device)]
    truths = [t.detach().double().requires_grad_() for t in inputs]

    def inverse(given: list[Tensor], rung: str) -> Tensor:
        return ops.logpolar_inverse(
            given[0],
            given[1],
            (height, width),
            theta0=given[2],
            scale=given[3],
            fill=0.3,
            backend=rung,
            **rings(size, units),
            **kwargs,
        )

    out, exact = inverse(inputs, backend), inverse(truths, "reference")
    assert out.dtype == dtype
    assert out.is_contiguous()
    names = ("logpolar", "fixation", "theta0", "scale")
    compare(gradients(out, exact, inputs, truths, names), TOLERANCE[dtype])


def _float64_runs(backend: str) -> bool:
    return backend == "cpu"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_sample_of_every_size(
    size: str, antialias: str, backend: str, device: torch.device
) -> None:
    dtype = torch.float64 if _float64_runs(backend) else torch.float32
    for padding, units in itertools.product(PADDING, UNITS):
        check_sample(
            size, dtype, backend, device, antialias=antialias, padding_mode=padding, units=units
        )


# Where the image alone is wanted and has taps enough, three channels and more lie side by side.
SIDE_BY_SIDE = {
    "odd": (2, 3, 3, 7, 9, 9, 13),
    "five-channels": (1, 5, 5, 13, 17, 7, 21),
    "one-row": (2, 2, 4, 1, 21, 4, 5),
    "one-column": (1, 2, 3, 22, 1, 4, 9),
    "one-pixel": (1, 1, 3, 1, 1, 3, 4),
    "many-fixations": (17, 2, 4, 12, 11, 6, 16),
    "usual": (2, 4, 3, 24, 20, 16, 32),
}


@pytest.mark.parametrize("size", SIDE_BY_SIDE)
@pytest.mark.parametrize("antialias", ["none", "area"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_channels_side_by_side(
    size: str, antialias: str, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    if dtype == torch.float64 and not _float64_runs(backend):
        pytest.skip("the GPU kernels compute in float32")
    batch, fixations, channels, height, width, R, T = SIDE_BY_SIDE[size]
    at = torch.rand(batch, fixations, 2, dtype=torch.float64) * 1.4 - 0.2
    at = (at * torch.tensor([width, height])).to(device, dtype)
    theta0 = torch.randn(batch, fixations, dtype=torch.float64).to(device, dtype)
    for padding in PADDING:
        image = torch.randn(batch, channels, height, width, dtype=torch.float64)
        image = image.to(device, dtype).requires_grad_()
        truth = image.detach().double().requires_grad_()
        out, exact = (
            ops.logpolar_sample(
                given,
                at.to(given.dtype),
                out_size=(R, T),
                theta0=theta0.to(given.dtype),
                r_min=0.05,
                r_max=0.6 * max(height, width) + 1,
                antialias=antialias,
                padding_mode=padding,
                backend=rung,
            )
            for given, rung in ((image, backend), (truth, "reference"))
        )
        compare(gradients(out, exact, [image], [truth], ("image",)), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_sample_of_every_type(
    antialias: str, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    if dtype == torch.float64 and not _float64_runs(backend):
        pytest.skip("the GPU kernels compute in float32")
    check_sample("usual", dtype, backend, device, antialias=antialias, units="pixel")


RADIAL = {
    "log": "log",
    "log1p": "log1p",
    "cmf": ("cmf", 0.7),
    "linear": "linear",
    "table": lambda rings: torch.linspace(0.1, 3.0, rings, dtype=torch.float64) ** 2,
}


def radial_of(law: str, size: str) -> Any:
    law_or_table = RADIAL[law]
    return law_or_table(SIZES[size][5]) if callable(law_or_table) else law_or_table


@pytest.mark.parametrize("law", RADIAL)
def test_sample_of_every_law(law: str, backend: str, device: torch.device) -> None:
    dtype = torch.float64 if _float64_runs(backend) else torch.float32
    check_sample("odd", dtype, backend, device, radial=radial_of(law, "odd"), units="pixel")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("law", RADIAL)
def test_inverse_of_every_size_and_law(
    law: str, size: str, backend: str, device: torch.device
) -> None:
    dtype = torch.float64 if _float64_runs(backend) else torch.float32
    for blend, units in itertools.product(("mean", "none"), UNITS):
        if units == "normalized" and law == "log1p":
            continue
        radial = radial_of(law, size)
        check_inverse(size, dtype, backend, device, radial=radial, blend=blend, units=units)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_inverse_of_every_type(dtype: torch.dtype, backend: str, device: torch.device) -> None:
    check_inverse("usual", dtype, backend, device, blend="mean", units="pixel")


@pytest.mark.parametrize("antialias", ANTIALIAS)
def test_bytes_are_numbers_up_to_255(antialias: str, backend: str, device: torch.device) -> None:
    image = torch.randint(0, 256, (2, 3, 20, 24), dtype=torch.uint8, device=device)
    fixation = torch.rand(2, 2, 2, device=device) * 20
    out = ops.logpolar_sample(image, fixation, out_size=8, antialias=antialias, backend=backend)
    expected = ops.logpolar_sample(
        image.float(), fixation, out_size=8, antialias=antialias, backend="reference"
    )
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-2)


STRIDES = {
    "channels-last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "cropped": lambda t: torch.nn.functional.pad(t, (2, 3, 1, 4))[:, :, 1:-4, 2:-3],
    "every-other-channel": lambda t: t.repeat_interleave(2, 1)[:, ::2],
    "one-channel": lambda t: t[:, :1].expand(-1, 4, -1, -1),
}


@pytest.mark.parametrize("layout", ["rt", "tr"])
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides(strides: str, layout: str, backend: str, device: torch.device) -> None:
    image = STRIDES[strides](torch.randn(2, 3, 11, 14, device=device))
    fixation = (torch.rand(2, 2, 3, device=device) * 10)[..., :2]
    results = []
    for given in (image, image.contiguous()):
        given = given.detach().requires_grad_()
        out = ops.logpolar_sample(
            given, fixation, out_size=(5, 9), layout=layout, r_max=6.0, backend=backend
        )
        back = ops.logpolar_inverse(
            out, fixation, (11, 14), layout=layout, r_max=6.0, backend=backend
        )
        # the gradient of a sum is expanded from one number
        results.append((out, back, *torch.autograd.grad(back.sum() + out.sum(), given)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    shape = (2, 2, image.shape[1], *((5, 9) if layout == "rt" else (9, 5)))
    assert results[0][0].shape == shape


@pytest.mark.parametrize("antialias", ANTIALIAS)
@pytest.mark.parametrize("padding", PADDING)
def test_gradcheck_of_sample(antialias: str, padding: str, backend: str) -> None:
    if not _float64_runs(backend):
        pytest.skip("the GPU kernels compute in float32")
    image = torch.randn(2, 2, 7, 8, dtype=torch.float64, requires_grad=True)
    pose = make_pose("odd", "pixel", torch.float64, torch.device("cpu"))
    pose = [t[:, :2].detach().requires_grad_() for t in pose]

    def sample(image: Tensor, fixation: Tensor, theta0: Tensor, scale: Tensor) -> Tensor:
        return ops.logpolar_sample(
            image,
            fixation * 0.3,
            out_size=(4, 5),
            r_min=0.7,
            r_max=5.0,
            theta0=theta0,
            scale=scale,
            antialias=antialias,
            padding_mode=padding,
            backend=backend,
        )

    # the levels of a pyramid follow the scale, which its gradient leaves out
    pose[2].requires_grad_(antialias != "mip")
    # steps small enough to stay within the pixels, and within the number of taps
    assert torch.autograd.gradcheck(sample, (image, *pose), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("blend", ["mean", "none"])
@pytest.mark.parametrize("law", RADIAL)
def test_gradcheck_of_inverse(law: str, blend: str, backend: str) -> None:
    if not _float64_runs(backend):
        pytest.skip("the GPU kernels compute in float32")
    view = torch.randn(2, 2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    pose = make_pose("odd", "pixel", torch.float64, torch.device("cpu"))
    pose = [t[:, :2].detach().requires_grad_() for t in pose]
    radial = RADIAL[law](4) if callable(RADIAL[law]) else RADIAL[law]

    def inverse(view: Tensor, fixation: Tensor, theta0: Tensor, scale: Tensor) -> Tensor:
        return ops.logpolar_inverse(
            view,
            fixation * 0.3,
            (7, 8),
            r_min=0.9,
            r_max=5.0,
            theta0=theta0,
            scale=scale,
            radial=radial,
            blend=blend,
            backend=backend,
        )

    assert torch.autograd.gradcheck(inverse, (view, *pose), eps=1e-7, atol=1e-5)


def test_only_wanted_gradients_are_computed(backend: str, device: torch.device) -> None:
    image, fixation = torch.randn(1, 2, 9, 9, device=device), torch.full((1, 1, 2), 4.3)
    fixation = fixation.to(device)
    names = ("image", "fixation")
    full = [t.clone().requires_grad_() for t in (image, fixation)]
    ops.logpolar_sample(*full, out_size=6, backend=backend).square().sum().backward()
    for i, name in enumerate(names):
        alone = [t.clone() for t in (image, fixation)]
        alone[i].requires_grad_()
        ops.logpolar_sample(*alone, out_size=6, backend=backend).square().sum().backward()
        torch.testing.assert_close(alone[i].grad, full[i].grad, msg=name)
        assert alone[1 - i].grad is None


def test_double_backward_is_refused(backend: str, device: torch.device) -> None:
    image = torch.randn(1, 1, 5, 5, device=device, requires_grad=True)
    out = ops.logpolar_sample(image, torch.full((1, 1, 2), 2.0).to(device), out_size=4,
                              backend=backend)  # fmt: skip
    (grad,) = torch.autograd.grad(out.square().sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_instruction_set_is_the_one_asked_for() -> None:
    wanted = os.environ.get("SACCADE_ISA")
    if wanted is not None:
        assert saccade.info()["isa"]["chosen"] == wanted
