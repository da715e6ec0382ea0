"""The CPU kernels' elementary functions, in units in the last place, on every instruction set."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import saccade

ROOT = Path(__file__).parents[2]
WIDE = ("-DSACCADE_BYTES=32", "-mfma")
FLAGS = {
    "baseline": ("-DSACCADE_BYTES=16",),
    "avx2": (*WIDE, "-mavx2"),
    "avx512": (*WIDE, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"),
}
DTYPES = {"float": np.float32, "double": np.float64}
INF, NAN = np.inf, np.nan

Truth = Callable[[np.ndarray], np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(np.longdouble(0), -x))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# name, truth, range of arguments (of float and of double), bound in ulp
FUNCTIONS: list[tuple[str, Truth, dict[str, tuple[float, float]], float]] = [
    ("exp", np.exp, {"float": (-87.3, 88.72), "double": (-708.3, 709.78)}, 2),
    ("exp2_bounded", np.exp2, {"float": (-126, 126.5), "double": (-1022, 1022.5)}, 2),
    ("log", np.log, {"float": (1e-44, 3e38), "double": (1e-320, 1e308)}, 1.5),
    ("log1p", np.log1p, {"float": (-0.999999, 1e30), "double": (-0.999999, 1e300)}, 3),
    ("tanh", np.tanh, {"float": (-12, 12), "double": (-22, 22)}, 2),
    ("sigmoid", _sigmoid, {"float": (-85, 85), "double": (-700, 700)}, 4),
    ("softplus", _softplus, {"float": (-85, 85), "double": (-700, 700)}, 4),
    ("sin", np.sin, {"float": (-9000, 9000), "double": (-2e6, 2e6)}, 2.5),
    ("cos", np.cos, {"float": (-9000, 9000), "double": (-2e6, 2e6)}, 2.5),
]
# name, argument, result
SPECIAL = [
    ("exp", [0, INF, -INF, NAN, 710, -750], [1, INF, 0, NAN, INF, 0]),
    ("exp2_bounded", [0, 1, -INF, NAN, -1100], [1, 2, 0, NAN, 0]),
    ("log", [0, -0.0, 1, INF, -1, -INF, NAN], [-INF, -INF, 0, INF, NAN, NAN, NAN]),
    ("log1p", [0, -1, INF, -2, NAN], [0, -INF, INF, NAN, NAN]),
    ("tanh", [0, INF, -INF, NAN, 30, -30], [0, 1, -1, NAN, 1, -1]),
    ("sigmoid", [0, INF, -INF, NAN, 800, -800], [0.5, 1, 0, NAN, 1, 0]),
    ("softplus", [INF, -INF, NAN, 800, -800], [INF, 0, NAN, 800, 0]),
    ("sin", [0, INF, NAN], [0, NAN, NAN]),
    ("cos", [0, INF, NAN], [1, NAN, NAN]),
    ("floor", [-1.5, -1, -0.25, 0, 0.75, 3, 3.5], [-2, -1, -1, 0, 0, 3, 3]),
]


@pytest.fixture(scope="module", params=FLAGS)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    isa = request.param
    if isa not in saccade.info()["isa"]["possible"]:
        pytest.skip(f"this CPU has no {isa}")
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    path = tmp_path_factory.mktemp(isa) / "simd_math.so"
    subprocess.run(
        [compiler, "-std=c++20", "-O2", "-fPIC", "-shared", "-Wno-psabi", "-ffp-contract=fast",
         f"-DSACCADE_ISA_NAMESPACE={isa}", *FLAGS[isa], f"-I{ROOT / 'csrc'}",
         str(Path(__file__).with_name("simd_math.cpp")), "-o", str(path)],
        check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(path))


def _call(library: ctypes.CDLL, name: str, kind: str, x: np.ndarray) -> np.ndarray:
    padded = np.concatenate([x, np.zeros(-len(x) % 16)]).astype(DTYPES[kind])
    y = np.empty_like(padded)
    pointers = (ctypes.c_void_p(padded.ctypes.data), ctypes.c_void_p(y.ctypes.data))
    getattr(library, f"vector_{name}_{kind}")(*pointers, ctypes.c_int64(len(y)))
    return y[: len(x)]


def _arguments(name: str, low: float, high: float) -> np.ndarray:
    """Even steps over the range, and every magnitude in it."""
    rng = np.random.default_rng(0)
    smallest = low if name == "log" else 1e-30
    magnitudes = np.exp(rng.uniform(np.log(smallest), np.log(high), 100_000))
    signed = magnitudes if low >= 0 else np.concatenate([magnitudes, -magnitudes])
    return np.concatenate([rng.uniform(low, high, 200_000), signed[signed >= low]])


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize(
    ("name", "truth", "limits", "bound"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS]
)
def test_error(
    library: ctypes.CDLL,
    name: str,
    truth: Truth,
    limits: dict[str, tuple[float, float]],
    bound: float,
    kind: str,
) -> None:
    x = _arguments(name, *limits[kind]).astype(DTYPES[kind])
    found = _call(library, name, kind, x)
    true = truth(x.astype(np.longdouble))
    # near a zero far from the origin, sine and cosine keep their absolute error
    least = 1 / 64 if name in ("sin", "cos") else np.finfo(DTYPES[kind]).tiny
    unit = np.spacing(np.maximum(np.abs(true), least).astype(DTYPES[kind]))
    assert float((np.abs(found - true) / unit).max()) <= bound


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize(("name", "x", "y"), SPECIAL, ids=[s[0] for s in SPECIAL])
def test_special_values(
    library: ctypes.CDLL, name: str, x: list[float], y: list[float], kind: str
) -> None:
    arguments, expected = np.array(x, np.float64), np.array(y, np.float64)
    np.testing.assert_array_equal(_call(library, name, kind, arguments), expected)
