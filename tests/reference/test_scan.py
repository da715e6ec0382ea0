"""The reference of the scans against NumPy, one number at a time from the definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch

from saccade import reference
from saccade.reference.scan import scan_order

Array = np.ndarray[Any, Any]


def softplus(x: float) -> float:
    return x if x > 20 else float(np.logaddexp(0.0, x))


def walk(direction: int, height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of a map in the order of a path."""
    rows = [(r, c) for r in range(height) for c in range(width)]
    columns = [(r, c) for c in range(width) for r in range(height)]
    return {0: rows, 1: rows[::-1], 2: columns, 3: columns[::-1]}[direction]


def s6(x: dict[str, Array], softly: bool, directions: tuple[int, ...], height: int) -> Array:
    """Selective scan of one batch entry, channel by channel and state by state."""
    u, A = x["u"], x["A"]
    channels, length = u.shape
    states = A.shape[-1]
    width = length // height
    out = np.zeros((channels, length))
    for k, direction in enumerate(directions):
        for d in range(channels):
            h = x["h"][k, d].copy() if "h" in x else np.zeros(states)
            last = None
            for row, column in walk(direction, height, width):
                p = row * width + column
                if "seq" in x and last is not None and x["seq"][last] != x["seq"][p]:
                    h[:] = 0
                last = p
                dt = x["delta"][k, d, p] + (x["bias"][k, d] if "bias" in x else 0.0)
                dt = softplus(dt) if softly else dt
                y = x["D"][k, d] * u[d, p] if "D" in x else 0.0
                for n in range(states):
                    b, c = (
                        x[name][k, d, n]
                        if x[name].ndim == 3
                        else x[name][k, d // (channels // x[name].shape[1]), n, p]
                        for name in "BC"
                    )
                    h[n] = math.exp(dt * A[k, d, n]) * h[n] + dt * b * u[d, p]
                    y += c * h[n]
                out[d, p] += y
    return out * x["z"] * scipy.special.expit(x["z"]) if "z" in x else out


# name: K, D, N, G of B and C (0: constant), directions, height, width, softplus, optional inputs
SELECTIVE = {
    "sequence": (3, 2, (1, 1), (0,), 1, 9, False, ""),
    "all": (4, 3, (2, 2), (0,), 1, 11, True, "D z bias h seq"),
    "backwards": (4, 3, (4, 4), (1,), 1, 7, True, "D h seq"),
    "constant": (2, 3, (0, 1), (0,), 1, 6, False, "z"),
    "map": (2, 2, (1, 1), (0, 1, 2, 3), 3, 4, True, "D z bias h"),
    "columns": (3, 1, (3, 0), (2, 2), 5, 2, False, "h"),
}


@pytest.mark.parametrize("name", SELECTIVE)
def test_selective_scan(name: str) -> None:
    channels, states, groups, directions, height, width, softly, optional = SELECTIVE[name]
    draw, k, length = np.random.default_rng(0).standard_normal, len(directions), height * width
    x = {
        "u": draw((2, channels, length)),
        "delta": draw((2, k, channels, length)),
        "z": draw((2, channels, length)),
        "h": draw((2, k, channels, states)),
        "seq": np.sort(np.random.default_rng(1).integers(0, 4, (2, length)), -1),
    }
    shared = {
        "A": -np.abs(draw((k, channels, states))),
        "D": draw((k, channels)),
        "bias": draw((k, channels)),
    }
    for letter, count in zip("BC", groups, strict=True):
        if count:
            x[letter] = draw((2, k, count, states, length))
        else:
            shared[letter] = draw((k, channels, states))
    wanted = {"u", "delta", "A", "B", "C", *optional.split()}
    x = {n: v for n, v in x.items() if n in wanted}
    shared = {n: v for n, v in shared.items() if n in wanted}
    expected = np.stack(
        [s6({n: v[b] for n, v in x.items()} | shared, softly, directions, height) for b in range(2)]
    )
    t = {n: torch.from_numpy(v) for n, v in {**x, **shared}.items()}
    out, _ = reference.selective_scan(
        t["u"], t["delta"], t["A"], t["B"], t["C"], t.get("D"), t.get("z"), t.get("bias"),
        t.get("h"), t.get("seq"), softly, directions, height,
    )  # fmt: skip
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_scan_order_is_a_walk() -> None:
    for direction in range(4):
        expected = [r * 5 + c for r, c in walk(direction, 3, 5)]
        assert scan_order(direction, 15, 3) == expected


@pytest.mark.parametrize("limits", [(0.0, math.inf), (0.3, 0.8)], ids=str)
def test_ssd_scan(limits: tuple[float, float]) -> None:
    draw = np.random.default_rng(0).standard_normal
    length, heads, width, groups, states = 7, 4, 3, 2, 2
    x, z = draw((length, heads, width)), draw((length, heads, width))
    dt, bias, A = draw((length, heads)), draw(heads), -np.abs(draw(heads))
    B, C = draw((length, groups, states)), draw((length, groups, states))
    D, start = draw((heads, width)), draw((heads, width, states))
    seq = np.array([0, 0, 0, 1, 1, 5, 5])
    expected, final = np.zeros_like(x), np.zeros_like(start)
    for h in range(heads):
        state, g = start[h].copy(), h // 2
        for t in range(length):
            if t and seq[t] != seq[t - 1]:
                state[:] = 0
            step = min(max(softplus(dt[t, h] + bias[h]), limits[0]), limits[1])
            state = math.exp(step * A[h]) * state + step * np.outer(x[t, h], B[t, g])
            y = state @ C[t, g] + D[h] * x[t, h]
            expected[t, h] = y * z[t, h] * scipy.special.expit(z[t, h])
        final[h] = state
    t = [torch.from_numpy(v)[None] for v in (x, dt, B, C, z, start, seq)]
    out, last = reference.ssd_scan(
        t[0], t[1], torch.from_numpy(A), t[2], t[3], torch.from_numpy(D), t[4],
        torch.from_numpy(bias), t[5], t[6], True, *limits,
    )  # fmt: skip
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(last[0].numpy(), final, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sequences", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("taps", [1, 2, 4])
def test_causal_conv1d(taps: int, sequences: bool) -> None:
    draw = np.random.default_rng(0).standard_normal
    channels, length = 3, 9
    x, weight, bias = draw((channels, length)), draw((channels, taps)), draw(channels)
    before = draw((channels, taps - 1))
    seq = np.array([0, 0, 1, 1, 1, 1, 2, 3, 3]) if sequences else np.zeros(length, int)
    expected = np.zeros_like(x)
    for d in range(channels):
        for t in range(length):
            total = bias[d]
            for w in range(taps):
                source = t - taps + 1 + w
                if source >= 0:
                    total += weight[d, w] * x[d, source] * (seq[source] == seq[t])
                elif not sequences:
                    total += weight[d, w] * before[d, source]
            expected[d, t] = total * scipy.special.expit(total)
    out = reference.causal_conv1d(
        torch.from_numpy(x)[None],
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        None if sequences else torch.from_numpy(before)[None],
        torch.from_numpy(seq)[None] if sequences else None,
        True,
    )
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-12, atol=1e-12)
