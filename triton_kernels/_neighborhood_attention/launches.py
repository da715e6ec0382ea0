"""From tensors to launches: which kernel, how many programs, which tiles, which tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._launch import Launch
from saccade.triton_kernels._neighborhood_attention.additional_gradient import (
    differentiate_additional,
)
from saccade.triton_kernels._neighborhood_attention.bias_gradient import differentiate_bias
from saccade.triton_kernels._neighborhood_attention.forward import attend
from saccade.triton_kernels._neighborhood_attention.key_gradient import differentiate_keys
from saccade.triton_kernels._neighborhood_attention.plan import (
    Blocks,
    Geometry,
    blocks_for,
    choose_bias_boxes,
    choose_boxes,
    has_whole_tiles,
    share_of_slot,
)
from saccade.triton_kernels._neighborhood_attention.query_gradient import differentiate_queries

Window = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Gradients:
    """Results of a backward: finished tensors, and tables of partial sums whose first axis is the
    slot.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: tuple[Tensor, Tensor] | None
    additional_keys: tuple[Tensor, Tensor] | None
    additional_values: tuple[Tensor, Tensor] | None

    def collect(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Add the slots up; to be called after the launches."""
        return (
            self.query,
            self.key,
            self.value,
            self._sum(self.bias),
            self._sum(self.additional_keys),
            self._sum(self.additional_values),
        )

    def _sum(self, table: tuple[Tensor, Tensor] | None) -> Tensor:
        if table is None:
            return self.query.new_empty([0])
        partial, like = table
        return partial.sum(0).to(like.dtype).reshape(like.shape)


def forward_launch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    window: Window,
    scale: float,
) -> tuple[Launch, Tensor, Tensor]:
    """The launch of the forward with the tensors that it fills: out, lse."""
    out = query.new_empty(query.shape)
    lse = query.new_empty(query.shape[:-1], dtype=torch.float32)
    geometry, blocks = _geometry(query, window), _blocks(query)
    own, walked = choose_boxes(geometry, blocks.own, blocks.walked)
    arguments = {
        "query": _strided(query),
        "key": _strided(key),
        "value": _strided(value),
        "bias": None if bias is None else bias.contiguous(),
        **_additional(additional_keys, additional_values),
        "out": out,
        "lse": lse,
        "heads_per_kv": query.shape[-2] // key.shape[-2],
        **_common(query, geometry, scale),
    }
    constants = {
        **_constants(query, geometry),
        "QUERY_BOX": own,
        "KEY_BOX": walked,
        "UNMASKED": bias is None and has_whole_tiles(geometry, own, walked),
    }
    grid = _programs(query, geometry, own) * query.shape[-2]
    return _launch(attend, grid, arguments, constants, blocks), out, lse


def backward_launches(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    additional_keys: Tensor | None,
    additional_values: Tensor | None,
    window: Window,
    scale: float,
) -> tuple[list[Launch], Gradients]:
    """The launches of the backward in their order, with the tensors that they fill."""
    geometry, blocks = _geometry(query, window), _blocks(query)
    own, walked = choose_boxes(geometry, blocks.own, blocks.walked)
    heads, heads_kv = query.shape[-2], key.shape[-2]
    delta = query.new_empty(query.shape[:-1], dtype=torch.float32)
    grad_query = query.new_empty(query.shape)
    grad_key, grad_value = key.new_empty(key.shape), value.new_empty(value.shape)
    lse = lse.contiguous()
    bias = None if bias is None else bias.contiguous()
    inputs = {
        "query": _strided(query),
        "key": _strided(key),
        "value": _strided(value),
        "bias": bias,
    }
    given = {"grad_out": _strided(grad_out), "lse": lse, "delta": delta}
    common = {"heads_per_kv": heads // heads_kv, **_common(query, geometry, scale)}
    constants = _constants(query, geometry)
    unmasked = bias is None and has_whole_tiles(geometry, own, walked)

    queries = _launch(
        differentiate_queries,
        _programs(query, geometry, own) * heads,
        {
            **inputs,
            **given,
            **_additional(additional_keys, additional_values),
            **common,
            "out": out.contiguous(),
            "grad_lse": grad_lse.contiguous(),
            "grad_query": grad_query,
        },
        {**constants, "QUERY_BOX": own, "KEY_BOX": walked, "UNMASKED": unmasked},
        blocks,
    )
    keys = _launch(
        differentiate_keys,
        _programs(query, geometry, own) * heads_kv,
        {
            **inputs,
            **given,
            **common,
            "grad_key": grad_key,
            "grad_value": grad_value,
        },
        {**constants, "QUERY_BOX": walked, "KEY_BOX": own, "UNMASKED": unmasked},
        blocks,
    )
    launches = [queries, keys]
    tables: list[tuple[Tensor, Tensor] | None] = [None, None, None]
    if bias is not None:
        launch, partial = _bias_launch(query, geometry, blocks, {**inputs, **given, **common})
        launches.append(launch)
        tables[0] = (partial, bias)
    if additional_keys is not None and additional_values is not None:
        launch, partial_keys, partial_values = _additional_launch(
            query, additional_keys, additional_values, geometry, blocks, {**given, **common}
        )
        launches.append(launch)
        tables[1:] = [(partial_keys, additional_keys), (partial_values, additional_values)]
    return launches, Gradients(grad_query, grad_key, grad_value, *tables)


def _bias_launch(
    query: Tensor, geometry: Geometry, blocks: Blocks, arguments: dict[str, Any]
) -> tuple[Launch, Tensor]:
    heads = query.shape[-2]
    own, walked = choose_bias_boxes(geometry, blocks.bias_keys)
    table = [2 * k - 1 for k in geometry.kernel]
    offsets = math.prod(triton.cdiv(entries, b) for entries, b in zip(table, own, strict=True))
    count = _programs(query, geometry, own)
    share = share_of_slot(count, heads * offsets)
    slots = max(1, triton.cdiv(count, share))
    partial = query.new_empty([slots, heads, *table], dtype=torch.float32)
    launch = _launch(
        differentiate_bias,
        heads * offsets * slots,
        {
            **arguments,
            "partial": partial,
            "count": count,
            "share": share,
        },
        {**_constants(query, geometry), "QUERY_BOX": own, "KEY_BOX": walked},
        blocks,
    )
    return launch, partial


def _additional_launch(
    query: Tensor,
    additional_keys: Tensor,
    additional_values: Tensor,
    geometry: Geometry,
    blocks: Blocks,
    arguments: dict[str, Any],
) -> tuple[Launch, Tensor, Tensor]:
    batches, additional, heads_kv, _ = additional_keys.shape
    key_blocks = triton.cdiv(additional, blocks.own)
    count = triton.cdiv(math.prod(geometry.lengths), blocks.walked)
    share = share_of_slot(count, batches * heads_kv * key_blocks)
    slots = max(1, triton.cdiv(count, share))
    partial_keys = query.new_empty([slots, *additional_keys.shape], dtype=torch.float32)
    partial_values = torch.empty_like(partial_keys)
    constants = _constants(query, geometry)
    absent = ("kernel", "stride", "dilation")
    launch = _launch(
        differentiate_additional,
        key_blocks * heads_kv * batches * slots,
        {
            **{name: given for name, given in arguments.items() if name not in absent},
            "query": _strided(query),
            **_additional(additional_keys, additional_values),
            "partial_keys": partial_keys,
            "partial_values": partial_values,
            "blocks": key_blocks,
            "share": share,
            "batches": batches,
        },
        {
            **{name: given for name, given in constants.items() if name != "CAUSAL"},
            "QUERIES": blocks.walked,
            "KEYS": blocks.own,
        },
        blocks,
    )
    return launch, partial_keys, partial_values


def _launch(
    kernel: Any, grid: int, arguments: dict[str, Any], constants: dict[str, Any], blocks: Blocks
) -> Launch:
    return Launch(kernel, grid, arguments, constants, blocks.num_warps, blocks.num_stages)


def _geometry(query: Tensor, window: Window) -> Geometry:
    return Geometry.lift(query.shape[1:-2], *window)


def _head_pad(query: Tensor) -> int:
    return int(max(16, triton.next_power_of_2(query.shape[-1])))


def _blocks(query: Tensor) -> Blocks:
    return blocks_for(_head_pad(query), query.element_size())


def _programs(query: Tensor, geometry: Geometry, box: tuple[int, int, int]) -> int:
    """Tiles of one head: every batch item, every dilation group."""
    first, second, third = geometry.tiles(box)
    return int(query.shape[0]) * geometry.groups * first * second * third


def _common(query: Tensor, geometry: Geometry, scale: float) -> dict[str, Any]:
    return {
        **{f"length{axis}": length for axis, length in enumerate(geometry.lengths)},
        "kernel": geometry.kernel,
        "stride": geometry.stride,
        "dilation": geometry.dilation,
        "heads": query.shape[-2],
        "scale": float(scale),
    }


def _constants(query: Tensor, geometry: Geometry) -> dict[str, Any]:
    return {
        "CAUSAL": geometry.causal,
        "RANK": geometry.rank,
        "HEAD_DIM": query.shape[-1],
        "HEAD_PAD": _head_pad(query),
        "PRECISION": "ieee",
    }


def _strided(x: Tensor) -> tuple[Any, ...]:
    """(tensor, batch, axis 0, axis 1, axis 2, head): strides, 0 for the axes that are not there."""
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        x = x.contiguous()
    strides = x.stride()
    return (x, strides[0], *[0] * (6 - x.dim()), *strides[1:-2], strides[-2])


def _additional(keys: Tensor | None, values: Tensor | None) -> dict[str, Any]:
    if keys is None or values is None:
        return {"additional_keys": None, "additional_values": None, "additional": 0}
    return {
        "additional_keys": _strided(keys),
        "additional_values": _strided(values),
        "additional": keys.shape[1],
    }
