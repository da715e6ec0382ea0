"""Every mistake gets a sentence with numbers before any kernel runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import _load, ops


def x(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def sample(**changes: Any) -> Callable[[], Any]:
    """logpolar_sample of 3 fixations of images of 16 x 20 pixels, with one thing wrong."""
    arguments: dict[str, Any] = {"image": x(2, 4, 16, 20), "fixation": x(2, 3, 2), "out_size": 8}
    arguments |= changes
    return lambda: ops.logpolar_sample(**arguments)


def inverse(**changes: Any) -> Callable[[], Any]:
    """logpolar_inverse of maps of 8 x 12 samples, with one thing wrong."""
    arguments: dict[str, Any] = {
        "logpolar": x(2, 3, 4, 8, 12), "fixation": x(2, 3, 2), "size": (16, 20)
    }  # fmt: skip
    arguments |= changes
    return lambda: ops.logpolar_inverse(**arguments)


def learnable(values: list[float]) -> Tensor:
    return torch.tensor(values, requires_grad=True)


# name: call, error, what its sentence says
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "image-list": (sample(image=[1.0]), TypeError, r"image must be a torch.Tensor, got list"),
    "image-int": (
        sample(image=x(2, 4, 16, 20).int()),
        TypeError,
        r"image must have a floating type or torch.uint8, got torch.int32",
    ),
    "image-bool": (sample(image=x(2, 4, 16, 20).bool()), TypeError, r"got torch.bool"),
    "image-complex": (sample(image=x(2, 4, 16, 20).cfloat()), TypeError, r"got torch.complex64"),
    "image-sparse": (
        sample(image=x(2, 4, 16, 20).to_sparse()),
        NotImplementedError,
        r"image must be a dense .* tensor",
    ),
    "image-rank": (
        sample(image=x(4, 16, 20)),
        ValueError,
        r"image must have rank 4 \[B, C, H, W\], got shape \(4, 16, 20\)",
    ),
    "image-empty": (
        sample(image=x(2, 4, 0, 20)),
        ValueError,
        r"image must have at least one pixel, got shape \(2, 4, 0, 20\)",
    ),
    "fixation-list": (sample(fixation=[[0, 0]]), TypeError, r"fixation must be a torch.Tensor"),
    "fixation-int": (
        sample(fixation=x(2, 3, 2).long()),
        TypeError,
        r"fixation must have one of .*, got torch.int64",
    ),
    "fixation-rank": (
        sample(fixation=x(2, 2)),
        ValueError,
        r"fixation must be \[B, N, 2\] with the B = 2 of image, got shape \(2, 2\)",
    ),
    "fixation-batch": (sample(fixation=x(3, 3, 2)), ValueError, r"B = 2 of image.*\(3, 3, 2\)"),
    "fixation-three": (sample(fixation=x(2, 3, 3)), ValueError, r"got shape \(2, 3, 3\)"),
    "fixation-device": (
        sample(fixation=torch.zeros(2, 3, 2, device="meta")),
        ValueError,
        r"fixation must be on the device of image, cpu, got meta",
    ),
    "out-size-zero": (
        sample(out_size=(8, 0)),
        ValueError,
        r"out_size must be at least 1 on every axis, got \(8, 0\)",
    ),
    "out-size-float": (sample(out_size=8.0), TypeError, r"out_size must be an int .*, got 8.0"),
    "out-size-three": (sample(out_size=(1, 2, 3)), ValueError, r"out_size .* 2 entries"),
    "r-min-zero": (sample(r_min=0.0), ValueError, r"r_min must be above 0 .*, got 0"),
    "r-min-negative": (
        sample(r_min=-1.0, radial="linear"),
        ValueError,
        r"r_min must be at least 0, got -1.0",
    ),
    "r-min-nan": (sample(r_min=math.nan), ValueError, r"r_min must be finite, got nan"),
    "r-max-small": (
        sample(r_min=3.0, r_max=3.0),
        ValueError,
        r"r_max must be above r_min, got r_min = 3.0 and r_max = 3.0",
    ),
    "r-max-of-image": (
        sample(r_min=8.0),
        ValueError,
        r"r_max must be above r_min, got r_min = 8.0 and r_max = 8.0",
    ),
    "r-max-infinite": (sample(r_max=math.inf), ValueError, r"r_max must be finite, got inf"),
    "r-max-text": (sample(r_max="8"), TypeError, r"r_max must be a number or None, got str"),
    "r-max-normalized": (
        sample(units="normalized"),
        ValueError,
        r"r_max must be given with units='normalized', got None",
    ),
    "units": (sample(units="inch"), ValueError, r"units must be one of .* got 'inch'"),
    "radial": (sample(radial="exp"), ValueError, r"radial must be one of log, log1p, .* got 'exp'"),
    "radial-cmf": (
        sample(radial=("cmf", 0.0)),
        ValueError,
        r"the a of radial=\('cmf', a\) must be above 0, got 0.0",
    ),
    "radial-cmf-alone": (sample(radial="cmf"), ValueError, r"radial must be one of .* got 'cmf'"),
    "radial-log1p-small": (
        sample(radial="log1p", r_max=1.0),
        ValueError,
        r"r_max must be above 1 with radial='log1p', got 1.0",
    ),
    "radial-log1p-normalized": (
        sample(radial="log1p", units="normalized", r_max=3.0),
        ValueError,
        r"radial='log1p' is a law of pixels",
    ),
    "radial-table-length": (
        sample(radial=x(7)),
        ValueError,
        r"radial must have shape \[R\] = \(8,\), got \(7,\)",
    ),
    "radial-table-order": (
        sample(radial=torch.tensor([1.0, 2.0, 2.0]), out_size=(3, 8)),
        ValueError,
        r"radial must hold finite radii .* increase, got \[1.0, 2.0, 2.0\]",
    ),
    "radial-table-negative": (
        sample(radial=torch.tensor([-1.0, 2.0]), out_size=(2, 8)),
        ValueError,
        r"got \[-1.0, 2.0\]",
    ),
    "radial-table-nan": (
        sample(radial=torch.tensor([1.0, math.nan]), out_size=(2, 8)),
        ValueError,
        r"got \[1.0, nan\]",
    ),
    "radial-learnable": (
        sample(radial=learnable([1.0, 2.0]), out_size=(2, 8)),
        NotImplementedError,
        r"radial has no gradient",
    ),
    "theta0-shape": (
        sample(theta0=x(2)),
        ValueError,
        r"theta0 must have shape \[B, N\] = \(2, 3\), got \(2,\)",
    ),
    "theta0-text": (sample(theta0="0"), TypeError, r"theta0 must be a number .*\(str\)"),
    "theta0-nan": (sample(theta0=math.nan), ValueError, r"theta0 must be finite, got nan"),
    "scale-shape": (sample(scale=x(2, 1)), ValueError, r"scale must have shape .*got \(2, 1\)"),
    "scale-bool": (sample(scale=True), TypeError, r"scale must be a number .*got True \(bool\)"),
    "scale-int-tensor": (sample(scale=x(2, 3).long()), TypeError, r"scale must .*int64"),
    "antialias": (
        sample(antialias="box"),
        ValueError,
        r"antialias must be one of none, area, mip, got 'box'",
    ),
    "antialias-bool": (sample(antialias=True), ValueError, r"antialias must .*, got True"),
    "padding": (
        sample(padding_mode="wrap"),
        ValueError,
        r"padding_mode must be one of zeros, border, reflection, got 'wrap'",
    ),
    "layout": (sample(layout="xy"), ValueError, r"layout must be one of rt, tr, got 'xy'"),
    "backend": (sample(backend="gpu"), ValueError, r"backend must be one of .*, got 'gpu'"),
    "backend-cuda": (sample(backend="cuda"), RuntimeError, r"logpolar cannot run .* 'cuda'|cuda"),
    "logpolar-int": (
        inverse(logpolar=x(2, 3, 4, 8, 12).to(torch.uint8)),
        TypeError,
        r"logpolar must have one of .*, got torch.uint8",
    ),
    "logpolar-rank": (
        inverse(logpolar=x(2, 4, 8, 12)),
        ValueError,
        r"logpolar must have rank 5 \[B, N, C, R, T\], got shape \(2, 4, 8, 12\)",
    ),
    "logpolar-rank-tr": (inverse(logpolar=x(8, 12), layout="tr"), ValueError, r"rank 5"),
    "logpolar-no-ray": (
        inverse(logpolar=x(2, 3, 4, 8, 0)),
        ValueError,
        r"logpolar must have at least one ring and one ray, got shape \(2, 3, 4, 8, 0\)",
    ),
    "inverse-fixations": (
        inverse(fixation=x(2, 2, 2)),
        ValueError,
        r"N = 3 of logpolar, got shape \(2, 2, 2\)",
    ),
    "inverse-size": (inverse(size=(0, 4)), ValueError, r"size must be at least 1 .*\(0, 4\)"),
    "inverse-blend": (inverse(blend="max"), ValueError, r"blend must .* got 'max'"),
    "inverse-fill": (inverse(fill=math.inf), ValueError, r"fill must be finite, got inf"),
    "inverse-table": (inverse(radial=x(3)), ValueError, r"radial must have shape \[R\] = \(8,\)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake: str) -> None:
    call, error, sentence = MISTAKES[mistake]
    with pytest.raises(error, match=sentence):
        call()


def op(name: str, **changes: Any) -> Callable[[], Any]:
    """An operator without its front, with one thing wrong."""
    pose = {"fixation": x(2, 3, 2), "theta0": x(2, 3), "scale": x(2, 3)}
    given: dict[str, Any] = {
        "sample_forward": {
            "image": x(2, 4, 6, 7), "pyramid": None, **pose, "radii": x(5), "edges": x(6),
            "rays": 8, "normalized": False, "padding": 0, "antialias": 0,
        },
        "inverse_forward": {
            "logpolar": x(2, 3, 4, 5, 8), **pose, "radii": x(5), "height": 6, "width": 7,
            "normalized": False, "law": 0, "offset": 0.0, "mean": True, "fill": 0.0,
        },
    }[name]  # fmt: skip
    return lambda: getattr(torch.ops.saccade, f"logpolar_{name}")(**(given | changes))


# name: call, what its sentence says
KERNEL_MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "image-rank": (op("sample_forward", image=x(2, 4, 6)), r"image must be \[B, C, H, W\]"),
    "image-type": (op("sample_forward", image=x(2, 4, 6, 7).int()), r"the input must be float16"),
    "image-empty": (op("sample_forward", image=x(2, 4, 6, 0)), r"at least one pixel"),
    "fixation": (op("sample_forward", fixation=x(2, 3, 3)), r"fixation must have shape"),
    "fixation-type": (op("sample_forward", fixation=x(2, 3, 2).double()), r"must be float32"),
    "theta0": (op("sample_forward", theta0=x(2, 1)), r"theta0 must have shape \[2, 3\]"),
    "radii": (op("sample_forward", radii=x(0), edges=x(1)), r"radii must be a list"),
    "edges": (op("sample_forward", edges=x(5)), r"edges must have shape \[6\], got \[5\]"),
    "rays": (op("sample_forward", rays=0), r"rays must be at least 1, got 0"),
    "padding": (op("sample_forward", padding=3), r"padding must be 0, 1 or 2, got 3"),
    "antialias": (op("sample_forward", antialias=-1), r"antialias must be 0, 1 or 2, got -1"),
    "pyramid-missing": (op("sample_forward", antialias=2), r"a pyramid goes together with"),
    "pyramid-size": (
        op("sample_forward", antialias=2, pyramid=x(2, 4, 9)),
        r"pyramid must have shape \[2, 4, 20\], got \[2, 4, 9\]",
    ),
    "logpolar-type": (op("inverse_forward", logpolar=x(2, 3, 4, 5, 8).byte()), r"must be float16"),
    "logpolar-rank": (op("inverse_forward", logpolar=x(2, 3, 4, 5)), r"logpolar must be \[B, N, C"),
    "inverse-fixation": (op("inverse_forward", fixation=x(2, 1, 2), theta0=x(2, 1), scale=x(2, 1)),
                         r"fixation must have the 3 fixations"),
    "inverse-radii": (op("inverse_forward", radii=x(4)), r"radii must have shape \[5\], got \[4\]"),
    "inverse-size": (op("inverse_forward", height=0), r"at least one pixel .* got 0 x 7"),
    "inverse-law": (op("inverse_forward", law=3), r"law must be 0, 1 or 2, got 3"),
}  # fmt: skip


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
@pytest.mark.parametrize("mistake", KERNEL_MISTAKES)
def test_second_line_of_checks(mistake: str) -> None:
    call, sentence = KERNEL_MISTAKES[mistake]
    with pytest.raises(RuntimeError, match=sentence):
        call()
