"""backend="triton" on a GPU, against the reference in float64."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("needs the compiled kernels: TRITON_INTERPRET unset", allow_module_level=True)
pytest.importorskip("triton")

import saccade

pytestmark = pytest.mark.cuda

# Error of out and of gradients against float64 on the same rounded inputs.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}
GEOMETRIES = {
    "1d-causal": ((1000,), {"kernel_size": (63,), "stride": (4,), "is_causal": (True,)}),
    "2d-k7": ((56, 56), {"kernel_size": (7, 7)}),
    "2d-dilated": ((29, 31), {"kernel_size": (7, 6), "dilation": (2, 3)}),
    "2d-large-window": ((24, 24), {"kernel_size": (16, 20)}),
    "3d": ((5, 14, 13), {"kernel_size": (3, 7, 7), "stride": (1, 2, 3)}),
}


def run(
    backend: str, inputs: dict[str, Tensor], grad_out: Tensor, grad_lse: Tensor, options: dict
) -> list[Tensor]:
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    out, lse = saccade.ops.neighborhood_attention(
        **leaves, **options, return_lse=True, backend=backend
    )
    gradients = torch.autograd.grad(
        (out, lse), list(leaves.values()), (grad_out.to(out.dtype), grad_lse.to(lse.dtype))
    )
    return [out.detach(), lse.detach(), *gradients]


def make(dims: tuple[int, ...], options: dict, head_dim: int, dtype: torch.dtype) -> dict:
    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda").to(dtype)

    return {
        "query": tensor(2, *dims, 2, head_dim),
        "key": tensor(2, *dims, 1, head_dim),
        "value": tensor(2, *dims, 1, head_dim),
        "bias": tensor(2, *(2 * k - 1 for k in options["kernel_size"])),
        "additional_keys": tensor(2, 5, 1, head_dim),
        "additional_values": tensor(2, 5, 1, head_dim),
    }


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("head_dim", [20, 32, 128, 256])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_matches_the_reference(name: str, head_dim: int, dtype: torch.dtype) -> None:
    dims, options = GEOMETRIES[name]
    inputs = make(dims, options, head_dim, dtype)
    grad_out, grad_lse = torch.randn_like(inputs["query"]), torch.randn(2, *dims, 2, device="cuda")
    ours = run("triton", inputs, grad_out, grad_lse, options)
    doubles = {key: x.double() for key, x in inputs.items()}
    truth = run("reference", doubles, grad_out.double(), grad_lse.double(), options)
    for index, (mine, true) in enumerate(zip(ours, truth, strict=True)):
        error = (mine.double() - true).abs().max() / true.abs().max().clamp(min=1)
        assert error <= TOLERANCES[dtype], f"result {index}"


def test_without_bias_and_additional_keys() -> None:
    options = {"kernel_size": (24, 28)}
    inputs = make((32, 32), options, 64, torch.float16)
    inputs = {name: inputs[name] for name in ("query", "key", "value")}
    grad_out, grad_lse = torch.randn_like(inputs["query"]), torch.randn(2, 32, 32, 2).cuda()
    ours = run("triton", inputs, grad_out, grad_lse, options)
    doubles = {key: x.double() for key, x in inputs.items()}
    truth = run("reference", doubles, grad_out.double(), grad_lse.double(), options)
    for mine, true in zip(ours, truth, strict=True):
        assert (mine.double() - true).abs().max() <= 1e-2 * true.abs().max().clamp(min=1)


def test_same_bits_twice() -> None:
    options = {"kernel_size": (7, 7), "dilation": (1, 2)}
    inputs = make((40, 41), options, 32, torch.float16)
    grad_out, grad_lse = torch.randn_like(inputs["query"]), torch.randn(2, 40, 41, 2).cuda()
    first = run("triton", inputs, grad_out, grad_lse, options)
    second = run("triton", inputs, grad_out, grad_lse, options)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_compiles_as_one_graph() -> None:
    options = {"kernel_size": (7, 7)}
    inputs = make((28, 28), options, 32, torch.float16)

    def attend(inputs: dict[str, Tensor]) -> Tensor:
        return saccade.ops.neighborhood_attention(**inputs, **options, backend="triton")

    compiled = torch.compile(attend, fullgraph=True)
    torch.testing.assert_close(compiled(inputs), attend(inputs))
