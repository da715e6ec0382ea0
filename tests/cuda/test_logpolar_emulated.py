"""The CUDA kernels' source of log-polar sampling, run on the CPU, against the reference."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from saccade.reference.logpolar import logpolar_sample, pyramid

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.uint8: 3}
NONE, AREA, MIP = range(3)
ZEROS, BORDER, REFLECTION = range(3)
int64, pointer = ctypes.c_int64, ctypes.c_void_p
Tensors = dict[str, torch.Tensor]


def _struct(struct_name: str, **fields: object) -> type[ctypes.Structure]:
    return type(struct_name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Poses = _struct(
    "Poses", batch=ctypes.c_int, fixations=ctypes.c_int, fixation=pointer, theta0=pointer,
    scale=pointer, normalized=ctypes.c_bool,
)  # fmt: skip
Sampling = _struct(
    "Sampling", poses=Poses,
    **dict.fromkeys(
        ("channels", "height", "width", "rings", "rays", "padding", "antialias"), ctypes.c_int),
    radii=pointer, edges=pointer, dtype=ctypes.c_int, image=pointer, pyramid=pointer,
    pyramid_size=int64,
)  # fmt: skip
Gradients = _struct(
    "SamplingGradients",
    **dict.fromkeys(("out", "image", "pyramid", "partial", "fixation", "theta0", "scale"), pointer),
)


@dataclass(frozen=True)
class Case:
    name: str
    size: tuple[int, int] = (23, 19)
    batch: int = 2
    fixations: int = 2
    channels: int = 3
    rings: int = 5
    rays: int = 12
    padding: int = ZEROS
    antialias: int = NONE
    normalized: bool = False
    reach: float = 9.0


CASES = [
    Case("plain"),
    Case("area", antialias=AREA),
    Case("mip", antialias=MIP, reach=14.0),
    Case("border", padding=BORDER, antialias=AREA, reach=14.0),
    Case("reflection", padding=REFLECTION, reach=40.0),
    Case("mip-border", padding=BORDER, antialias=MIP, size=(40, 37), reach=25.0, rays=5),
    Case("normalized", normalized=True, antialias=AREA, reach=0.8),
    Case("one-pixel", size=(1, 1), padding=BORDER, rings=2),
    Case("narrow", size=(17, 1), antialias=AREA, reach=6.0),
    Case("one-ring-one-ray", rings=1, rays=1),
    Case("many-channels", channels=11, antialias=AREA, batch=1),
    Case("many-rays", rays=150, rings=3, batch=1, fixations=3, channels=1),
]


def make(case: Case, dtype: torch.dtype = torch.float32) -> Tensors:
    generator = torch.Generator().manual_seed(len(case.name))
    image = torch.randn(case.batch, case.channels, *case.size, generator=generator)
    image = (image * 40 + 128).clamp(0, 255) if dtype == torch.uint8 else image
    places = torch.rand(case.batch, case.fixations, 2, generator=generator)
    height, width = case.size
    extent = torch.tensor([width, height]).float()
    angles = torch.rand(case.batch, case.fixations, generator=generator)
    radii = torch.logspace(math.log10(case.reach / 10), math.log10(case.reach), case.rings)
    ratio = 10 ** (0.5 / max(case.rings - 1, 1))
    edges = torch.cat([radii[:1] / ratio, radii * ratio])
    tensors = {
        "image": image.to(dtype),
        "fixation": places * 1.4 - 0.7 if case.normalized else places * extent * 1.1,
        "theta0": angles * 6 - 3,
        "scale": 0.6 + angles.flip(1) * 0.7,
        "radii": radii,
        "edges": edges,
    }
    if case.antialias == MIP:
        tensors["pyramid"] = pyramid(image)
    return tensors


def reference(case: Case, tensors: Tensors) -> torch.Tensor:
    return logpolar_sample(
        tensors["image"], tensors.get("pyramid"), tensors["fixation"], tensors["theta0"],
        tensors["scale"], tensors["radii"], tensors["edges"], case.rays, case.normalized,
        case.padding, case.antialias,
    )  # fmt: skip


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _sampling(case: Case, tensors: Tensors) -> ctypes.Structure:
    poses = Poses(
        case.batch, case.fixations,
        *(_address(tensors[name]) for name in ("fixation", "theta0", "scale")), case.normalized,
    )  # fmt: skip
    levels = tensors.get("pyramid")
    return Sampling(
        poses, case.channels, *case.size, case.rings, case.rays, case.padding, case.antialias,
        _address(tensors["radii"]), _address(tensors["edges"]), DTYPES[tensors["image"].dtype],
        _address(tensors["image"]), _address(levels), 0 if levels is None else levels.shape[2],
    )  # fmt: skip


def run(library: ctypes.CDLL, case: Case, tensors: Tensors) -> torch.Tensor:
    dtype = tensors["image"].dtype
    dtype = torch.float32 if dtype == torch.uint8 else dtype
    shape = (case.batch, case.fixations, case.channels, case.rings, case.rays)
    out = torch.full(shape, torch.nan, dtype=dtype)
    sampling = _sampling(case, tensors)
    assert library.run_sample(ctypes.byref(sampling), pointer(out.data_ptr())) == 0
    return out


def differentiate(
    library: ctypes.CDLL, case: Case, tensors: Tensors, grad_out: torch.Tensor
) -> Tensors:
    grads = {"image": torch.zeros_like(tensors["image"])}
    if "pyramid" in tensors:
        grads["pyramid"] = torch.zeros_like(tensors["pyramid"])
    for name in ("fixation", "theta0", "scale"):
        grads[name] = torch.full_like(tensors[name], torch.nan)
    partial = torch.full((case.batch * case.fixations, case.rings, 4), torch.nan)
    gradients = Gradients(
        _address(grad_out), _address(grads["image"]), _address(grads.get("pyramid")),
        _address(partial), *(_address(grads[name]) for name in ("fixation", "theta0", "scale")),
    )  # fmt: skip
    sampling = _sampling(case, tensors)
    assert library.run_sample_backward(ctypes.byref(sampling), ctypes.byref(gradients)) == 0
    return grads


@pytest.fixture(scope="module")
def library(emulate: Callable[[str], ctypes.CDLL]) -> ctypes.CDLL:
    return emulate("logpolar")


def ids(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_agrees_with_the_reference(library: ctypes.CDLL, case: Case) -> None:
    tensors = make(case)
    # float64 from the same numbers: the counts of taps are those of float32 here
    doubles = {name: tensor.double() for name, tensor in tensors.items()}
    leaves = {k: v.requires_grad_() for k, v in doubles.items() if k not in ("radii", "edges")}
    true = reference(case, doubles)
    torch.testing.assert_close(run(library, case, tensors).double(), true, atol=2e-4, rtol=1e-5)
    grad_out = torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad(true, list(leaves.values()), grad_out.double())
    found = differentiate(library, case, tensors, grad_out)
    for name, grad in zip(leaves, expected, strict=True):
        error = (found[name].double() - grad).abs().max()
        assert error <= 2e-4 * (1 + grad.abs().max()), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8], ids=str)
def test_other_types_are_computed_in_float32(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    case = Case("types", antialias=AREA)
    tensors = make(case, dtype)
    out = run(library, case, tensors)
    single = run(library, case, {**tensors, "image": tensors["image"].float()})
    assert torch.equal(out, single.to(out.dtype))


def test_same_bits_whatever_the_order_of_threads_and_blocks(library: ctypes.CDLL) -> None:
    case = Case("order", antialias=AREA, padding=REFLECTION)
    tensors = make(case)
    grad_out = torch.randn_like(run(library, case, tensors))
    forth = differentiate(library, case, tensors, grad_out)
    library.set_reversed(1)
    try:
        back = differentiate(library, case, tensors, grad_out)
    finally:
        library.set_reversed(0)
    assert all(torch.equal(forth[name], back[name]) for name in forth)


def test_a_pose_that_is_not_finite_is_nan_and_has_no_gradient(library: ctypes.CDLL) -> None:
    case = Case("nan")
    tensors = make(case)
    tensors["theta0"][1, 0] = torch.inf
    out = run(library, case, tensors)
    assert out.isnan().flatten(2).all(2).tolist() == [[False, False], [True, False]]
    assert not out[0].isnan().any()
    grads = differentiate(library, case, tensors, torch.ones_like(out))
    assert not any(grad.isnan().any() for grad in grads.values())
    assert not grads["fixation"][1, 0].any()


def test_a_pixel_that_no_tap_weighs_is_not_touched(library: ctypes.CDLL) -> None:
    case = Case("outside", batch=1, fixations=1, reach=2.0)
    tensors = make(case)
    tensors["fixation"][0, 0] = torch.tensor([1e30, -1e30])
    tensors["image"][:] = torch.nan
    assert not run(library, case, tensors).any()
