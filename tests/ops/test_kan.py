"""`kan_basis` and `kan_linear`: gradients, shapes, dtypes, tracing, and mistakes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from saccade.ops.kan import kan_basis, kan_linear
from saccade.reference import kan as reference


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def test_gradcheck_and_double_backward_of_every_input() -> None:
    x, weight, centres = randn(2, 3), randn(2, 3, 5, seed=1), randn(5, seed=2)
    width, base, bias = (
        torch.tensor(0.8, dtype=torch.float64),
        randn(2, 3, seed=3),
        randn(2, seed=4),
    )
    inputs = tuple(t.requires_grad_() for t in (x, weight, centres, width, base, bias))

    def layer(
        x: Tensor, weight: Tensor, centres: Tensor, width: Tensor, base: Tensor, bias: Tensor
    ) -> Tensor:
        return kan_linear(
            x,
            weight,
            basis="rswaf",
            base_weight=base,
            bias=bias,
            centres=centres,
            inv_width=width,
            mode="exact",
        )

    assert torch.autograd.gradcheck(layer, inputs)
    assert torch.autograd.gradgradcheck(layer, inputs)


def test_gradcheck_of_a_width_for_every_function() -> None:
    inputs = (randn(3, 2).requires_grad_(), randn(4, seed=1).abs().add(0.2).requires_grad_())
    assert torch.autograd.gradcheck(
        lambda x, s: kan_basis(x, "rswaf", centres=[-1.0, 0.0, 0.5, 2.0], inv_width=s), inputs
    )


@pytest.mark.parametrize(
    "shape",
    [(5,), (3, 5), (2, 0, 5), (0, 5), (2, 3, 4, 5)],
    ids=["vector", "rows", "empty axis", "no rows", "map"],
)
def test_any_rank(shape: tuple[int, ...]) -> None:
    weight = randn(7, 5, 3, seed=1)
    y = kan_linear(randn(*shape), weight, basis="rswaf")
    assert y.shape == (*shape[:-1], 7)
    rows = reference.kan_linear(randn(*shape).reshape(-1, 5), weight, basis="rswaf")
    torch.testing.assert_close(y.reshape(-1, 7), rows)


def test_one_feature_and_one_function() -> None:
    y = kan_linear(randn(4, 1), randn(1, 1, 1, seed=1), basis="rswaf", centres=[0.3], inv_width=2.0)
    torch.testing.assert_close(
        y, randn(1, 1, 1, seed=1)[0] / torch.cosh(2.0 * (randn(4, 1) - 0.3)) ** 2
    )


def test_permuted_and_expanded_inputs() -> None:
    weight = randn(7, 5, 3, seed=1)
    x = randn(2, 5, 4).permute(0, 2, 1)
    torch.testing.assert_close(
        kan_linear(x, weight, basis="rswaf"), kan_linear(x.contiguous(), weight, basis="rswaf")
    )
    row = randn(1, 5).expand(6, 5)
    torch.testing.assert_close(
        kan_linear(row, weight, basis="rswaf"), kan_linear(row.clone(), weight, basis="rswaf")
    )


def test_one_map_a_head_is_a_loop_over_the_heads() -> None:
    x, weight = randn(2, 3, 4, 5), randn(3, 7, 5, 6, seed=1)
    base, bias = randn(3, 7, 5, seed=2), randn(3, 7, seed=3)
    y = kan_linear(x, weight, basis="rswaf", base_weight=base, bias=bias)
    heads = [
        kan_linear(x[:, h], weight[h], basis="rswaf", base_weight=base[h], bias=bias[h])
        for h in range(x.shape[1])
    ]
    torch.testing.assert_close(y, torch.stack(heads, 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_short_floats_are_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    x, weight = randn(9, 16, dtype=dtype), randn(8, 16, 8, seed=1, dtype=dtype)
    y = kan_linear(x, weight, basis="rswaf")
    assert y.dtype == dtype
    assert kan_basis(x, "rswaf").dtype == dtype
    exact = kan_linear(x.double(), weight.double(), basis="rswaf")
    torch.testing.assert_close(y.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_autocast_gives_the_autocast_dtype_and_float32_basis() -> None:
    x, weight = randn(9, 16, dtype=torch.float32), randn(8, 16, 8, seed=1, dtype=torch.float32)
    bias = randn(8, seed=2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = kan_linear(x, weight, basis="rswaf", bias=bias)
        mixed = kan_linear(x.bfloat16(), weight, basis="rswaf", bias=bias)
        assert kan_basis(x, "rswaf").dtype == torch.float32
    assert y.dtype == mixed.dtype == torch.bfloat16
    exact = kan_linear(x.double(), weight.double(), basis="rswaf", bias=bias.double())
    torch.testing.assert_close(y.double(), exact, rtol=0.02, atol=0.1)


def test_vmap_and_gradient_of_a_sum() -> None:
    x, weight = randn(4, 3, 5), randn(7, 5, 3, seed=1)

    def total(x: Tensor) -> Tensor:
        return kan_linear(x, weight, basis="rswaf", mode="fasterkan").sum()

    each = torch.stack([torch.func.grad(total)(row) for row in x])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(x), each)


@pytest.mark.parametrize("mode", ["exact", "fasterkan"])
def test_compiles_in_one_graph_and_keeps_its_gradients(mode: str) -> None:
    weight = randn(7, 5, 3, seed=1).requires_grad_()
    layer = torch.compile(
        lambda x: kan_linear(x, weight, basis="rswaf", mode=mode),
        backend="aot_eager",
        fullgraph=True,
        dynamic=True,
    )
    for rows in (4, 6):
        x, y = randn(rows, 5).requires_grad_(), randn(rows, 5).requires_grad_()
        wanted = torch.autograd.grad(
            kan_linear(x, weight, basis="rswaf", mode=mode).sin().sum(), (x, weight)
        )
        found = torch.autograd.grad(layer(y).sin().sum(), (y, weight))
        torch.testing.assert_close(found, wanted)


def test_forward_keeps_two_feature_tensors_at_most() -> None:
    x, weight = randn(64, 32).requires_grad_(), randn(16, 32, 8, seed=1).requires_grad_()
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        kan_linear(x, weight, basis="rswaf")
    features = x.numel() * 8 * x.element_size()
    assert sum(kept.values()) <= 2 * features + weight.nbytes + x.nbytes


X, W = torch.zeros(4, 5), torch.zeros(7, 5, 8)
LEARNABLE = torch.zeros(8, requires_grad=True)
MISTAKES: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("x is a list", {"x": [1.0]}, TypeError, "list"),
    ("x holds ints", {"x": torch.zeros(4, 5, dtype=torch.int64)}, TypeError, "int64"),
    ("x of rank 0", {"x": torch.tensor(1.0)}, ValueError, "rank 0"),
    ("features differ", {"x": torch.zeros(4, 6)}, ValueError, "I = 5 as in weight, got 6"),
    ("weight of rank 2", {"weight": torch.zeros(7, 5)}, ValueError, r"\(7, 5\)"),
    ("no function", {"weight": torch.zeros(7, 5, 0)}, ValueError, "at least 1 basis function"),
    (
        "heads of weight without heads of x",
        {"weight": torch.zeros(3, 7, 5, 8)},
        ValueError,
        "h = 3",
    ),
    ("dtypes differ", {"weight": W.double()}, ValueError, "float64"),
    ("devices differ", {"weight": W.to("meta")}, ValueError, "meta"),
    (
        "base weight of another shape",
        {"base_weight": torch.zeros(5, 7)},
        ValueError,
        r"\(7, 5\), got \(5, 7\)",
    ),
    ("bias of another shape", {"bias": torch.zeros(5)}, ValueError, r"\(7,\), got \(5,\)"),
    ("unknown basis", {"basis": "sine"}, ValueError, "sine"),
    (
        "unknown option",
        {"width": 2.0},
        TypeError,
        "no option width; it has centres, inv_width, mode",
    ),
    ("unknown mode", {"mode": "fast"}, ValueError, '"exact" or "fasterkan", got \'fast\''),
    ("too few centres", {"centres": [0.0, 1.0]}, ValueError, r"\(8,\), got \(2,\)"),
    ("centres of rank 2", {"centres": torch.zeros(5, 8)}, ValueError, r"\(5, 8\)"),
    ("width zero", {"inv_width": 0.0}, ValueError, "above 0, got 0.0"),
    ("width not a number", {"inv_width": float("nan")}, ValueError, "above 0, got nan"),
    ("widths of another count", {"inv_width": torch.ones(3)}, ValueError, r"got \(3,\)"),
    (
        "learnable centres in fasterkan",
        {"mode": "fasterkan", "centres": LEARNABLE},
        ValueError,
        "no derivative",
    ),
    (
        "widths in fasterkan",
        {"mode": "fasterkan", "inv_width": torch.ones(8)},
        ValueError,
        r"got \(8,\)",
    ),
    ("unknown backend", {"backend": "gpu"}, ValueError, "gpu"),
    ("backend that cannot run", {"backend": "cuda"}, RuntimeError, "cannot run"),
]


@pytest.mark.parametrize(
    ("change", "error", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(change: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {"x": X, "weight": W, "basis": "rswaf"} | change
    with pytest.raises(error, match=text):
        kan_linear(arguments.pop("x"), arguments.pop("weight"), **arguments)


def test_basis_alone_checks_too() -> None:
    with pytest.raises(ValueError, match="sine"):
        kan_basis(X, "sine")
    with pytest.raises(ValueError, match=r"got \(0,\)"):
        kan_basis(X, "rswaf", centres=[])
