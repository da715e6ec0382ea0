"""Every Triton kernel compiles to a cubin without a GPU; registers and spills are printed (-s)."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip(
        "compiles kernels, which needs TRITON_INTERPRET unset: the interpreter has no compiler",
        allow_module_level=True,
    )
pytest.importorskip("triton")


def load_tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "triton_compile_check.py"
    spec = importlib.util.spec_from_file_location("triton_compile_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


tool = load_tool()

KAN_KERNELS = ["transform", "differentiate_weights", "differentiate_inputs"]
WINDOW_KERNELS = ["attend", "differentiate_queries", "differentiate_keys"]
POLAR_KERNELS = ["sample", "differentiate_image", "differentiate_poses"]
PROJECTION_KERNELS = [
    "multiply_rows",
    "solve_quadratics",
    "combine_rows",
    "multiply_gradient",
    "solve_active",
    "differentiate_rows",
]
SWEEP_KERNELS = [
    "find_range",
    "update_potentials",
    "finish_rows",
    "conclude",
    "weigh_plan",
    "multiply_plan",
    "step_descent",
]
# operator, case, and the kernels of its forward and backward
CASES = [
    ("gem", "t10", PROJECTION_KERNELS),
    ("gem", "t20-slack", PROJECTION_KERNELS),
    ("kan", "bspline-clamp", KAN_KERNELS),
    ("kan", "fourier", KAN_KERNELS),
    ("kan", "gaussian", KAN_KERNELS),
    (
        "kan",
        "mexican-hat",
        ["transform_edges", *KAN_KERNELS[1:], "differentiate_points", "differentiate_edges"],
    ),
    ("kan", "rational", ["evaluate_rational", "differentiate_rational"]),
    ("logpolar", "area-normalized", POLAR_KERNELS),
    ("logpolar", "inverse", ["invert", "differentiate_map", "differentiate_inverse_poses"]),
    ("logpolar", "mip-reflection", POLAR_KERNELS),
    ("neighborhood_attention", "2d-k7-bias", [*WINDOW_KERNELS, "differentiate_bias"]),
    (
        "neighborhood_attention",
        "3d",
        [*WINDOW_KERNELS, "differentiate_bias", "differentiate_additional"],
    ),
    ("scan", "conv", ["convolve", "differentiate_filter", "differentiate_signal"]),
    ("scan", "s6-gate", ["scan_forward", "scan_backward"]),
    (
        "scan",
        "ssd-gate",
        [
            "ssd_steps",
            "ssd_states",
            "ssd_outputs",
            "ssd_adjoint",
            "differentiate_signals",
            "differentiate_decays",
            "differentiate_inputs",
            "differentiate_steps",
        ],
    ),
    ("spiking", "plain", ["fire", "differentiate"]),
    ("spiking", "parameters", ["fire", "differentiate"]),
    (
        "transport",
        "kept",
        ["solve_problems", "conclude", "solve_kept", "differentiate_weights"],
    ),
    (
        "transport",
        "points",
        [*SWEEP_KERNELS, "differentiate_points", "differentiate_weights"],
    ),
    (
        "transport",
        "sweeps",
        [*SWEEP_KERNELS, "differentiate_costs", "differentiate_weights"],
    ),
]
# A program of sm_80 may take 163 KB of shared memory; spills are few or the tile is too large.
MAX_SHARED, MAX_SPILL = 163 * 1024, 128
# Ampere's tensor cores take their operands from registers, and float32 is three TF32 products.
SPILLS = {
    ("ssd-gate", "float32", 80): 2048,
    ("ssd-gate", "float16", 80): 2048,
    ("ssd-gate", "bfloat16", 80): 2048,
    ("ssd-gate", "float32", 90): 1024,
    ("points", "float16", 80): 256,
    ("points", "bfloat16", 80): 256,
}


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # one for all: many kernels do not depend on the type of the data
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton-cache")))
        yield


@pytest.mark.parametrize("capability", [80, 90], ids=["sm80", "sm90"])
@pytest.mark.parametrize("dtype", tool.DTYPES)
@pytest.mark.parametrize(
    ("operator", "name", "kernels"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
def test_kernels_compile_to_cubins(
    operator: str, name: str, kernels: list[str], dtype: str, capability: int
) -> None:
    found = dict(tool.compile_case(operator, name, tool.DTYPES[dtype], capability))
    assert list(found) == kernels
    for kernel, resources in found.items():
        print(f"{operator} {name} {dtype} sm_{capability} {kernel}: {resources}")
        assert resources.size > 0
        assert 0 < resources.registers <= 255
        assert resources.shared <= MAX_SHARED
        assert resources.spill <= SPILLS.get((name, dtype, capability), MAX_SPILL)
