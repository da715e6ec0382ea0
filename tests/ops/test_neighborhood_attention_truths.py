"""Closed forms and invariants that neighborhood attention must obey, on every rung."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as dense

from saccade import ops
from saccade.reference.neighborhood_attention import window

pytestmark = pytest.mark.rungs("reference", "cpu", "cuda", "triton")

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def draw(*shape: int, device: torch.device, count: int = 3) -> list[Tensor]:
    return [torch.randn(shape, device=device) for _ in range(count)]


def heads_first(tensor: Tensor) -> Tensor:
    """[B, *dims, h, D] -> [B, h, N, D]."""
    return tensor.flatten(1, -3).transpose(1, 2)


def full(query: Tensor, key: Tensor, value: Tensor, **options: object) -> Tensor:
    """Attention of all tokens to all tokens."""
    out = dense(heads_first(query), heads_first(key), heads_first(value), **options)
    return out.transpose(1, 2).reshape(query.shape)


@pytest.mark.parametrize("dims", [(13,), (5, 7), (3, 2, 5)], ids=str)
def test_a_window_over_everything_is_self_attention(
    dims: tuple[int, ...], backend: str, device: torch.device
) -> None:
    query, key, value = draw(2, *dims, 3, 8, device=device)
    out = ops.neighborhood_attention(query, key, value, dims, backend=backend)
    torch.testing.assert_close(out, full(query, key, value), **CLOSE)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_grouped_heads(kv_heads: int, backend: str, device: torch.device) -> None:
    query, key, value = draw(2, 5, 4, 6, 8, device=device)
    key, value = key[..., :kv_heads, :], value[..., :kv_heads, :]
    out = ops.neighborhood_attention(query, key, value, (5, 4), backend=backend)
    repeated = [t.repeat_interleave(6 // kv_heads, -2) for t in (key, value)]
    torch.testing.assert_close(out, full(query, *repeated), **CLOSE)


def test_causal_over_everything_is_causal_self_attention(
    backend: str, device: torch.device
) -> None:
    query, key, value = draw(2, 13, 3, 8, device=device)
    out = ops.neighborhood_attention(query, key, value, 13, is_causal=True, backend=backend)
    torch.testing.assert_close(out, full(query, key, value, is_causal=True), **CLOSE)


@pytest.mark.parametrize("window", [(4, 3), (2, 6), (1, 2)], ids=str)
def test_stride_of_a_window_is_window_attention(
    window: tuple[int, int], backend: str, device: torch.device
) -> None:
    tensors = draw(2, 8, 6, 2, 8, device=device)
    out = ops.neighborhood_attention(*tensors, window, stride=window, backend=backend)
    a, b = window

    def partition(tensor: Tensor) -> Tensor:
        tiles = tensor.unflatten(2, (6 // b, b)).unflatten(1, (8 // a, a))
        return tiles.transpose(2, 3).reshape(-1, a, b, 2, 8)

    expected = full(*(partition(t) for t in tensors))
    torch.testing.assert_close(partition(out), expected, **CLOSE)


@pytest.mark.parametrize("dilation", [(2, 1), (3, 2), (4, 3)], ids=str)
def test_dilation_is_attention_on_slices(
    dilation: tuple[int, int], backend: str, device: torch.device
) -> None:
    tensors = draw(1, 13, 11, 2, 8, device=device)
    out = ops.neighborhood_attention(*tensors, 3, dilation=dilation, backend=backend)
    for i in range(dilation[0]):
        for j in range(dilation[1]):
            group = (slice(None), slice(i, None, dilation[0]), slice(j, None, dilation[1]))
            apart = ops.neighborhood_attention(*(t[group] for t in tensors), 3, backend=backend)
            torch.testing.assert_close(out[group], apart, **CLOSE)


def test_translation(backend: str, device: torch.device) -> None:
    tensors = draw(1, 15, 16, 2, 8, device=device)
    bias = torch.randn(2, 9, 9, device=device)
    out = ops.neighborhood_attention(*tensors, 5, bias=bias, backend=backend)
    moved = ops.neighborhood_attention(
        *(t.roll((2, 3), (1, 2)) for t in tensors), 5, bias=bias, backend=backend
    )
    # two columns of border on each side, and what was rolled around
    torch.testing.assert_close(out[:, 2:-4, 2:-5], moved[:, 4:-2, 5:-2], **CLOSE)


def test_constant_values_come_out(backend: str, device: torch.device) -> None:
    query, key = draw(1, 7, 9, 2, 8, device=device, count=2)
    value = torch.ones_like(key)
    for causal in (False, True):
        out = ops.neighborhood_attention(
            query, key, value, 4, stride=3, is_causal=causal, backend=backend
        )
        torch.testing.assert_close(out, torch.ones_like(out), **CLOSE)


def test_heads_and_batch_entries_are_independent(backend: str, device: torch.device) -> None:
    tensors = draw(3, 6, 7, 4, 8, device=device)
    bias = torch.randn(4, 5, 5, device=device)
    out = ops.neighborhood_attention(*tensors, 3, bias=bias, backend=backend)
    heads, batch = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    shuffled = [t[batch][..., heads, :] for t in tensors]
    again = ops.neighborhood_attention(*shuffled, 3, bias=bias[heads], backend=backend)
    torch.testing.assert_close(again, out[batch][..., heads, :], **CLOSE)


AXES = [
    # length, kernel, stride, dilation, causal
    (1, 1, 1, 1, False),
    (12, 3, 1, 1, False),
    (12, 4, 2, 1, False),
    (13, 4, 3, 2, False),
    (17, 5, 5, 3, False),
    (17, 8, 1, 2, False),
    (40, 13, 6, 3, False),
    (12, 3, 1, 1, True),
    (13, 5, 4, 2, True),
    (29, 9, 2, 3, True),
]


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: "-".join(map(str, axis)))
def test_with_scale_zero_and_unit_values_the_windows_show(
    axis: tuple[int, int, int, int, bool], backend: str, device: torch.device
) -> None:
    length, kernel, stride, dilation, causal = axis
    query, key = draw(1, length, 1, length, device=device, count=2)
    value = torch.eye(length, device=device).reshape(1, length, 1, length)
    out, lse = ops.neighborhood_attention(
        query,
        key,
        value,
        kernel,
        stride=stride,
        dilation=dilation,
        is_causal=causal,
        scale=0.0,
        return_lse=True,
        backend=backend,
    )
    table = window(*axis)
    expected = torch.zeros(length, length)
    expected[
        torch.arange(length)[:, None].expand_as(table.index)[table.valid], table.index[table.valid]
    ] = 1
    seen = out[0, :, 0].cpu() > 0
    assert torch.equal(seen, expected.bool())
    count = seen.sum(1)
    torch.testing.assert_close(lse[0, :, 0].cpu(), count.float().log())
    assert causal or count.sum() == length * kernel


def test_a_constant_bias_moves_the_log_sum_exp(backend: str, device: torch.device) -> None:
    tensors = draw(1, 7, 9, 2, 8, device=device)
    bias = torch.full((2, 5, 5), 1.25, device=device)
    out, lse = ops.neighborhood_attention(*tensors, 3, return_lse=True, backend=backend)
    moved, moved_lse = ops.neighborhood_attention(
        *tensors, 3, bias=bias, return_lse=True, backend=backend
    )
    torch.testing.assert_close(moved, out, **CLOSE)
    torch.testing.assert_close(moved_lse, lse + 1.25, **CLOSE)


def test_additional_keys_are_concatenated_keys(backend: str, device: torch.device) -> None:
    query, key, value = draw(2, 5, 4, 2, 8, device=device)
    more_keys, more_values = draw(2, 3, 2, 8, device=device, count=2)
    out = ops.neighborhood_attention(
        query,
        key,
        value,
        (5, 4),
        additional_keys=more_keys,
        additional_values=more_values,
        backend=backend,
    )
    joined = [
        torch.cat([t.flatten(1, 2), more], 1).transpose(1, 2)
        for t, more in ((key, more_keys), (value, more_values))
    ]
    expected = dense(heads_first(query), *joined).transpose(1, 2).reshape(out.shape)
    torch.testing.assert_close(out, expected, **CLOSE)


def test_merged_attentions_are_one_attention(backend: str, device: torch.device) -> None:
    query, key, value = draw(2, 5, 7, 2, 8, device=device)
    parts = [draw(2, count, 2, 8, device=device, count=2) for count in (3, 1)]

    def attend(keys: list[Tensor], values: list[Tensor]) -> tuple[Tensor, Tensor]:
        return ops.neighborhood_attention(
            query,
            key,
            value,
            3,
            additional_keys=torch.cat(keys, 1),
            additional_values=torch.cat(values, 1),
            return_lse=True,
            backend=backend,
        )

    def alone(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.einsum("bxyhd,bshd->bxyhs", query, keys) * 8**-0.5
        out = torch.einsum("bxyhs,bshd->bxyhd", logits.softmax(-1), values)
        return out, logits.logsumexp(-1)

    pieces = [
        ops.neighborhood_attention(query, key, value, 3, return_lse=True, backend=backend),
        *(alone(*part) for part in parts),
    ]
    merged = ops.merge_attentions([out for out, _ in pieces], [lse for _, lse in pieces])
    expected = attend([keys for keys, _ in parts], [values for _, values in parts])
    torch.testing.assert_close(merged, expected, **CLOSE)


def test_merge_is_differentiable_and_keeps_types() -> None:
    outs = [torch.randn(1, 3, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    lses = [torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(
        lambda *t: ops.merge_attentions(t[:3], t[3:]), (*outs, *lses), fast_mode=True
    )
    out, lse = ops.merge_attentions([o.bfloat16() for o in outs], [t.float() for t in lses])
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)


def test_far_apart_log_sum_exps_merge_without_overflow() -> None:
    out = torch.randn(1, 3, 2, 4)
    lse = torch.zeros(1, 3, 2)
    merged, joint = ops.merge_attentions([out, -out], [lse + 1000, lse - 1000])
    assert torch.equal(merged, out)
    assert torch.equal(joint, lse + 1000)


# name: length, kernel, stride, dilation -> what clamp makes of them
CLAMPS = {
    "fits": ((9, 3, 2, 3), (3, 2, 3)),
    "dilation-too-long": ((9, 4, 2, 3), (4, 2, 2)),
    "kernel-too-long": ((5, 7, 6, 2), (5, 5, 1)),
    "one-token": ((1, 7, 7, 4), (1, 1, 1)),
}


@pytest.mark.parametrize("case", CLAMPS)
def test_clamp(case: str, backend: str, device: torch.device) -> None:
    (length, *asked), (kernel, stride, dilation) = CLAMPS[case]
    tensors = draw(2, length, 2, 8, device=device)
    bias = torch.randn(2, 2 * asked[0] - 1, device=device, requires_grad=True)
    out = ops.neighborhood_attention(
        *tensors,
        asked[0],
        stride=asked[1],
        dilation=asked[2],
        bias=bias,
        clamp=True,
        backend=backend,
    )
    cut = asked[0] - kernel
    centre = bias[:, cut : bias.shape[1] - cut]
    expected = ops.neighborhood_attention(
        *tensors, kernel, stride=stride, dilation=dilation, bias=centre, backend=backend
    )
    assert torch.equal(out, expected)
    (grad,) = torch.autograd.grad(out.square().sum(), bias)
    assert not grad[:, :cut].any()
    assert math.isfinite(grad.sum())


def test_natten_names(backend: str, device: torch.device) -> None:
    for axes, function in ((1, ops.na1d), (2, ops.na2d), (3, ops.na3d)):
        tensors = draw(1, *(6, 5, 4)[:axes], 2, 8, device=device)
        more = draw(1, 2, 2, 8, device=device, count=2)
        got = function(*tensors, 3, 2, 1, True, 0.3, *more, None, backend, return_lse=True)
        expected = ops.neighborhood_attention(
            *tensors,
            3,
            stride=2,
            is_causal=True,
            scale=0.3,
            additional_keys=more[0],
            additional_values=more[1],
            return_lse=True,
            backend=backend,
        )
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_natten_arguments_that_mean_nothing_here() -> None:
    x = torch.randn(1, 6, 5, 2, 8)
    expected = ops.neighborhood_attention(x, x, x, 3)
    for backend in (None, "cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna"):
        got = ops.na2d(x, x, x, 3, backend=backend, q_tile_shape=(8, 8), attention_kwargs={})
        assert torch.equal(got, expected)


@pytest.mark.rungs("cpu", "cuda", "triton")
def test_the_same_bits_every_time(backend: str, device: torch.device) -> None:
    tensors = [t.requires_grad_() for t in draw(3, 23, 19, 4, 16, device=device)]
    bias = torch.randn(4, 13, 13, device=device, requires_grad=True)
    more = [t.requires_grad_() for t in draw(3, 5, 4, 16, device=device, count=2)]
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 1, 3):
            torch.set_num_threads(count)
            out, lse = ops.neighborhood_attention(
                *tensors,
                7,
                dilation=2,
                bias=bias,
                additional_keys=more[0],
                additional_values=more[1],
                return_lse=True,
                backend=backend,
            )
            loss = out.square().sum() + lse.sum()
            runs.append((out, lse, *torch.autograd.grad(loss, (*tensors, bias, *more))))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))
