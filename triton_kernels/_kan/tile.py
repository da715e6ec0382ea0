"""Where a program works, and the tiles that it loads.

A weight comes as (tensor, stride of a head, of an output, of an input, of a function); x, gradients
and results are contiguous.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(program, fast, slow):
    """A program's place on its three axes, the last in 64 bits."""
    return program % fast, program // fast % slow, (program // fast // slow).to(tl.int64)


@triton.jit
def load_x(x, head, r, i, rows, inputs):
    """[rows, inputs] of x [h, M, I] in float32; zero outside."""
    index = (head * rows + r).to(tl.int64)[:, None] * inputs + i[None, :]
    mask = (r < rows)[:, None] & (i < inputs)[None, :]
    return tl.load(x + index, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def edges(
    weight, head, o, first, lowest, inputs, outputs, count,
    INPUTS: tl.constexpr, FUNCTIONS: tl.constexpr,
):  # fmt: skip
    """(addresses, mask) [outputs, inputs x functions] of a weight, or of what has its shape."""
    k = tl.arange(0, INPUTS * FUNCTIONS)
    i = first + k // FUNCTIONS
    n = lowest + k % FUNCTIONS
    along = i.to(tl.int64) * weight[3] + n.to(tl.int64) * weight[4]
    start = weight[0] + head * weight[1] + o.to(tl.int64) * weight[2]
    mask = (o < outputs)[:, None] & ((i < inputs) & (n < count))[None, :]
    return start[:, None] + along[None, :], mask


@triton.jit
def edge_tile(
    weight, head, o, first, lowest, inputs, outputs, count,
    INPUTS: tl.constexpr, FUNCTIONS: tl.constexpr,
):  # fmt: skip
    """A tile of a weight, [outputs, inputs x functions]; zero outside."""
    at, mask = edges(weight, head, o, first, lowest, inputs, outputs, count, INPUTS, FUNCTIONS)
    return tl.load(at, mask=mask, other=0.0)
