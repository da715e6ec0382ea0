"""What is known of log-polar maps without any kernel: closed forms, invariants, other libraries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saccade import ops

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda", "triton")


def positions(
    fixation: Tensor, radii: Tensor, rays: int, theta0: float = 0.0, scale: float = 1.0
) -> Tensor:
    """Pixels (x, y) of every sample, written out: [B, N, R, T, 2]."""
    theta = theta0 + 2 * math.pi * torch.arange(rays, dtype=torch.float64) / rays
    ray = torch.stack([theta.cos(), theta.sin()], -1)
    return fixation[:, :, None, None] + scale * radii[:, None, None] * ray


def log_radii(rings: int, r_min: float, r_max: float) -> Tensor:
    return torch.tensor(
        [r_min * (r_max / r_min) ** (k / (rings - 1)) for k in range(rings)]
    ).double()


def grid_sample(image: Tensor, at: Tensor, padding: str) -> Tensor:
    """torch's sampler at pixels [B, N, R, T, 2], in float64: [B, N, C, R, T]."""
    height, width = image.shape[-2:]
    grid = (2 * at + 1) / torch.tensor([width, height], dtype=torch.float64) - 1
    out = F.grid_sample(
        image.double(), grid.flatten(1, 2), padding_mode=padding, align_corners=False
    )
    return out.unflatten(2, at.shape[1:3]).movedim(1, 2)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("units", ["pixel", "normalized"])
def test_equals_grid_sample(padding: str, units: str, backend: str, device: torch.device) -> None:
    image = torch.randn(2, 3, 21, 34)
    given = torch.rand(2, 4, 2).double() * 2.4 - 1.2
    radii = log_radii(9, 0.05, 1.4)
    at = positions(torch.zeros(2, 4, 2).double(), radii, 12, theta0=0.4, scale=0.9)
    size = torch.tensor([34, 21], dtype=torch.float64)
    at = at * size / 2 + (((given + 1) * size - 1) / 2)[:, :, None, None]
    kwargs: dict[str, Any] = {"r_min": 0.05, "r_max": 1.4, "units": "normalized"}
    if units == "pixel":
        # a square image has the same circles in both units
        image = image[..., :21]
        fixation = given * 14 + 10
        at = positions(fixation, radii * 10, 12, theta0=0.4, scale=0.9)
        kwargs = {"r_min": 0.5, "r_max": 14.0, "units": "pixel"}
    else:
        fixation = given
    image = image.requires_grad_()
    expected = grid_sample(image, at, padding)
    weight = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, image, weight)
    given_image = image.detach().to(device).requires_grad_()
    out = ops.logpolar_sample(
        given_image, fixation.float().to(device), out_size=(9, 12), theta0=0.4, scale=0.9,
        antialias="none", padding_mode=padding, backend=backend, **kwargs,
    )  # fmt: skip
    (grad,) = torch.autograd.grad(out, given_image, weight.float().to(device))
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad.cpu(), expected_grad, rtol=1e-3, atol=1e-3)


def smooth(height: int, width: int, device: torch.device) -> Tensor:
    """An image without detail below 16 pixels."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(0.09 * x + 0.3), torch.cos(0.11 * y) * torch.sin(0.05 * x), 0.01 * x]
    return torch.stack(waves)[None].to(device, torch.float32)


@pytest.mark.parametrize("antialias", ["none", "area", "mip"])
def test_a_rotation_is_a_shift_along_the_rays(
    antialias: str, backend: str, device: torch.device
) -> None:
    image = smooth(80, 90, device)
    fixation = torch.tensor([[[44.3, 40.2]]], device=device)

    def sample(theta0: float) -> Tensor:
        return ops.logpolar_sample(
            image, fixation, out_size=(12, 24), r_max=30.0, theta0=theta0, antialias=antialias,
            backend=backend,
        )  # fmt: skip

    for rays in (1, 5, 12):
        turned = sample(2 * math.pi * rays / 24)
        torch.testing.assert_close(turned, sample(0).roll(-rays, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("antialias", ["none", "area", "mip"])
def test_a_zoom_is_a_shift_along_the_rings(
    antialias: str, backend: str, device: torch.device
) -> None:
    image = smooth(80, 90, device)
    fixation = torch.tensor([[[44.3, 40.2]]], device=device)
    step = 16 ** (1 / 11)

    def sample(scale: float) -> Tensor:
        return ops.logpolar_sample(
            image, fixation, out_size=(12, 24), r_min=1.0, r_max=16.0, scale=scale,
            antialias=antialias, backend=backend,
        )  # fmt: skip

    for rings in (1, 3):
        zoomed, plain = sample(step**rings), sample(1.0)
        torch.testing.assert_close(
            zoomed[..., :-rings, :], plain[..., rings:, :], rtol=1e-3, atol=1e-3
        )


def test_a_rotated_image_is_a_shifted_map(backend: str, device: torch.device) -> None:
    image = torch.randn(1, 2, 33, 33, device=device)
    fixation = torch.full((1, 1, 2), 16.0, device=device)
    kwargs: dict[str, Any] = {"out_size": (8, 16), "r_max": 14.0, "backend": backend}
    plain = ops.logpolar_sample(image, fixation, **kwargs)
    # a quarter turn of the image that takes +x to +y: clockwise on the screen, as angles run
    turned = ops.logpolar_sample(image.rot90(-1, (2, 3)), fixation, **kwargs)
    torch.testing.assert_close(turned, plain.roll(4, -1), rtol=1e-4, atol=1e-4)


def test_planes_and_constants_are_exact(backend: str, device: torch.device) -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(70.0), indexing="ij")
    plane = (3 + 0.5 * x - 0.25 * y).to(device)[None, None]
    fixation = torch.tensor([[[33.3, 30.7]]], device=device)
    out = ops.logpolar_sample(
        plane, fixation, out_size=(10, 12), r_max=25.0, antialias="none", backend=backend
    )
    at = positions(fixation.cpu().double(), log_radii(10, 1.0, 25.0), 12)
    torch.testing.assert_close(
        out[:, :, 0].cpu().double(), 3 + 0.5 * at[..., 0] - 0.25 * at[..., 1], rtol=1e-5, atol=1e-5
    )
    for antialias in ("area", "mip"):
        out = ops.logpolar_sample(
            torch.full_like(plane, 2.5), fixation, out_size=(10, 12), r_max=20.0,
            antialias=antialias, backend=backend,
        )  # fmt: skip
        torch.testing.assert_close(out, torch.full_like(out, 2.5), rtol=1e-5, atol=1e-5)


def cell_means(
    image: Tensor, at: tuple[float, float], rings: int, rays: int, r_max: float
) -> Tensor:
    """Means over the cells by 32 x 32 points of equal area in each, in float64: [R, T]."""
    q = r_max ** (1 / (rings - 1))
    rows = []
    for k in range(rings):
        low, high = q ** (k - 0.5), q ** (k + 0.5)
        part = (torch.arange(32).double() + 0.5) / 32
        radii = (low**2 + (high**2 - low**2) * part).sqrt()
        angle = (torch.arange(rays).double()[:, None] + part - 0.5) * 2 * math.pi / rays
        x = at[0] + radii * angle[..., None].cos()
        y = at[1] + radii * angle[..., None].sin()
        points = torch.stack([x, y], -1).reshape(1, 1, 1, -1, 2)
        rows.append(grid_sample(image, points, "zeros").view(rays, -1).mean(-1))
    return torch.stack(rows)


def rms(error: Tensor) -> float:
    return error.square().mean().sqrt().item()


def test_area_is_the_mean_of_the_cell(backend: str, device: torch.device) -> None:
    image = torch.randn(1, 1, 112, 120, dtype=torch.float64)
    at, rings, rays, r_max = (60.3, 55.6), 24, 24, 50.0
    truth = cell_means(image, at, rings, rays, r_max)
    fixation = torch.tensor([[at]], device=device)

    def error(antialias: str) -> float:
        out = ops.logpolar_sample(
            image.float().to(device), fixation, out_size=(rings, rays), r_max=r_max,
            antialias=antialias, backend=backend,
        )  # fmt: skip
        return rms(out[0, 0, 0].cpu().double() - truth)

    none, area, mip = error("none"), error("area"), error("mip")
    # uniform 4 x 4 supersampling of the same cells
    q = r_max ** (1 / (rings - 1))
    total = torch.zeros(rings, rays, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            radii = log_radii(rings, 1.0, r_max) * q ** ((i + 0.5) / 4 - 0.5)
            theta0 = 2 * math.pi / rays * ((j + 0.5) / 4 - 0.5)
            points = positions(torch.tensor([[at]]).double(), radii, rays, theta0)
            total += grid_sample(image, points, "zeros")[0, 0, 0] / 16
    assert area < none / 10
    assert area < rms(total - truth)
    assert mip < none / 2


def test_the_backward_is_the_adjoint(backend: str, device: torch.device) -> None:
    for antialias in ("none", "area", "mip"):
        image = torch.randn(2, 3, 20, 24, device=device, requires_grad=True)
        fixation = torch.rand(2, 3, 2, device=device) * 20
        out = ops.logpolar_sample(
            image, fixation, out_size=(7, 11), antialias=antialias, backend=backend
        )
        other = torch.randn_like(out)
        (back,) = torch.autograd.grad(out, image, other)
        left, right = (out * other).double().sum(), (image * back).double().sum()
        assert abs(left - right) < 1e-4 * other.norm() * out.norm()


def test_the_inverse_of_a_smooth_image_is_the_image(backend: str, device: torch.device) -> None:
    image = smooth(128, 128, device)
    fixation = torch.full((1, 1, 2), 63.0, device=device)
    view = ops.logpolar_sample(
        image, fixation, out_size=256, r_max=60.0, antialias="none", backend=backend
    )
    back = ops.logpolar_inverse(view, fixation, 128, r_max=60.0, fill=7.0, backend=backend)
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    r = ((x - 63) ** 2 + (y - 63) ** 2).sqrt().to(device)
    inside, outside = (r > 1) & (r < 59.99), r > 60.01
    error = (back - image)[..., inside]
    peak = image.max() - image.min()
    assert 20 * torch.log10(peak / error.square().mean().sqrt()) > 35
    assert (back[..., outside] == 7).all()
    center = back[0, :, 63, 63]
    torch.testing.assert_close(center, view[0, 0, :, 0].mean(-1), rtol=1e-5, atol=1e-5)


def test_several_views_are_averaged_where_they_overlap(backend: str, device: torch.device) -> None:
    fixation = torch.tensor([[[10.0, 12.0], [18.0, 12.0]]], device=device)
    view = torch.tensor([1.0, 3.0], device=device).view(1, 2, 1, 1, 1).expand(-1, -1, -1, 4, 8)
    kwargs: dict[str, Any] = {"r_max": 6.5, "backend": backend}
    out = ops.logpolar_inverse(view, fixation, (24, 30), fill=-1.0, **kwargs)[0, 0]
    apart = ops.logpolar_inverse(view, fixation, (24, 30), fill=-1.0, blend="none", **kwargs)
    y, x = torch.meshgrid(torch.arange(24), torch.arange(30), indexing="ij")
    left = ((x - 10) ** 2 + (y - 12) ** 2 < 6.5**2).to(device)
    right = ((x - 18) ** 2 + (y - 12) ** 2 < 6.5**2).to(device)
    for mask, value in ((left & ~right, 1), (right & ~left, 3), (left & right, 2)):
        assert mask.any()
        torch.testing.assert_close(out[mask], torch.full_like(out[mask], value))
    assert (out[~left & ~right] == -1).all()
    torch.testing.assert_close(apart[0, 0, 0][left], torch.ones(int(left.sum()), device=device))
    assert (apart[0, 0, 0][~left] == -1).all()


def test_a_fixation_that_is_not_finite_is_nan_and_moves_nothing(
    backend: str, device: torch.device
) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        image = torch.randn(2, 2, 9, 9, device=device, requires_grad=True)
        fixation = torch.full((2, 2, 2), 4.0, device=device)
        fixation[0, 1, 0] = bad
        fixation.requires_grad_()
        out = ops.logpolar_sample(image, fixation, out_size=(3, 5), backend=backend)
        assert out[0, 1].isnan().all()
        assert not out[0, 0].isnan().any()
        assert not out[1].isnan().any()
        finite = out.nan_to_num()
        grad_image, grad_fixation = torch.autograd.grad(finite.sum(), (image, fixation))
        assert grad_image.isfinite().all()
        assert (grad_fixation[0, 1] == 0).all()

        view = torch.randn(2, 2, 2, 3, 5, device=device)
        images = ops.logpolar_inverse(view, fixation.detach(), 9, blend="none", backend=backend)
        assert images[0, 1].isnan().all()
        assert not images[0, 0].isnan().any()
        mean = ops.logpolar_inverse(view, fixation.detach(), 9, backend=backend)
        assert mean[0].isnan().all()
        assert not mean[1].isnan().any()


def test_pixels_that_are_nan_reach_only_the_samples_that_read_them(
    backend: str, device: torch.device
) -> None:
    for channels, size in ((1, (3, 8)), (4, (6, 32))):
        image = torch.zeros(1, channels, 16, 16, device=device)
        image[0, 0, 0, 0] = math.nan
        far = torch.tensor([[[-30.0, -30.0], [9.0, 9.0], [0.3, 0.3], [-2.5, -2.5]]], device=device)
        out = ops.logpolar_sample(image, far, out_size=size, r_max=3.0, backend=backend)
        assert (out[0, :2] == 0).all()
        assert out[0, 2].isnan().any()
        assert not out[:, :, 1:].isnan().any()
        assert not out[0, 3, :, 0].isnan().any()


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("value", [1e7, -1e18, 1e37])
def test_far_fixations_and_large_scales_end(
    value: float, padding: str, backend: str, device: torch.device
) -> None:
    image = torch.rand(1, 1, 8, 9, device=device, requires_grad=True)
    for fixation, scale in (((value, 3.0), 1.0), ((3.0, 3.0), value), ((value, -value), value)):
        at = torch.tensor([[fixation]], device=device, requires_grad=True)
        for antialias in ("none", "area", "mip"):
            out = ops.logpolar_sample(
                image, at, out_size=(3, 4), scale=scale, antialias=antialias,
                padding_mode=padding, backend=backend,
            )  # fmt: skip
            assert out.isfinite().all()
            assert out.min() >= 0
            assert out.max() <= 1
            out.sum().backward()
        ops.logpolar_inverse(out.detach(), at.detach(), 9, scale=scale, backend=backend)


def test_the_same_bits_for_any_number_of_threads(backend: str, device: torch.device) -> None:
    if backend != "cpu":
        pytest.skip("threads are the CPU's")
    threads = torch.get_num_threads()
    image, fixation = torch.randn(2, 3, 40, 40), torch.rand(2, 5, 2) * 40
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        given = [t.clone().requires_grad_() for t in (image, fixation)]
        out = ops.logpolar_sample(*given, out_size=(16, 24), r_max=30.0, backend=backend)
        back = ops.logpolar_inverse(out, given[1], 40, r_max=30.0, backend=backend)
        grads = torch.autograd.grad(back.square().sum() + out.square().sum(), given)
        alone = ops.logpolar_sample(
            given[0], fixation, out_size=(32, 24), antialias="none", backend=backend
        )
        grads = (*grads, *torch.autograd.grad(alone.square().sum(), given[:1]))
        results.append((out, back, alone, *grads))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# name: (arguments, radii in closed form)
LAWS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "log": ({"r_min": 2.0, "r_max": 16.0}, [2, 4, 8, 16]),
    "linear": ({"radial": "linear", "r_min": 0.0, "r_max": 15.0}, [0, 5, 10, 15]),
    "log1p": ({"radial": "log1p", "r_max": 16.0}, [0, 1, 3, 7]),
    "cmf": ({"radial": ("cmf", 1.0), "r_min": 1.0, "r_max": 15.0}, [1, 3, 7, 15]),
    "table": ({"radial": torch.tensor([0.0, 1.0, 2.5, 9.0])}, [0, 1, 2.5, 9]),
}


@pytest.mark.parametrize("law", LAWS)
def test_radii_and_their_inverse(law: str, backend: str, device: torch.device) -> None:
    kwargs, radii = LAWS[law]
    kwargs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in kwargs.items()}
    # the image is x: along ray 0 the map is x of the fixation plus the radius
    ramp = torch.arange(60.0, device=device).expand(1, 1, 9, 60)
    fixation = torch.tensor([[[20.0, 4.0]]], device=device)
    out = ops.logpolar_sample(
        ramp, fixation, out_size=(4, 6), antialias="none", backend=backend, **kwargs
    )
    expected = 20 + torch.tensor(radii, device=device, dtype=torch.float32)
    torch.testing.assert_close(out[0, 0, 0, :, 0], expected, rtol=1e-5, atol=1e-5)
    # every ring holds its number: the image reads u
    view = torch.arange(4.0, device=device).view(1, 1, 1, 4, 1).expand(-1, -1, -1, -1, 6)
    image = ops.logpolar_inverse(view, fixation, (9, 60), backend=backend, **kwargs)
    for k, r in enumerate(radii):
        if r == int(r):
            got = image[0, 0, 4, 20 + int(r)].item()
            assert abs(got - k) < 1e-4, (law, k, r)


def test_normalized_units_make_ellipses(backend: str, device: torch.device) -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
    image = torch.stack([x, y])[None].to(device)
    out = ops.logpolar_sample(
        image, torch.zeros(1, 1, 2, device=device), out_size=(2, 4), r_min=0.25, r_max=0.5,
        units="normalized", antialias="none", backend=backend,
    )  # fmt: skip
    expected = torch.tensor([[59.5, 39.5, 19.5, 39.5], [19.5, 29.5, 19.5, 9.5]], device=device)
    torch.testing.assert_close(out[0, 0, :, 1], expected, rtol=1e-5, atol=1e-4)


def test_the_taps_of_a_cell_without_extent_are_finite(backend: str, device: torch.device) -> None:
    image = torch.rand(1, 1, 9, 9, device=device, requires_grad=True)
    fixation = torch.full((1, 1, 2), 4.0, device=device, requires_grad=True)
    for antialias in ("none", "area", "mip"):
        out = ops.logpolar_sample(
            image, fixation, out_size=(3, 4), scale=0.0, antialias=antialias, backend=backend
        )
        torch.testing.assert_close(out, image[..., 4:5, 4:5, None].expand_as(out))
        torch.autograd.grad(out.sum(), fixation)


def test_opencv_agrees(backend: str, device: torch.device) -> None:
    cv2 = pytest.importorskip("cv2")
    image = smooth(96, 100, device)
    center, rings, rays, r_max = (50.0, 47.0), 40, 60, 40.0
    out = ops.logpolar_sample(
        image, torch.tensor([[center]], device=device), out_size=(rings, rays), r_max=r_max,
        radial="log1p", antialias="none", layout="tr", backend=backend,
    )  # fmt: skip
    for channel in range(3):
        plane = np.ascontiguousarray(image[0, channel].cpu().numpy())
        expected = cv2.warpPolar(
            plane, (rings, rays), center, r_max, cv2.WARP_POLAR_LOG | cv2.INTER_LINEAR
        )
        # OpenCV rounds positions to 1/32 pixel; the slope of the image is at most 0.11
        error = np.abs(out[0, 0, channel].cpu().numpy() - expected).max()
        assert error < 0.11 * 2**0.5 / 32 + 1e-3
