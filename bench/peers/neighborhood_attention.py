"""Other ways to compute neighborhood attention: dense SDPA, gather, flex_attention, NATTEN.

The windows are built here from the definition, not by Saccade's code. Tables that depend on sizes
alone (masks, indices, BlockMasks) are built before timing starts. What depends on the tensors is
timed: the views from heads-last to heads-first and back, and the look-up of a learnable bias.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.bench._suite import TRAINING, Case, Function, Inputs, Peer, UnsupportedError

DEFAULTS: dict[str, Any] = {"stride": 1, "dilation": 1, "is_causal": False}


def axis_windows(
    length: int, kernel: int, stride: int, dilation: int, causal: bool
) -> tuple[Tensor, Tensor]:
    """The keys that each query of one axis sees.

    Returns:
        Keys along the axis and whether each slot holds one, both [length, kernel].
    """
    query = torch.arange(length)
    group, position = query % dilation, query // dilation
    size = length // dilation + (group < length % dilation).long()
    first_of_stride = position // stride * stride
    last = size - 1
    if causal:
        leader = torch.minimum(first_of_stride + stride - 1, last)
        start = (leader - kernel + 1).clamp_min(0)
        end = position
    else:
        leader = torch.minimum(first_of_stride + stride // 2, last)
        start = torch.minimum((leader - kernel // 2).clamp_min(0), size - kernel)
        end = start + kernel - 1
    key = start[:, None] + torch.arange(kernel)
    valid = key <= end[:, None]
    return torch.where(valid, key, position[:, None]) * dilation + group[:, None], valid


def _per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank


class Windows:
    """Joint windows of all axes, over tokens in row-major order: N queries with W slots each."""

    def __init__(self, case: Case) -> None:
        self.dims = case.shapes["query"][1:-2]
        rank = len(self.dims)
        self.kernel = _per_axis(case.kwargs["kernel_size"], rank)
        options = [_per_axis(case.kwargs.get(k, v), rank) for k, v in DEFAULTS.items()]
        self.dilation = options[1]
        index = offset = torch.zeros(1, 1, dtype=torch.long)
        valid = torch.ones(1, 1, dtype=torch.bool)
        for length, kernel, stride, dilation, causal in zip(
            self.dims, self.kernel, *options, strict=True
        ):
            keys, there = axis_windows(length, kernel, stride, dilation, causal)
            steps = (
                (keys - torch.arange(length)[:, None]).div(dilation, rounding_mode="floor")
                + kernel
                - 1
            )
            index = _outer(index * length, keys, torch.add)
            valid = _outer(valid, there, torch.logical_and)
            offset = _outer(offset * (2 * kernel - 1), steps, torch.add)
        self.index, self.valid, self.offset = index, valid, offset

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that it sees, for one head of one sample."""
        return int(self.valid.sum())

    def mask(self) -> Tensor:
        """Dense mask [N, N], true where the query (row) sees the key."""
        tokens = len(self.index)
        seen = torch.zeros(tokens, tokens, dtype=torch.bool)
        return seen.scatter_(1, self.index, True)

    def dense_offset(self) -> Tensor:
        """Entry of the flattened bias table for each pair [N, N]; 0 where the pair is masked."""
        tokens = len(self.index)
        return torch.zeros(tokens, tokens, dtype=torch.long).scatter_(1, self.index, self.offset)


def _outer(left: Tensor, right: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine [N, W] with [L, K] to [N * L, W * K]."""
    (n, w), (length, k) = left.shape, right.shape
    return (
        combine(left[:, None, :, None], right[None, :, None, :])
        .expand(n, length, w, k)
        .reshape(n * length, w * k)
    )


def _heads_first(x: Tensor) -> Tensor:
    """[B, *dims, h, D] to [B, h, N, D], a view."""
    return x.flatten(1, -3).transpose(1, 2)


def _heads_last(x: Tensor, like: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(like.shape)


class DenseSDPA(Peer):
    """torch's scaled_dot_product_attention over all tokens with a boolean mask.

    A bias makes the mask additive.
    """

    name = "sdpa"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the tables and return the callable."""
        windows, device = Windows(case), inputs["query"].device
        mask = windows.mask().to(device)
        offset = windows.dense_offset().to(device) if "bias" in case.shapes else None

        def attend(x: Inputs) -> Tensor:
            visible = mask
            if offset is not None:
                visible = x["bias"].flatten(1)[:, offset].masked_fill(~mask, float("-inf"))
            q, k, v = (_heads_first(x[name]) for name in ("query", "key", "value"))
            return _heads_last(
                F.scaled_dot_product_attention(q, k, v, attn_mask=visible), x["query"]
            )

        return attend


class Gather(Peer):
    """The textbook way in plain torch: copy each query's window, then two small products."""

    name = "gather"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the tables and return the callable."""
        windows, device = Windows(case), inputs["query"].device
        index, valid, offset = (
            t.to(device) for t in (windows.index, windows.valid, windows.offset)
        )
        masked = not bool(valid.all())

        def attend(x: Inputs) -> Tensor:
            query, key, value = (x[name].flatten(1, -3) for name in ("query", "key", "value"))
            scores = torch.einsum(
                "bnhd,bnwhd->bhnw", query * query.shape[-1] ** -0.5, key[:, index]
            )
            if "bias" in x:
                scores = scores + x["bias"].flatten(1)[:, offset]
            if masked:
                scores = scores.masked_fill(~valid, float("-inf"))
            out = torch.einsum("bhnw,bnwhd->bnhd", scores.softmax(-1), value[:, index])
            return out.reshape(x["query"].shape)

        return attend


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


class Flex(Peer):
    """torch's flex_attention, compiled, over tokens in row-major order with a BlockMask.

    The fastest form found on the CPU: the mask is read from a table (`mask[query, key]`).
    """

    name = "flex"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if "bias" in case.shapes:
            return "a relative bias would need a dense table of scores"
        if device.type == "cpu" and phase == TRAINING:
            return "flex_attention has no backward on the CPU"
        return None

    def mask_mod(self, case: Case, device: torch.device) -> Callable[..., Tensor]:
        """The function (batch, head, query, key) -> whether the query sees the key."""
        mask = Windows(case).mask().to(device)
        return lambda batch, head, query, key: mask[query, key]

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the tables and return the callable."""
        from torch.nn.attention.flex_attention import create_block_mask

        device = inputs["query"].device
        tokens = inputs["query"].shape[1:-2].numel()
        block_mask = create_block_mask(
            self.mask_mod(case, device), None, None, tokens, tokens, device=str(device)
        )
        flex = _compiled_flex()

        def attend(x: Inputs) -> Tensor:
            qkv = (_heads_first(x[name]) for name in ("query", "key", "value"))
            return _heads_last(flex(*qkv, block_mask=block_mask), x["query"])

        return attend


class FlexArithmetic(Flex):
    """flex_attention as users write it: the mask is computed from the token numbers."""

    name = "flex-arithmetic"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if case.kwargs.get("stride", 1) != 1 or case.kwargs.get("is_causal", False):
            return "this mask function is written for stride 1 without causality"
        return super().refusal(case, phase, device)

    def mask_mod(self, case: Case, device: torch.device) -> Callable[..., Tensor]:
        """The mask function, in integer arithmetic."""
        windows = Windows(case)
        axes = tuple(zip(windows.dims, windows.kernel, windows.dilation, strict=True))

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen = query >= 0
            # The last axis runs fastest, so tokens are taken apart from the end.
            for length, kernel, dilation in reversed(axes):
                q, k = query % length, key % length
                query, key = query // length, key // length
                group, position = q % dilation, q // dilation
                size = length // dilation + torch.where(group < length % dilation, 1, 0)
                start = torch.minimum((position - kernel // 2).clamp_min(0), size - kernel)
                inside = (k // dilation >= start) & (k // dilation < start + kernel)
                seen = seen & inside & (k % dilation == group)
            return seen

        return sees


class Natten(Peer):
    """The NATTEN package, with the backend that it chooses itself."""

    name = "natten"

    def version(self) -> str:
        """The package and its release."""
        return (
            f"natten {metadata.version('natten')}"
            if importlib.util.find_spec("natten")
            else "natten"
        )

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        if importlib.util.find_spec("natten") is None:
            return "natten is not installed"
        if "bias" in case.shapes:
            return "natten dropped the relative position bias in 0.20"
        if device.type == "cpu" and phase == TRAINING:
            return "natten has no backward on the CPU"
        return None

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build the tables and return the callable."""
        import natten

        rank = inputs["query"].ndim - 3
        function = getattr(natten, f"na{rank}d", None)
        if function is None:
            raise UnsupportedError(f"{self.version()} has no na{rank}d")
        return lambda x: function(x["query"], x["key"], x["value"], **case.kwargs)


PEERS: tuple[Peer, ...] = (DenseSDPA(), Gather(), Flex(), FlexArithmetic(), Natten())
