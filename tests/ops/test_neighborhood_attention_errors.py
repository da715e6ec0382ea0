"""Every mistake gets a sentence with numbers before any kernel runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import ops


def x(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape or (2, 6, 8, 4, 16), dtype=dtype)


def call(**changes: Any) -> Callable[[], Any]:
    """neighborhood_attention on 6 x 8 tokens with 4 heads, with one thing wrong."""
    arguments: dict[str, Any] = {"query": x(), "key": x(), "value": x(), "kernel_size": 3}
    arguments |= changes
    return lambda: ops.neighborhood_attention(**arguments)


def additional(*shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {
        name: torch.zeros(shape)
        for name, shape in zip(("additional_keys", "additional_values"), shapes, strict=True)
    }


# name: call, error, what its sentence says
MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "query-list": (call(query=[1.0]), TypeError, r"query must be a torch.Tensor, got list"),
    "value-none": (call(value=None), TypeError, r"value must be a torch.Tensor, got NoneType"),
    "key-int": (call(key=x().long()), TypeError, r"key must have one of .*, got torch.int64"),
    "query-complex": (call(query=x().cfloat()), TypeError, r"query must .*, got torch.complex64"),
    "query-float8": (
        call(query=x().to(torch.float8_e4m3fn)),
        TypeError,
        r"query must .*, got torch.float8_e4m3fn",
    ),
    "query-quantized": (
        lambda: call(query=torch.quantize_per_tensor(x(), 0.1, 0, torch.qint8))(),
        TypeError,
        r"query must .*, got torch.qint8",
    ),
    "query-nested": (
        lambda: call(query=torch.nested.nested_tensor([x(6, 8, 4, 16)], layout=torch.jagged))(),
        NotImplementedError,
        r"query must be a dense .* nested",
    ),
    "value-nested": (
        lambda: call(value=torch.nested.nested_tensor([x(6, 8, 4, 16)]))(),
        NotImplementedError,
        r"value must be a dense .* nested",
    ),
    "key-sparse": (
        call(key=x().to_sparse()),
        NotImplementedError,
        r"key must be a dense .* torch.sparse_coo",
    ),
    "rank-3": (
        call(query=x(2, 6, 4)),
        ValueError,
        r"query must have rank 4 .* got rank 3 .*\(2, 6, 4\)",
    ),
    "rank-7": (call(query=x(1, 1, 1, 1, 1, 1, 1)), ValueError, r"got rank 7"),
    "key-rank": (call(key=x(2, 6, 4, 16)), ValueError, r"key must have the rank of query, 5, got"),
    "key-length": (
        call(key=x(2, 6, 7, 4, 16)),
        ValueError,
        r"key must .* \[B, X, Y, h, D\] = \(2, 6, 8, 4, 16\), .* got \(2, 6, 7, 4, 16\)",
    ),
    "key-batch": (call(key=x(3, 6, 8, 4, 16)), ValueError, r"key must have the shape of query"),
    "key-channels": (call(key=x(2, 6, 8, 4, 8)), ValueError, r"key must have the shape of query"),
    "value-shape": (
        call(value=x(2, 6, 8, 2, 16)),
        ValueError,
        r"value must have the shape of key, \(2, 6, 8, 4, 16\), got \(2, 6, 8, 2, 16\)",
    ),
    "heads": (
        call(key=x(2, 6, 8, 3, 16), value=x(2, 6, 8, 3, 16)),
        ValueError,
        r"must divide that of query: query has 4, key has 3",
    ),
    "no-key-heads": (
        call(key=x(2, 6, 8, 0, 16), value=x(2, 6, 8, 0, 16)),
        ValueError,
        r"query has 4, key has 0",
    ),
    "no-channels": (
        call(query=x(2, 6, 8, 4, 0), key=x(2, 6, 8, 4, 0), value=x(2, 6, 8, 4, 0)),
        ValueError,
        r"at least 1 channel, got h = 4 and D = 0",
    ),
    "no-heads": (
        call(query=x(2, 6, 8, 0, 4), key=x(2, 6, 8, 0, 4), value=x(2, 6, 8, 0, 4)),
        ValueError,
        r"got h = 0 and D = 4",
    ),
    "types-differ": (
        call(key=x().double()),
        ValueError,
        r"key must have the type of query, torch.float32, got torch.float64",
    ),
    "devices-differ": (
        call(value=x().to("meta")),
        ValueError,
        r"value must be on the device of query, cpu, got meta",
    ),
    "kernel-zero": (call(kernel_size=0), ValueError, r"kernel_size must be at least 1 .* got 0"),
    "kernel-negative": (call(kernel_size=(3, -1)), ValueError, r"at least 1 .* got \(3, -1\)"),
    "kernel-float": (
        call(kernel_size=3.0),
        TypeError,
        r"kernel_size must be an int .* got 3.0 \(float\)",
    ),
    "kernel-bool": (call(kernel_size=True), TypeError, r"got True \(bool\)"),
    "kernel-bool-inside": (call(kernel_size=(3, True)), TypeError, r"must hold ints, got True"),
    "kernel-string": (call(kernel_size="3"), TypeError, r"got '3' \(str\)"),
    "kernel-tensor": (
        call(kernel_size=torch.tensor([3, 3])),
        TypeError,
        r"got a tensor of shape \(2,\)",
    ),
    "kernel-none": (call(kernel_size=None), TypeError, r"got None"),
    "kernel-entries": (
        call(kernel_size=(3, 3, 3)),
        ValueError,
        r"kernel_size must be an int or have 2 entries, .* got \(3, 3, 3\)",
    ),
    "kernel-too-long": (
        call(kernel_size=(5, 9)),
        ValueError,
        r"at most the length of its axis: axis 1 has 8, got 9 \* 1 = 9",
    ),
    "dilated-kernel-too-long": (
        call(dilation=3),
        ValueError,
        r"kernel_size times dilation must be at most .*: axis 0 has 6, got 3 \* 3 = 9",
    ),
    "stride-over-kernel": (
        call(stride=(3, 4)),
        ValueError,
        r"stride must be at most kernel_size: axis 1 has 3, got 4",
    ),
    "stride-zero": (call(stride=0), ValueError, r"stride must be at least 1"),
    "dilation-zero": (call(dilation=(1, 0)), ValueError, r"dilation must be at least 1"),
    "dilation-entries": (call(dilation=(1,)), ValueError, r"dilation must .* 2 entries"),
    "causal-int": (call(is_causal=1), TypeError, r"is_causal must be a bool .* got 1 \(int\)"),
    "causal-inside": (call(is_causal=(True, 0)), TypeError, r"is_causal must hold bools, got 0"),
    "causal-entries": (call(is_causal=(True,)), ValueError, r"is_causal must .* 2 entries"),
    "scale-nan": (call(scale=float("nan")), ValueError, r"scale must be finite, got nan"),
    "scale-infinite": (call(scale=float("-inf")), ValueError, r"scale must be finite, got -inf"),
    "scale-string": (call(scale="auto"), TypeError, r"scale must be a number or None, got 'auto'"),
    "scale-tensor": (call(scale=torch.ones(())), TypeError, r"scale must be .* a tensor of shape"),
    "bias-list": (call(bias=[0.0]), TypeError, r"bias must be a torch.Tensor, got list"),
    "bias-shape": (
        call(bias=x(4, 5, 3)),
        ValueError,
        r"bias must have shape \[h, 2\*K0-1, 2\*K1-1\] = \(4, 5, 5\), got \(4, 5, 3\)",
    ),
    "bias-heads": (call(bias=x(1, 5, 5)), ValueError, r"= \(4, 5, 5\), got \(1, 5, 5\)"),
    "bias-clamped": (
        call(kernel_size=(9, 3), bias=x(4, 11, 5), clamp=True),
        ValueError,
        r"= \(4, 17, 5\), got \(4, 11, 5\)",
    ),
    "bias-type": (call(bias=x(4, 5, 5).half()), ValueError, r"bias must have the type of query"),
    "bias-device": (
        call(bias=x(4, 5, 5).to("meta")),
        ValueError,
        r"bias must be on the device of query, cpu, got meta",
    ),
    "additional-keys-alone": (
        call(additional_keys=x(2, 3, 4, 16)),
        ValueError,
        r"additional_keys was given without additional_values",
    ),
    "additional-values-alone": (
        call(additional_values=x(2, 3, 4, 16)),
        ValueError,
        r"additional_values was given without additional_keys",
    ),
    "additional-rank": (
        call(**additional((2, 3, 16), (2, 3, 16))),
        ValueError,
        r"additional_keys must have rank 4 \[B, S, h_kv, D\], got shape \(2, 3, 16\)",
    ),
    "additional-heads": (
        call(**additional((2, 3, 2, 16), (2, 3, 2, 16))),
        ValueError,
        r"additional_keys must have shape .* = \(2, 3, 4, 16\), got \(2, 3, 2, 16\)",
    ),
    "additional-lengths": (
        call(**additional((2, 3, 4, 16), (2, 5, 4, 16))),
        ValueError,
        r"additional_values must have shape .* = \(2, 3, 4, 16\), got \(2, 5, 4, 16\)",
    ),
    "additional-type": (
        call(additional_keys=x(2, 3, 4, 16).double(), additional_values=x(2, 3, 4, 16).double()),
        ValueError,
        r"additional_keys must have the type of query",
    ),
    "backend-unknown": (
        call(backend="gpu"),
        ValueError,
        r"backend must be one of auto, cpu, cuda, triton, reference, got 'gpu'",
    ),
    "backend-impossible": (
        call(backend="cuda"),
        RuntimeError,
        r"cannot run with backend='cuda': the tensors are on cpu",
    ),
    "na2d-rank": (
        lambda: ops.na2d(x(2, 6, 4, 16), x(2, 6, 4, 16), x(2, 6, 4, 16), 3),
        ValueError,
        r"na2d takes a query of rank 5 \[B, X, Y, h, D\], got rank 4",
    ),
    "na1d-not-a-tensor": (lambda: ops.na1d(None, x(), x(), 3), TypeError, r"query must be"),
    "na3d-unknown-keyword": (
        lambda: ops.na3d(*[x(1, 3, 3, 3, 1, 4)] * 3, 3, tile=4),
        TypeError,
        r"na3d\(\) got an unexpected keyword argument 'tile'",
    ),
    "na2d-attention-kwargs": (
        lambda: ops.na2d(x(), x(), x(), 3, attention_kwargs="flash"),
        TypeError,
        r"attention_kwargs must be a dict or None, got str",
    ),
    "merge-nothing": (lambda: ops.merge_attentions([], []), ValueError, r"got 0 and 0"),
    "merge-counts": (
        lambda: ops.merge_attentions([x(1, 4, 2, 8)], []),
        ValueError,
        r"equally many and at least 1, got 1 and 0",
    ),
    "merge-tensor": (
        lambda: ops.merge_attentions(x(1, 4, 2, 8), x(1, 4, 2)),
        TypeError,
        r"outputs must be a list or tuple of tensors, got Tensor",
    ),
    "merge-shapes": (
        lambda: ops.merge_attentions([x(1, 4, 2, 8), x(1, 4, 2, 7)], [x(1, 4, 2)] * 2),
        ValueError,
        r"outputs\[1\] must have shape .* = \(1, 4, 2, 8\), got \(1, 4, 2, 7\)",
    ),
    "merge-lse-shape": (
        lambda: ops.merge_attentions([x(1, 4, 2, 8)], [x(1, 2, 4)]),
        ValueError,
        r"lses\[0\] must have shape .* = \(1, 4, 2\), got \(1, 2, 4\)",
    ),
    "explain-not-a-tensor": (
        lambda: ops.explain("neighborhood_attention", (2, 6, 8)),
        TypeError,
        r"tensor must be a torch.Tensor, got tuple",
    ),
    "explain-unknown": (
        lambda: ops.explain("attention", x()),
        ValueError,
        r"operator must be one of .*neighborhood_attention.*, got 'attention'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore")
def test_mistakes_are_explained(mistake: str) -> None:
    function, error, sentence = MISTAKES[mistake]
    with pytest.raises(error, match=sentence) as caught:
        function()
    assert str(caught.value).endswith((".", ". clamp=True shrinks the window."))


def test_a_forced_rung_refuses_forward_mode() -> None:
    def attend(t: Tensor) -> Tensor:
        return ops.neighborhood_attention(t, t, t, 3, backend=rung)

    primal = torch.randn(1, 6, 1, 4)
    rung = "auto"
    torch.func.jvp(attend, (primal,), (primal,))
    rung = "cpu"
    with pytest.raises((NotImplementedError, RuntimeError), match=r"forward-mode|cannot run"):
        torch.func.jvp(attend, (primal,), (primal,))
