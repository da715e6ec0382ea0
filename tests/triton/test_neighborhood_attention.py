"""The Triton kernels in Triton's interpreter, against the reference in float64.

Run as a process of its own: TRITON_INTERPRET=1 pytest tests/triton
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "needs TRITON_INTERPRET=1 before triton's import: TRITON_INTERPRET=1 pytest tests/triton",
        allow_module_level=True,
    )

import triton
import triton.language as tl

import saccade
from saccade.reference.neighborhood_attention import neighborhood_attention as reference
from saccade.triton_kernels._neighborhood_attention.window import visitors, window

triton_rung = importlib.import_module("saccade.triton_kernels.neighborhood_attention")
plan = importlib.import_module("saccade.triton_kernels._neighborhood_attention.plan")

NAMES = ("query", "key", "value", "bias", "additional_keys", "additional_values")
# Largest error of any element against float64; inputs are standard normal.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2}


@dataclass(frozen=True)
class Case:
    dims: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    causal: tuple[int, ...] = ()
    batch: int = 1
    heads: int = 1
    heads_kv: int = 1
    head_dim: int = 16
    bias: bool = False
    additional: int = 0
    scale: float | None = None
    dtype: torch.dtype = torch.float32

    @property
    def window(self) -> tuple[tuple[int, ...], ...]:
        ones, zeros = (1,) * len(self.dims), (0,) * len(self.dims)
        return self.kernel, self.stride or ones, self.dilation or ones, self.causal or zeros

    @property
    def factor(self) -> float:
        return self.head_dim**-0.5 if self.scale is None else self.scale

    def inputs(self) -> list[Tensor | None]:
        def tensor(*shape: int) -> Tensor:
            return torch.randn(shape).to(self.dtype)

        key_shape = (self.batch, *self.dims, self.heads_kv, self.head_dim)
        extra = (self.batch, self.additional, self.heads_kv, self.head_dim)
        return [
            tensor(self.batch, *self.dims, self.heads, self.head_dim),
            tensor(*key_shape),
            tensor(*key_shape),
            tensor(self.heads, *(2 * k - 1 for k in self.kernel)) if self.bias else None,
            tensor(*extra) if self.additional else None,
            tensor(*extra) if self.additional else None,
        ]


CASES = {
    "1d-odd": Case((11,), (5,)),
    "1d-even": Case((13,), (4,), batch=2, heads=2, heads_kv=2),
    "1d-several-tiles": Case((83,), (7,)),
    "1d-full-window": Case((37,), (37,), head_dim=32),
    "1d-causal": Case((23,), (6,), causal=(1,)),
    "1d-causal-full": Case((19,), (19,), causal=(1,), bias=True),
    "1d-causal-stride": Case((29,), (8,), stride=(3,), causal=(1,), bias=True),
    "1d-large-window": Case((90,), (50,), stride=(2,), heads=2),
    "1d-large-causal": Case((90,), (60,), causal=(1,)),
    "1d-stride-is-kernel": Case((21,), (7,), stride=(7,)),
    "1d-dilation": Case((17,), (3,), dilation=(3,), bias=True, additional=2),
    "1d-length-one": Case((1,), (1,), additional=1),
    "1d-d5": Case((9,), (3,), head_dim=5, bias=True),
    "2d": Case((7, 11), (3, 5), head_dim=24),
    "2d-even": Case((6, 9), (4, 2), bias=True),
    "2d-stride-dilation-causal": Case(
        (7, 11), (3, 5), stride=(2, 3), dilation=(2, 2), causal=(0, 1), bias=True, additional=3
    ),
    "2d-gqa": Case((5, 5), (3, 3), batch=2, heads=4, heads_kv=2, bias=True, additional=5),
    "2d-full-window": Case((8, 9), (8, 9), additional=17),
    "2d-length-one": Case((1, 13), (1, 3), bias=True),
    "2d-no-scale": Case((5, 7), (3, 3), scale=0.0, bias=True),
    "2d-negative-scale": Case((5, 7), (3, 3), scale=-0.7),
    "3d": Case((3, 5, 4), (3, 3, 2), head_dim=5),
    "3d-everything": Case(
        (3, 4, 5),
        (2, 2, 3),
        stride=(2, 1, 3),
        dilation=(1, 2, 1),
        causal=(0, 1, 0),
        heads=2,
        bias=True,
        additional=2,
    ),
    "2d-half": Case((7, 7), (5, 3), head_dim=24, bias=True, additional=2, dtype=torch.float16),
    "1d-half-causal": Case((31,), (9,), causal=(1,), dtype=torch.float16),
}


def flatten(inputs: list[Tensor | None]) -> list[Tensor]:
    return [x for x in inputs if x is not None]


def compare(name: str, ours: Tensor, truth: Tensor, dtype: torch.dtype) -> None:
    assert ours.shape == truth.shape, name
    assert ours.is_contiguous(), name
    torch.testing.assert_close(
        ours.double(),
        truth,
        rtol=TOLERANCES[dtype],
        atol=TOLERANCES[dtype],
        msg=lambda text: f"{name}: {text}",
    )


def truths(
    case: Case, inputs: list[Tensor | None], grad_out: Tensor, grad_lse: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    doubles = [None if x is None else x.double().requires_grad_() for x in inputs]
    query, key, value, *optional = doubles
    out, lse = reference(query, key, value, *case.window, case.factor, *optional)
    gradients = torch.autograd.grad(
        (out, lse), flatten(doubles), (grad_out.double(), grad_lse.double())
    )
    return out.detach(), lse.detach(), list(gradients)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_matches_the_reference(case: Case) -> None:
    inputs = case.inputs()
    query, key, value, *optional = inputs
    out, lse = triton_rung.forward(*inputs, *case.window, case.factor)
    grad_out, grad_lse = torch.randn_like(out), torch.randn_like(lse)
    gradients = triton_rung.backward(
        grad_out, grad_lse, query, key, value, out, lse, *optional, *case.window, case.factor
    )
    true_out, true_lse, true_gradients = truths(case, inputs, grad_out, grad_lse)
    assert (out.dtype, lse.dtype) == (case.dtype, torch.float32)
    compare("out", out, true_out, case.dtype)
    compare("lse", lse, true_lse, case.dtype)
    left = iter(true_gradients)
    for name, given, gradient in zip(NAMES, inputs, gradients, strict=True):
        assert gradient.dtype == case.dtype, name
        if given is None:
            assert gradient.shape == (0,), name
        else:
            compare(f"gradient of {name}", gradient, next(left), case.dtype)


@triton.jit
def tabulate(starts, ends, firsts, lasts, n, kernel, stride, CAUSAL: tl.constexpr):
    p = tl.arange(0, 32)
    start, end = window(p, n, kernel, stride, CAUSAL)
    first, last = visitors(p, n, kernel, stride, CAUSAL)
    tl.store(starts + p, start)
    tl.store(ends + p, end)
    tl.store(firsts + p, first)
    tl.store(lasts + p, last)


@pytest.mark.parametrize("causal", [0, 1], ids=["centred", "causal"])
@pytest.mark.parametrize("n", [1, 2, 7, 12, 19])
def test_visitors_of_a_key_are_the_queries_that_see_it(n: int, causal: int) -> None:
    for kernel in {1, 2, 3, 6, 7, n} & set(range(1, n + 1)):
        for stride in range(1, kernel + 1):
            tables = torch.zeros(4, 32, dtype=torch.int32)
            tabulate[(1,)](*tables, n, kernel, stride, CAUSAL=causal)
            starts, ends, firsts, lasts = tables[:, :n]
            key = torch.arange(n)
            sees = (starts[:, None] <= key) & (key < ends[:, None])
            for j in range(n):
                visible = sees[:, j].nonzero().flatten()
                assert visible.tolist() == list(range(firsts[j], lasts[j] + 1)), (kernel, stride, j)


def test_reads_any_strides() -> None:
    case = Case((5, 7), (3, 3), batch=2, heads=2, heads_kv=2, bias=True, additional=2)
    inputs = case.inputs()
    query, key, value, bias, keys, values = flatten(inputs)
    laid_out = [
        query.permute(3, 1, 0, 2, 4).contiguous().permute(2, 1, 3, 0, 4),
        key.transpose(-1, -2).contiguous().transpose(-1, -2),
        value[:1].expand(2, *value.shape[1:]),
        bias.transpose(1, 2),
        keys.transpose(1, 2).contiguous().transpose(1, 2),
        values[:1].expand(2, *values.shape[1:]),
    ]
    grad_out = torch.randn(1, 1, 1, 1, case.head_dim).expand(query.shape)
    grad_lse = torch.ones(()).expand(query.shape[:-1])
    results = []
    for chosen in (laid_out, [x.contiguous() for x in laid_out]):
        out, lse = triton_rung.forward(*chosen, *case.window, case.factor)
        gradients = triton_rung.backward(
            grad_out, grad_lse, *chosen[:3], out, lse, *chosen[3:], *case.window, case.factor
        )
        results.append((out, lse, *gradients))
    for name, strided, contiguous in zip(("out", "lse", *NAMES), *results, strict=True):
        assert strided.is_contiguous(), name
        assert torch.equal(strided, contiguous), name


def test_empty_batch() -> None:
    case = Case((5, 5), (3, 3), batch=0, bias=True, additional=2)
    inputs = case.inputs()
    query, key, value, *optional = inputs
    out, lse = triton_rung.forward(*inputs, *case.window, case.factor)
    gradients = triton_rung.backward(
        out, lse, query, key, value, out, lse, *optional, *case.window, case.factor
    )
    for given, gradient in zip(flatten(inputs), gradients, strict=True):
        assert gradient.shape == given.shape
    assert (out.shape, lse.shape) == (query.shape, query.shape[:-1])
    assert torch.equal(gradients[3], torch.zeros_like(optional[0]))


def test_no_additional_keys_in_an_empty_tensor() -> None:
    case = Case((5,), (3,))
    query, key, value, *_ = case.inputs()
    extra = query.new_empty(1, 0, 1, case.head_dim)
    out, lse = triton_rung.forward(query, key, value, None, extra, extra, *case.window, case.factor)
    expected = triton_rung.forward(query, key, value, None, None, None, *case.window, case.factor)
    gradients = triton_rung.backward(
        out, lse, query, key, value, out, lse, None, extra, extra, *case.window, case.factor
    )
    assert torch.equal(out, expected[0])
    assert gradients[4].shape == gradients[5].shape == extra.shape


def test_nan_stays_in_its_row_and_reaches_the_output() -> None:
    case = Case((9,), (3,))
    query, key, value, *optional = case.inputs()
    query[0, 4] = torch.nan
    out, lse = triton_rung.forward(query, key, value, *optional, *case.window, case.factor)
    rows = out.isnan().any(-1).flatten()
    assert rows.tolist() == [i == 4 for i in range(9)]
    assert lse.isnan().flatten().tolist() == rows.tolist()


def test_bias_of_minus_infinity_removes_a_key() -> None:
    case = Case((9,), (3,), bias=True)
    query, key, value, bias, *rest = case.inputs()
    bias[:, 1] = -torch.inf
    inputs = [query, key, value, bias, *rest]
    out, lse = triton_rung.forward(*inputs, *case.window, case.factor)
    true_out, true_lse = reference(query, key, value, *case.window, case.factor, bias)
    torch.testing.assert_close(out, true_out)
    torch.testing.assert_close(lse, true_lse)


def test_ops_pass_opcheck() -> None:
    case = Case((5, 4), (3, 2), bias=True, additional=2)
    inputs = case.inputs()
    query, key, value, *optional = inputs
    query = query.transpose(1, 2).contiguous().transpose(1, 2)
    arguments = [query, key, value, *optional, *map(list, case.window), case.factor]
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton_rung.forward_op, arguments, test_utils=utilities)
    out, lse = triton_rung.forward_op(*arguments)
    backward_arguments = [out, lse, query, key, value, out, lse, *arguments[3:]]
    torch.library.opcheck(triton_rung.backward_op, backward_arguments, test_utils=utilities)


def test_compiles_as_one_graph_through_the_public_function() -> None:
    tensors = [torch.randn(1, 6, 5, 2, 8, requires_grad=True) for _ in range(3)]

    def attend(*tensors: Tensor) -> Tensor:
        return saccade.ops.neighborhood_attention(*tensors, kernel_size=3, backend="triton")

    eager = attend(*tensors)
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")(*tensors)
    assert torch.equal(compiled, eager)
    for mine, true in zip(
        torch.autograd.grad(compiled.square().sum(), tensors),
        torch.autograd.grad(eager.square().sum(), tensors),
        strict=True,
    ):
        assert torch.equal(mine, true)


def test_import_again_keeps_the_ops() -> None:
    assert importlib.reload(triton_rung).forward_op is triton_rung.forward_op
    case = Case((5,), (3,))
    out, _ = triton_rung.forward_op(*case.inputs(), *map(list, case.window), case.factor)
    assert out.isfinite().all()


@dataclass(frozen=True)
class Wrong:
    error: type[Exception]
    text: str
    change: dict[str, Any] = field(default_factory=dict)
    window: tuple[tuple[int, ...], ...] = ((3,), (1,), (1,), (0,))


WRONG = {
    "float64": Wrong(NotImplementedError, "float64", {"dtype": torch.float64}),
    "bfloat16": Wrong(NotImplementedError, "interpreter", {"dtype": torch.bfloat16}),
    "head-dim": Wrong(NotImplementedError, "256, got 257", {"head_dim": 257}),
    "heads": Wrong(ValueError, "got 2 and 3", {"heads": 3, "heads_kv": 2}),
    "kernel": Wrong(ValueError, "axis 0 has 5, got 3 \\* 2", window=((3,), (1,), (2,), (0,))),
    "stride": Wrong(ValueError, "kernel_size 3, got 4", window=((3,), (4,), (1,), (0,))),
    "axes": Wrong(ValueError, "1 entries", window=((3, 3), (1,), (1,), (0,))),
    "bias": Wrong(
        ValueError, "bias must have shape \\(1, 9\\)", {"bias": True}, ((5,), (1,), (1,), (0,))
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_refuses_in_a_sentence(wrong: Wrong) -> None:
    case = Case((5,), (3,), **wrong.change)
    with pytest.raises(wrong.error, match=wrong.text):
        triton_rung.forward(*case.inputs(), *wrong.window, 1.0)


@pytest.mark.parametrize(
    ("dims", "kernel", "own"),
    [
        ((4096,), (7,), (1, 1, 64)),
        ((56, 56), (7, 7), (1, 8, 8)),
        ((16, 16, 16), (5, 5, 5), (4, 4, 4)),
    ],
    ids=["1d", "2d", "3d"],
)
def test_tiles_are_as_square_as_the_window(
    dims: tuple[int, ...], kernel: tuple[int, ...], own: tuple[int, ...]
) -> None:
    ones = (1,) * len(dims)
    geometry = plan.Geometry.lift(dims, kernel, ones, ones, (0,) * len(dims))
    assert plan.choose_boxes(geometry, 64, 32)[0] == own
