"""The reference against loops over samples and pixels that share no code with it."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from saccade.reference.logpolar import level_sizes, logpolar_inverse, logpolar_sample, pyramid


def bilinear(plane: Tensor, x: float, y: float, padding: int) -> float:
    """One position, one channel."""
    height, width = plane.shape

    def fold(c: float, n: int) -> float:
        if padding == 2:
            while not -0.5 <= c <= n - 0.5:
                c = -1 - c if c < -0.5 else 2 * n - 1 - c
        return min(max(c, 0.0), n - 1.0) if padding else c

    x, y = fold(x, width), fold(y, height)
    total = 0.0
    for row in range(height):
        for column in range(width):
            near = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            total += near * plane[row, column].item() if near else 0.0
    return total


@pytest.mark.parametrize("padding", range(3))
@pytest.mark.parametrize("antialias", range(2))
def test_sample_one_position_at_a_time(padding: int, antialias: int) -> None:
    image = torch.randn(1, 1, 5, 6, dtype=torch.float64)
    radii = torch.tensor([0.05, 1.0, 4.0], dtype=torch.float64)
    edges = torch.tensor([0.0, 0.4, 2.0, 6.0], dtype=torch.float64)
    x, y, theta0, scale = 2.3, 3.4, 0.7, 1.1
    out = logpolar_sample(
        image, None, torch.tensor([[[x, y]]]).double(), torch.tensor([[theta0]]).double(),
        torch.tensor([[scale]]).double(), radii, edges, 4, False, padding, antialias,
    )  # fmt: skip
    for k in range(3):
        low, high, r = edges[k].item(), edges[k + 1].item(), radii[k].item()
        counts = [1, 1]
        if antialias:
            sides = (scale * (high - low), scale * 2 * math.pi * r / 4)
            counts = [1 if s < 0.25 else math.ceil(1 + 0.75 * s - 1e-3) for s in sides]
        for j in range(4):
            total = weights = 0.0
            for a in range(counts[0]):
                at = low + (high - low) * (a + 0.5) / counts[0] if counts[0] > 1 else r
                for b in range(counts[1]):
                    turn = theta0 + 2 * math.pi / 4 * (j + (b + 0.5) / counts[1] - 0.5)
                    px, py = x + scale * at * math.cos(turn), y + scale * at * math.sin(turn)
                    total += at * bilinear(image[0, 0], px, py, padding)
                    weights += at
            assert abs(out[0, 0, 0, k, j].item() - total / weights) < 1e-6


def test_pyramid_halves_and_rounds_up() -> None:
    image = torch.randn(2, 3, 13, 6)
    assert level_sizes(13, 6) == [(7, 3), (4, 2), (2, 1), (1, 1), (1, 1), (1, 1)]
    levels = pyramid(image).split([h * w for h, w in level_sizes(13, 6)], dim=2)
    first = levels[0].unflatten(2, (7, 3))
    torch.testing.assert_close(first[..., 2, 1], image[..., 4:6, 2:4].mean((2, 3)))
    torch.testing.assert_close(first[..., 6, 1], image[..., 12:, 2:4].mean((2, 3)))


@pytest.mark.parametrize("law", range(3))
def test_inverse_one_pixel_at_a_time(law: int) -> None:
    rng = random.Random(0)
    rings, rays, offset = 4, 5, 0.3
    radii = [0.8, 1.5, 3.0, 4.4]
    view = torch.randn(1, 2, 1, rings, rays, dtype=torch.float64)
    poses = [[rng.uniform(1, 6) for _ in range(2)] for _ in range(2)]
    theta0, scale = [0.4, -2.0], [1.0, 0.7]
    out, count = logpolar_inverse(
        view, torch.tensor([poses]).double(), torch.tensor([theta0]).double(),
        torch.tensor([scale]).double(), torch.tensor(radii).double(), 7, 8, False, law, offset,
        True, -9.0,
    )  # fmt: skip

    def ring(r: float) -> float:
        if r <= radii[0]:
            return 0.0
        if law == 2:
            k = max(k for k in range(rings - 1) if radii[k] <= r)
            return k + (r - radii[k]) / (radii[k + 1] - radii[k])
        g = (lambda r: math.log(r + offset)) if law == 0 else (lambda r: r)
        return (rings - 1) * (g(r) - g(radii[0])) / (g(radii[-1]) - g(radii[0]))

    for row in range(7):
        for column in range(8):
            values = []
            for n in range(2):
                dx, dy = (column - poses[n][0]) / scale[n], (row - poses[n][1]) / scale[n]
                r = math.hypot(dx, dy)
                if r > radii[-1]:
                    continue
                table = view[0, n, 0]
                if r < radii[0] / 2:
                    values.append(table[0].mean().item())
                    continue
                u = ring(r)
                v = (math.atan2(dy, dx) - theta0[n]) * rays / (2 * math.pi) % rays
                k, j = min(int(u), rings - 2), int(v)
                value = 0.0
                for ring_at, wu in ((k, 1 - (u - k)), (k + 1, u - k)):
                    for ray, wv in ((j, 1 - (v - j)), ((j + 1) % rays, v - j)):
                        value += wu * wv * table[ring_at, ray].item()
                values.append(value)
            assert count[0, row, column] == len(values)
            expected = sum(values) / len(values) if values else -9.0
            assert abs(out[0, 0, row, column].item() - expected) < 1e-6
